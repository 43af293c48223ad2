//! Users: what is known of them, and that they are gone.
//!
//! What a provider says of a user is replaced by newer words only, and a deleted user stays
//! deleted. Where users sign in, and until when, is in `logins`.

use super::sql::{Result, Value};
use super::{Directory, DirectoryError};
use crate::model::PrincipalId;
use crate::time::Timestamp;

/// A user's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserRecord {
    /// What the user is called, if a provider said.
    pub name: Option<String>,
    /// Where the user gets mail, if a provider said.
    pub email: Option<String>,
    /// When the directory learned of the user.
    pub created_at: Timestamp,
}

/// What a provider says of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserProfile {
    /// The name to show.
    pub name: Option<String>,
    /// The address to write to.
    pub email: Option<String>,
    /// When the provider last changed any of it, by its own clock.
    pub changed_at: Timestamp,
}

impl Directory {
    /// Returns a user's record; `None` for a user who is unknown or was deleted.
    pub async fn find_user(&self, user: &PrincipalId) -> Result<Option<UserRecord>> {
        let sql = "select name, email, created_at from doorward_users where id = $1 and deleted_at is null";
        let rows = self.pool.rows(sql, &[user.as_str().into()]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let created_at = u64::try_from(row.int(2)?);
        let created_at = created_at.map_err(|_| DirectoryError::Inconsistent("a user from before 1970"))?;
        Ok(Some(UserRecord { name: row.maybe_text(0)?, email: row.maybe_text(1)?, created_at: Timestamp(created_at) }))
    }

    /// Keeps what a provider says of a user, unless something newer is known or the user is deleted.
    ///
    /// Returns whether it was kept.
    pub async fn refresh_user(&self, user: &PrincipalId, profile: &UserProfile, now: Timestamp) -> Result<bool> {
        let refresh = "insert into doorward_users (id, name, email, created_at, updated_at) \
                       values ($1, $2, $3, $4, $5) on conflict (id) do update \
                       set name = excluded.name, email = excluded.email, updated_at = excluded.updated_at \
                       where doorward_users.deleted_at is null and doorward_users.updated_at <= excluded.updated_at";
        let values: [Value<'_>; 5] = [
            user.as_str().into(),
            profile.name.as_deref().into(),
            profile.email.as_deref().into(),
            now.into(),
            profile.changed_at.into(),
        ];
        Ok(self.pool.execute(refresh, &values).await? > 0)
    }

    /// Deletes a user for good, and what was known of them; also one who never signed in.
    pub async fn delete_user(&self, user: &PrincipalId, now: Timestamp) -> Result<()> {
        let delete = "insert into doorward_users (id, created_at, updated_at, deleted_at, not_before) \
                      values ($1, $2, 0, $2, $2) on conflict (id) do update set name = null, email = null, \
                      deleted_at = coalesce(doorward_users.deleted_at, excluded.deleted_at)";
        self.pool.execute(delete, &[user.as_str().into(), now.into()]).await?;
        Ok(())
    }

    /// Makes sure that a user has a row; of a new one only the id is known.
    pub(super) async fn ensure_user(&self, user: &PrincipalId, now: Timestamp) -> Result<()> {
        let ensure = "insert into doorward_users (id, created_at, updated_at) values ($1, $2, 0) \
                      on conflict (id) do nothing";
        self.pool.execute(ensure, &[user.as_str().into(), now.into()]).await?;
        Ok(())
    }
}
