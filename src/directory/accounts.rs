//! What Doorward itself knows of a user.

use super::sql::Result;
use super::{Directory, DirectoryError};
use crate::model::PrincipalId;
use crate::time::Timestamp;

/// A user's own record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// What the user is called, if a provider said.
    pub name: Option<String>,
    /// Where the user gets mail, if a provider said.
    pub email: Option<String>,
    /// When the user was first heard of.
    pub created_at: Timestamp,
}

impl Directory {
    /// Returns a user's record; none of one that was never heard of, or was deleted.
    pub async fn find_account(&self, user: &PrincipalId) -> Result<Option<Account>> {
        let sql = "select name, email, created_at from doorward_users where id = $1 and deleted_at is null";
        let rows = self.pool.rows(sql, &[user.as_str().into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let created_at = u64::try_from(row.int(2)?);
        let created_at = created_at.map_err(|_| DirectoryError::Inconsistent("a user from before 1970"))?;
        Ok(Some(Account { name: row.maybe_text(0)?, email: row.maybe_text(1)?, created_at: Timestamp(created_at) }))
    }
}
