//! `GET /auth/bootstrap` through the proxy port: what it composes, asks for, refuses and hides.
//!
//! What the contract fixes is asserted to the byte; what the application is told is asserted at a
//! recording upstream; what concerns the directory is asked of `SQLite` and of PostgreSQL.

mod answers;
mod application;
mod creation;
mod failures;
mod leaks;
mod sources;

use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::Response;
use crate::support::doorward::{Builder, Doorward};
use crate::support::postgres::Postgres;

/// Sources that do not decide on the speed of the machine that runs the tests.
const PATIENT: &str =
    "bootstrap: { profile: { timeout: 20s }, subscription: { timeout: 20s }, secrets: { timeout: 20s } }";

/// The directory's database of a test: what lies in it can be reached beside Doorward.
enum Database {
    Sqlite,
    Postgres(Postgres),
}

impl Database {
    async fn both() -> [Self; 2] {
        [Self::Sqlite, Self::Postgres(Postgres::start().await)]
    }

    fn of(&self, builder: Builder) -> Builder {
        match self {
            Self::Sqlite => builder,
            Self::Postgres(postgres) => builder.database(&postgres.url()),
        }
    }

    /// Runs statements; returns the first column of the rows of the last, a line a row.
    async fn run(&self, doorward: &Doorward, sql: &str) -> String {
        match self {
            Self::Sqlite => sqlite(&doorward.directory().join("directory.db"), sql).await,
            Self::Postgres(postgres) => postgres.psql(sql),
        }
    }
}

async fn sqlite(file: &Path, sql: &str) -> String {
    use sqlx::{Connection, Row};
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(file).busy_timeout(crate::support::PATIENCE);
    let mut connection = sqlx::SqliteConnection::connect_with(&options).await.expect("the file is there");
    let rows = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).fetch_all(&mut connection).await;
    let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
    let text = |row: &sqlx::sqlite::SqliteRow| {
        row.try_get::<String, _>(0).or_else(|_| row.try_get::<i64, _>(0).map(|number| number.to_string()))
    };
    rows.iter().map(text).collect::<Result<Vec<_>, _>>().expect("text or a number").join("\n")
}

/// Asks for the bearer of `token`.
async fn ask(doorward: &Doorward, token: &str) -> Response {
    doorward.client().get("/auth/bootstrap").bearer(token).send().await
}

/// Returns an answer's body; fails the test unless it is a 200 with nothing missing.
#[track_caller]
fn whole(response: &Response) -> Value {
    assert_eq!((response.status, response.header("x-bootstrap-degraded")), (200, None), "{}", response.text());
    response.json()
}

/// Returns a response with a JSON body, as the recording upstream writes it.
fn json_answer(body: &Value) -> String {
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// The answer when nothing is configured and nothing is known.
fn defaults() -> Value {
    json!({
        "profile": {
            "name": null, "email": null, "roles": [], "created_at": null,
            "plan": "free", "credits_used": 0, "credits_total": 20, "project_count": 0,
            "usage": { "tokens_in": 0, "tokens_out": 0, "api_calls": 0, "research_count": 0 },
            "agent_config": {},
        },
        "subscription": { "plan": "free", "status": "active", "credits_used": 0, "credits_total": 20 },
        "secrets": {
            "github_pat": null, "anthropic_api_key": null, "openai_api_key": null,
            "has_github_pat": false, "has_anthropic_key": false, "has_openai_key": false,
        },
    })
}
