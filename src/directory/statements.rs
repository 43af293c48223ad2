//! Statements that the operator wrote, on the directory's database.
//!
//! They are run as they stand: the caller's own words are parameters only. What went wrong is told
//! without what the database says of values, because its messages quote them.

use sqlx::AssertSqlSafe;

use super::sql::{EngineError, Result, Value};
use super::{Directory, DirectoryError};
use crate::model::Principal;

impl Directory {
    /// Returns the first column of the first row, a JSON document; none when there is no row, or a null.
    ///
    /// `placeholders` is how many of `$1`, the user, and `$2`, the tenant, the statement names.
    pub async fn find_document(
        &self,
        statement: &str,
        placeholders: usize,
        whose: &Principal,
    ) -> Result<Option<String>> {
        let values = parameters(whose);
        let values = values.get(..placeholders.min(2)).unwrap_or_default();
        let rows = self.pool.rows(AssertSqlSafe(statement), values).await?;
        rows.first().map_or(Ok(None), |row| row.maybe_json(0))
    }

    /// Runs a statement that makes what [`find_document`](Self::find_document) did not find.
    pub async fn create_document(&self, statement: &str, placeholders: usize, whose: &Principal) -> Result<()> {
        let values = parameters(whose);
        let values = values.get(..placeholders.min(2)).unwrap_or_default();
        self.pool.execute(AssertSqlSafe(statement), values).await.map(drop)
    }
}

impl DirectoryError {
    /// Returns whether the database took too long, and not what it said.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::TimedOut(_) | Self::Unavailable(EngineError::PoolTimedOut))
    }

    /// Returns what went wrong without any value that the statement met: fit for a log.
    pub fn without_values(&self) -> String {
        let Self::Unavailable(error) = self else { return self.to_string() };
        match error.as_database_error().map(|error| (error.code().unwrap_or_default(), error.message())) {
            // Class 42 is about the statement itself: names, syntax, privileges.
            Some((code, message)) if code.starts_with("42") => format!("{self}: {message} ({code})"),
            // SQLite has numbers for classes, and quotes no values.
            Some((code, message)) if code.len() != 5 => format!("{self}: {message} ({code})"),
            Some((code, _)) => format!("{self}: SQLSTATE {code}"),
            None => self.to_string(),
        }
    }
}

fn parameters(whose: &Principal) -> [Value<'_>; 2] {
    [whose.id.as_str().into(), whose.tenant.as_str().into()]
}
