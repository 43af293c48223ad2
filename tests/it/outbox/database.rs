//! The directory's database, seen from beside: rows put in, rows counted, and locks that block.

use doorward::time::{Clock, SystemClock};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection};
use uuid::Uuid;

use super::BINARY;
use crate::support::postgres::Postgres;
use crate::support::temp::TempDir;

/// A migrated directory.
pub(super) enum Database {
    Sqlite(TempDir),
    Postgres(Postgres),
}

/// While it lives, nobody else changes the outbox.
pub(super) enum Lock {
    Sqlite(#[expect(dead_code, reason = "it holds the lock")] SqliteConnection),
    Postgres(#[expect(dead_code, reason = "it holds the lock")] PgConnection),
}

impl Database {
    /// Makes an `SQLite` directory.
    pub(super) fn sqlite() -> Self {
        Self::Sqlite(TempDir::new("outbox")).migrated()
    }

    /// Makes a PostgreSQL directory.
    pub(super) async fn postgres() -> Self {
        Self::Postgres(Postgres::start().await).migrated()
    }

    /// Returns what belongs into `directory.url`.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite://{}", directory.join("directory.db").display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    fn migrated(self) -> Self {
        let output = std::process::Command::new(BINARY)
            .arg("migrate")
            .env("DOORWARD__DIRECTORY__URL", self.url())
            .output()
            .expect("the binary can be started");
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(said, "the directory's schema is up to date\n", "{output:?}");
        self
    }

    /// Returns the one number that `sql` selects.
    pub(super) async fn number(&self, sql: &str) -> i64 {
        let sql = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(_) => {
                sqlx::query(sql).fetch_one(&mut self.sqlite_connection().await).await.expect("it selects").get(0)
            }
            Self::Postgres(_) => {
                sqlx::query(sql).fetch_one(&mut self.postgres_connection().await).await.expect("it selects").get(0)
            }
        }
    }

    /// Returns how many events are not delivered.
    pub(super) async fn depth(&self) -> i64 {
        self.number("select count(*) from doorward_outbox").await
    }

    /// Writes an event as a rebind does; returns its id.
    pub(super) async fn add(&self, kind: &str, person: &str, body: &str) -> String {
        self.add_all(&[(kind.to_owned(), person.to_owned(), body.to_owned())]).await.remove(0)
    }

    /// Writes `count` aliases of each of `persons`, in turns; returns their ids.
    pub(super) async fn add_aliases(&self, persons: &[String], count: usize) -> Vec<String> {
        let one = |(number, person): (usize, &String)| {
            let body = serde_json::json!({ "distinct_id": person, "alias": format!("anon:{person}-{number:03}") });
            ("alias".to_owned(), person.clone(), body.to_string())
        };
        let turns = (0..count).flat_map(|number| persons.iter().map(move |person| (number, person)));
        self.add_all(&turns.map(one).collect::<Vec<_>>()).await
    }

    async fn add_all(&self, events: &[(String, String, String)]) -> Vec<String> {
        let (now, ids) = (SystemClock::new().now().0, events.iter().map(|_| Uuid::now_v7().to_string()));
        let ids: Vec<String> = ids.collect();
        let rows = ids.iter().zip(events).map(|(id, (kind, person, body))| {
            format!("('{id}', '{kind}', '{person}', '{body}', 'pending', 0, {now}, 0, {now})")
        });
        let sql = format!(
            "insert into doorward_outbox (id, kind, person, body, state, attempts, due_at, leased_until, created_at) \
             values {}",
            rows.collect::<Vec<_>>().join(", ")
        );
        self.execute(sql).await;
        ids
    }

    /// Makes everything that is leased anybody's.
    pub(super) async fn end_leases(&self) {
        self.execute("update doorward_outbox set leased_until = 0, due_at = 0".to_owned()).await;
    }

    async fn execute(&self, sql: String) {
        let sql = AssertSqlSafe(sql);
        match self {
            Self::Sqlite(_) => {
                sqlx::query(sql).execute(&mut self.sqlite_connection().await).await.expect("it runs");
            }
            Self::Postgres(_) => {
                sqlx::query(sql).execute(&mut self.postgres_connection().await).await.expect("it runs");
            }
        }
    }

    /// Keeps everybody else from changing the outbox.
    pub(super) async fn lock(&self) -> Lock {
        match self {
            Self::Sqlite(_) => {
                let mut connection = self.sqlite_connection().await;
                sqlx::query("begin immediate").execute(&mut connection).await.expect("it locks");
                Lock::Sqlite(connection)
            }
            Self::Postgres(_) => {
                let mut connection = self.postgres_connection().await;
                sqlx::query("begin").execute(&mut connection).await.expect("it begins");
                sqlx::query("lock table doorward_outbox in share mode")
                    .execute(&mut connection)
                    .await
                    .expect("it locks");
                Lock::Postgres(connection)
            }
        }
    }

    async fn sqlite_connection(&self) -> SqliteConnection {
        let options: sqlx::sqlite::SqliteConnectOptions = self.url().parse().expect("a URL");
        options.busy_timeout(crate::support::PATIENCE).connect().await.expect("the file is there")
    }

    async fn postgres_connection(&self) -> PgConnection {
        PgConnection::connect(&self.url()).await.expect("the server answers")
    }
}
