//! A database for the directory, of either kind, with the application's tables beside Doorward's.

use doorward::config::rebind::TableName;
use sqlx::postgres::PgRow;
use sqlx::sqlite::{SqliteConnectOptions, SqliteRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqliteConnection, TypeInfo, ValueRef};

use super::PATIENCE;
use super::postgres::Postgres;
use super::temp::TempDir;

/// A database of its own, empty.
pub enum Database {
    /// A file.
    Sqlite(TempDir),
    /// A database of the shared server.
    Postgres(Postgres),
}

/// A connection that keeps what it locks until it is dropped or told otherwise.
pub enum Session {
    /// To the file.
    Sqlite(SqliteConnection),
    /// To the server.
    Postgres(PgConnection),
}

impl Database {
    /// Makes one of each kind.
    pub async fn both() -> [Self; 2] {
        [Self::sqlite(), Self::postgres().await]
    }

    /// Makes a file.
    pub fn sqlite() -> Self {
        Self::Sqlite(TempDir::new("database"))
    }

    /// Makes a database of the shared server.
    pub async fn postgres() -> Self {
        Self::Postgres(Postgres::start().await)
    }

    /// Returns what belongs into `directory.url`.
    pub fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite://{}", directory.join("directory.db").display()),
            Self::Postgres(postgres) => postgres.url(),
        }
    }

    /// Returns whether it is PostgreSQL.
    pub fn is_postgres(&self) -> bool {
        matches!(self, Self::Postgres(_))
    }

    /// Returns what a table of the application is called: `app.name`, or `name` where there are no schemas.
    pub fn table(&self, name: &str) -> String {
        let schema = self.is_postgres().then(|| "app".to_owned());
        TableName { schema, name: name.to_owned() }.to_string()
    }

    /// Makes the application's tables; `app.` stands for their schema.
    pub async fn create(&self, tables: &str) {
        if self.is_postgres() {
            self.sql("create schema if not exists app").await;
        }
        self.sql(&self.spelt(tables)).await;
    }

    /// Runs statements in which `app.` stands for the application's schema; returns the last rows, a
    /// line a row, `|` between columns.
    pub async fn app(&self, sql: &str) -> String {
        self.sql(&self.spelt(sql)).await
    }

    /// Runs statements; returns the rows, a line a row, `|` between columns.
    pub async fn sql(&self, sql: &str) -> String {
        // Not through psql: waiting for a process would stop whatever else the test's thread serves.
        let mut session = self.session().await;
        session.run(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Opens a connection.
    pub async fn session(&self) -> Session {
        match self {
            Self::Sqlite(directory) => Session::file(&directory.join("directory.db")).await,
            Self::Postgres(postgres) => {
                let connection = PgConnection::connect(&postgres.url()).await;
                Session::Postgres(connection.expect("PostgreSQL accepts us"))
            }
        }
    }

    fn spelt(&self, sql: &str) -> String {
        if self.is_postgres() { sql.to_owned() } else { sql.replace("app.", "") }
    }
}

impl Session {
    /// Opens a connection to a `SQLite` file.
    pub async fn file(path: &std::path::Path) -> Self {
        let options = SqliteConnectOptions::new().filename(path).create_if_missing(true).busy_timeout(PATIENCE);
        Self::Sqlite(options.connect().await.expect("the file can be opened"))
    }

    /// Runs a statement; returns the rows as [`Database::sql`] does, or what is wrong.
    pub async fn run(&mut self, sql: &str) -> Result<String, sqlx::Error> {
        let sql = AssertSqlSafe(sql.to_owned());
        Ok(match self {
            Self::Sqlite(connection) => {
                let rows = sqlx::raw_sql(sql).fetch_all(connection).await?;
                rows.iter().map(line).collect::<Vec<_>>().join("\n")
            }
            Self::Postgres(connection) => {
                let rows = sqlx::raw_sql(sql).fetch_all(connection).await?;
                rows.iter().map(server_line).collect::<Vec<_>>().join("\n")
            }
        })
    }
}

// The simple protocol answers in text, whatever the type.
fn server_line(row: &PgRow) -> String {
    let cell = |index| {
        let value = row.try_get_raw(index).expect("the row has this column");
        if value.is_null() { String::new() } else { value.as_str().expect("it is text").to_owned() }
    };
    (0..row.len()).map(cell).collect::<Vec<_>>().join("|")
}

fn line(row: &SqliteRow) -> String {
    let cell = |index| {
        let value = row.try_get_raw(index).expect("the row has this column");
        match value.type_info().name() {
            _ if value.is_null() => String::new(),
            "INTEGER" => row.get::<i64, _>(index).to_string(),
            _ => row.get::<String, _>(index),
        }
    };
    (0..row.len()).map(cell).collect::<Vec<_>>().join("|")
}
