//! Which user a provider means by a subject.
//!
//! A row of `doorward_identities` never changes hands: the id that a subject was given once is its
//! for good, also when the user is deleted.

use uuid::Uuid;

use super::sql::{Result, Row};
use super::{Directory, DirectoryError};
use crate::model::{PrincipalId, ProviderId, Subject};
use crate::time::Timestamp;

const FIND: &str = "select user_id from doorward_identities where provider = $1 and subject = $2";

/// The user behind a provider's subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalUser {
    /// The id that the directory gave the user: a UUID of version 7.
    pub id: PrincipalId,
    /// Whether the directory made the user just now.
    pub created: bool,
}

impl Directory {
    /// Returns the user that `provider` calls `subject`; `None` when the directory has no such user.
    pub async fn find_user_of(&self, provider: &ProviderId, subject: &Subject) -> Result<Option<PrincipalId>> {
        let rows = self.pool.rows(FIND, &[provider.as_str().into(), subject.as_str().into()]).await?;
        rows.first().map(user_id).transpose()
    }

    /// As [`find_user_of`](Self::find_user_of); makes a user with an id of its own when there is none.
    ///
    /// Of several calls at once for a new subject, on any replica, one makes the user.
    pub async fn find_or_create_user(
        &self,
        provider: &ProviderId,
        subject: &Subject,
        now: Timestamp,
    ) -> Result<LocalUser> {
        if let Some(id) = self.find_user_of(provider, subject).await? {
            return Ok(LocalUser { id, created: false });
        }
        let uuid = Uuid::now_v7().to_string();
        let mut tx = self.pool.begin().await?;
        let identity = "insert into doorward_identities (provider, subject, user_id, created_at) \
                        values ($1, $2, $3, $4) on conflict (provider, subject) do nothing";
        let [named, called] = [provider.as_str().into(), subject.as_str().into()];
        if tx.execute(identity, &[named, called, uuid.as_str().into(), now.into()]).await? == 1 {
            let user = "insert into doorward_users (id, created_at, updated_at) values ($1, $2, 0)";
            tx.execute(user, &[uuid.as_str().into(), now.into()]).await?;
            tx.commit().await?;
            return Ok(LocalUser { id: parsed(&uuid)?, created: true });
        }
        // Another sign-in made the user since the first look.
        let rows = tx.rows(FIND, &[named, called]).await?;
        let row = rows.first().ok_or(DirectoryError::Inconsistent("an identity that is there and cannot be read"))?;
        Ok(LocalUser { id: user_id(row)?, created: false })
    }
}

fn user_id(row: &Row) -> Result<PrincipalId> {
    parsed(&row.text(0)?)
}

fn parsed(id: &str) -> Result<PrincipalId> {
    id.parse().map_err(|_| DirectoryError::Inconsistent("a user whose id cannot be a header's value"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::TestDirectory;
    use crate::directory::embedded;

    const NOON: Timestamp = Timestamp(1_800_000_000_000);

    fn provider(name: &str) -> ProviderId {
        name.parse().unwrap()
    }

    fn subject(name: &str) -> Subject {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_subject_is_one_user_for_good_and_another_one_at_another_provider() {
        let place = TestDirectory::new();
        let directory = embedded(&place).await;
        let (partner, other, alice) = (provider("partner"), provider("other"), subject("user_alice"));
        assert_eq!(directory.find_user_of(&partner, &alice).await.unwrap(), None);
        let first = directory.find_or_create_user(&partner, &alice, NOON).await.unwrap();
        assert!(first.created);
        assert_eq!(Uuid::parse_str(first.id.as_str()).unwrap().get_version_num(), 7);
        assert_eq!(directory.find_user(&first.id).await.unwrap().unwrap().created_at, NOON);

        let again = directory.find_or_create_user(&partner, &alice, NOON).await.unwrap();
        assert_eq!(again, LocalUser { id: first.id.clone(), created: false });
        let elsewhere = directory.find_or_create_user(&other, &alice, NOON).await.unwrap();
        let namesake = directory.find_or_create_user(&partner, &subject("user_Alice"), NOON).await.unwrap();
        assert!(elsewhere.created && namesake.created);
        assert!(elsewhere.id != first.id && namesake.id != first.id && namesake.id != elsewhere.id);

        directory.delete_user(&first.id, NOON).await.unwrap();
        assert_eq!(directory.find_user_of(&partner, &alice).await.unwrap(), Some(first.id), "no second life");
    }

    #[tokio::test]
    async fn of_several_first_sign_ins_at_once_one_makes_the_user() {
        let place = TestDirectory::new();
        let directory = embedded(&place).await;
        let (partner, alice) = (provider("partner"), subject("user_alice"));
        let calls = (0..16).map(|_| directory.find_or_create_user(&partner, &alice, NOON));
        let made: Vec<LocalUser> =
            futures_util::future::join_all(calls).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(made.iter().filter(|user| user.created).count(), 1);
        assert!(made.iter().all(|user| user.id == made[0].id), "{made:?}");
        let users = directory.pool.rows("select count(*) from doorward_users", &[]).await.unwrap();
        assert_eq!(users[0].int(0).unwrap(), 1);
    }
}
