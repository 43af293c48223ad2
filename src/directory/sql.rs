//! The SQL that `SQLite` and PostgreSQL share, and nothing beyond it.
//!
//! Two types of value, text and 64-bit integers, and `$1` placeholders: every statement of the
//! directory is written once and means the same on both. Only this module names sqlx. Nothing here
//! waits longer than the deadline it was given.

use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgRow};
use sqlx::sqlite::{SqlitePool, SqliteRow};
use sqlx::{Connection as _, Postgres, Row as _, SqlSafeStr, Sqlite, Transaction, TypeInfo as _, ValueRef as _};
use tokio::time::timeout;

use super::DirectoryError;
use crate::time::Timestamp;

/// What the database's driver says.
pub(super) type EngineError = sqlx::Error;

/// What `?` gives within the directory.
pub(super) type Result<T> = std::result::Result<T, DirectoryError>;

/// Connections to the database.
#[derive(Clone)]
pub(super) struct Database {
    engine: Engine,
    deadline: Duration,
}

#[derive(Clone)]
enum Engine {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A transaction; dropped without [`commit`](Self::commit) it changes nothing.
pub(super) struct Tx {
    engine: TxEngine,
    deadline: Duration,
}

enum TxEngine {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

/// A parameter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value<'a> {
    /// Text, or null.
    Text(Option<&'a str>),
    /// An integer, or null.
    Int(Option<i64>),
}

/// One row of an answer; columns are counted from 0.
pub(super) enum SqlRow {
    Sqlite(SqliteRow),
    Postgres(PgRow),
}

macro_rules! bound {
    ($sql:expr, $values:expr) => {{
        let mut query = sqlx::query($sql);
        for value in $values {
            query = match *value {
                Value::Text(text) => query.bind(text.map(str::to_owned)),
                Value::Int(number) => query.bind(number),
            };
        }
        query
    }};
}

impl Database {
    pub(super) fn sqlite(pool: SqlitePool, deadline: Duration) -> Self {
        Self { engine: Engine::Sqlite(pool), deadline }
    }

    pub(super) fn postgres(pool: PgPool, deadline: Duration) -> Self {
        Self { engine: Engine::Postgres(pool), deadline }
    }

    /// Begins a transaction that may write, whose every statement has `deadline` to finish.
    pub(super) async fn begin_within(&self, deadline: Duration) -> Result<Tx> {
        let engine = match &self.engine {
            // A lock taken at the first write instead could not be waited for.
            Engine::Sqlite(pool) => TxEngine::Sqlite(within(deadline, pool.begin_with("BEGIN IMMEDIATE")).await?),
            Engine::Postgres(pool) => TxEngine::Postgres(within(deadline, pool.begin()).await?),
        };
        Ok(Tx { engine, deadline })
    }

    /// Begins a transaction that may write.
    pub(super) async fn begin(&self) -> Result<Tx> {
        self.begin_within(self.deadline).await
    }

    /// Runs a statement on its own; returns how many rows it changed.
    pub(super) async fn execute(&self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<u64> {
        match &self.engine {
            Engine::Sqlite(pool) => {
                within(self.deadline, bound!(sql, values).execute(pool)).await.map(|done| done.rows_affected())
            }
            Engine::Postgres(pool) => {
                within(self.deadline, bound!(sql, values).execute(pool)).await.map(|done| done.rows_affected())
            }
        }
    }

    /// Runs a query on its own.
    pub(super) async fn rows(&self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<Vec<SqlRow>> {
        match &self.engine {
            Engine::Sqlite(pool) => {
                let rows = within(self.deadline, bound!(sql, values).fetch_all(pool)).await?;
                Ok(rows.into_iter().map(SqlRow::Sqlite).collect())
            }
            Engine::Postgres(pool) => {
                let rows = within(self.deadline, bound!(sql, values).fetch_all(pool)).await?;
                Ok(rows.into_iter().map(SqlRow::Postgres).collect())
            }
        }
    }

    pub(super) async fn migrate(&self, migrator: &Migrator) -> std::result::Result<(), MigrateError> {
        match &self.engine {
            Engine::Sqlite(pool) => migrator.run(pool).await,
            Engine::Postgres(pool) => migrator.run(pool).await,
        }
    }

    /// Makes further connections to PostgreSQL with `options`.
    pub(super) fn use_options(&self, options: PgConnectOptions) {
        if let Engine::Postgres(pool) = &self.engine {
            pool.set_connect_options(options);
        }
    }

    /// Makes a connection as the next one would be made, and closes it.
    pub(super) async fn try_options(&self) -> Result<()> {
        let Engine::Postgres(pool) = &self.engine else { return Ok(()) };
        let options = pool.connect_options();
        within(self.deadline, async { PgConnection::connect_with(&options).await?.close().await }).await
    }

    /// Returns whether the database is PostgreSQL, for what the two do not share.
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self.engine, Engine::Postgres(_))
    }
}

impl Tx {
    /// Runs a statement; returns how many rows it changed.
    pub(super) async fn execute(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<u64> {
        match &mut self.engine {
            TxEngine::Sqlite(tx) => {
                within(self.deadline, bound!(sql, values).execute(&mut **tx)).await.map(|done| done.rows_affected())
            }
            TxEngine::Postgres(tx) => {
                within(self.deadline, bound!(sql, values).execute(&mut **tx)).await.map(|done| done.rows_affected())
            }
        }
    }

    /// Runs a query.
    pub(super) async fn rows(&mut self, sql: impl SqlSafeStr, values: &[Value<'_>]) -> Result<Vec<SqlRow>> {
        match &mut self.engine {
            TxEngine::Sqlite(tx) => {
                let rows = within(self.deadline, bound!(sql, values).fetch_all(&mut **tx)).await?;
                Ok(rows.into_iter().map(SqlRow::Sqlite).collect())
            }
            TxEngine::Postgres(tx) => {
                let rows = within(self.deadline, bound!(sql, values).fetch_all(&mut **tx)).await?;
                Ok(rows.into_iter().map(SqlRow::Postgres).collect())
            }
        }
    }

    /// Gives every further statement `deadline` to finish, also after we stopped waiting for it.
    pub(super) async fn allow(&mut self, deadline: Duration) -> Result<()> {
        self.deadline = deadline;
        if self.is_postgres() {
            // A caller that gives up must not leave a statement behind that holds locks.
            let limit = format!("{}ms", deadline.as_millis().max(1));
            self.rows("select set_config('statement_timeout', $1, true)", &[limit.as_str().into()]).await?;
        }
        Ok(())
    }

    /// Commits everything in the transaction, or nothing of it. After an error it is not known which.
    pub(super) async fn commit(self) -> Result<()> {
        match self.engine {
            TxEngine::Sqlite(tx) => within(self.deadline, tx.commit()).await,
            TxEngine::Postgres(tx) => within(self.deadline, tx.commit()).await,
        }
    }

    /// Returns whether the database is PostgreSQL, for what the two do not share.
    pub(super) fn is_postgres(&self) -> bool {
        matches!(self.engine, TxEngine::Postgres(_))
    }
}

impl SqlRow {
    /// Returns a column that is never null.
    pub(super) fn text(&self, column: usize) -> Result<String> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Returns a column that may be null.
    pub(super) fn maybe_text(&self, column: usize) -> Result<Option<String>> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Returns a column with a JSON document as text, whether the column is `text`, `json` or `jsonb`.
    pub(super) fn maybe_json(&self, column: usize) -> Result<Option<String>> {
        match self {
            Self::Sqlite(row) => Ok(row.try_get(column)?),
            Self::Postgres(row) => {
                let value = row.try_get_raw(column)?;
                match value.type_info().name() {
                    // On the wire it is the text behind one byte of version.
                    "JSONB" if !value.is_null() => {
                        let text = value.as_str().map_err(EngineError::Decode)?;
                        Ok(Some(text.trim_start_matches('\u{1}').to_owned()))
                    }
                    "JSON" if !value.is_null() => Ok(Some(value.as_str().map_err(EngineError::Decode)?.to_owned())),
                    _ => Ok(row.try_get(column)?),
                }
            }
        }
    }

    /// Returns a column that is never null.
    pub(super) fn int(&self, column: usize) -> Result<i64> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }

    /// Returns a column that may be null.
    pub(super) fn maybe_int(&self, column: usize) -> Result<Option<i64>> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column)?,
            Self::Postgres(row) => row.try_get(column)?,
        })
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(Some(text))
    }
}

impl<'a> From<Option<&'a str>> for Value<'a> {
    fn from(text: Option<&'a str>) -> Self {
        Self::Text(text)
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Int(Some(number))
    }
}

// Milliseconds since 1970: the year 292 million has time.
impl From<Timestamp> for Value<'_> {
    fn from(time: Timestamp) -> Self {
        Self::Int(Some(i64::try_from(time.0).unwrap_or(i64::MAX)))
    }
}

impl From<Option<i64>> for Value<'_> {
    fn from(number: Option<i64>) -> Self {
        Self::Int(number)
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = sqlx::Result<T>>) -> Result<T> {
    match timeout(deadline, work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(DirectoryError::TimedOut(deadline)),
    }
}
