//! Users: what a provider says of them, where they signed in, and who may not any more.
//!
//! What ends never begins again: a deleted user stays deleted, a name from an older event does not
//! replace a newer one. Whoever ends logins writes here first and then ends the sessions of every
//! tenant in [`Directory::list_tenants`]; a sign-in writes its tenant first and then looks, so that
//! of two at the same time one sees the other.

use std::sync::Arc;

use super::sql::{Result, Row, Value};
use super::{Directory, DirectoryError};
use crate::model::{Identity, PrincipalId, TenantId};
use crate::telemetry::with_causes;
use crate::time::Timestamp;

/// Whether a login may become a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It may, as long as these marks do not move.
    Good(Marks),
    /// The user was deleted.
    UserDeleted,
    /// The login has ended, or is from before all of the user's logins ended.
    LoginEnded,
}

/// Moves whenever sessions of a user end as a whole: everywhere, or in one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marks {
    user: i64,
    tenant: i64,
}

/// What a provider says of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// The name to show.
    pub name: Option<String>,
    /// The address to write to.
    pub email: Option<String>,
    /// When the provider last changed any of it, by its own clock.
    pub changed_at: Timestamp,
}

// One row, whatever is known: deleted, mark of the user, mark and roles in the tenant, end of the login.
const STANDING: &str = "select \
    (select deleted_at from doorward_users where id = $1), \
    (select not_before from doorward_users where id = $1), \
    (select not_before from doorward_user_tenants where user_id = $1 and tenant = $2), \
    (select roles from doorward_user_tenants where user_id = $1 and tenant = $2), \
    (select until from doorward_ended_logins where provider_session = $3)";

impl Directory {
    /// Notes that a user signs in to `tenant`; returns whether that may be.
    ///
    /// From then on whoever ends the user's sessions looks for them in that tenant too.
    pub async fn sign_in(&self, identity: &Identity, tenant: &TenantId, now: Timestamp) -> Result<Standing> {
        let roles = crate::model::role::join(&identity.roles);
        let row = self.standing_row(identity, tenant).await?;
        // Most users come back: they need no write.
        if row.maybe_int(1)?.is_some() && row.maybe_text(3)?.as_deref() == Some(&roles) {
            return standing(&row, identity, now);
        }
        let user = identity.subject.as_str();
        self.ensure_user(user, now).await?;
        let seen = "insert into doorward_user_tenants (user_id, tenant, roles, seen_at) values ($1, $2, $3, $4) \
                    on conflict (user_id, tenant) do update set roles = excluded.roles, seen_at = excluded.seen_at";
        self.pool.execute(seen, &[user.into(), tenant.as_str().into(), roles.as_str().into(), now.into()]).await?;
        self.find_standing(identity, tenant, now).await
    }

    /// As [`sign_in`](Self::sign_in), without a result and without anybody waiting for it.
    ///
    /// It is not done when the database is away, or when very many sign in at once.
    pub fn note_sign_in(self: &Arc<Self>, identity: Identity, tenant: TenantId, now: Timestamp) {
        let Ok(room) = Arc::clone(&self.notes).try_acquire_owned() else { return };
        let directory = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = directory.sign_in(&identity, &tenant, now).await {
                tracing::debug!(error = %with_causes(&error), "A sign-in was not noted");
            }
            drop(room);
        });
    }

    /// Returns whether a login may become, or remain, a session.
    pub async fn find_standing(&self, identity: &Identity, tenant: &TenantId, now: Timestamp) -> Result<Standing> {
        standing(&self.standing_row(identity, tenant).await?, identity, now)
    }

    /// Deletes a user for good, and what was known of them; also one who was never seen.
    pub async fn delete_user(&self, user: &PrincipalId, now: Timestamp) -> Result<()> {
        let delete = "insert into doorward_users (id, created_at, updated_at, deleted_at, not_before) \
                      values ($1, $2, 0, $2, $2) on conflict (id) do update set name = null, email = null, \
                      deleted_at = coalesce(doorward_users.deleted_at, excluded.deleted_at)";
        self.pool.execute(delete, &[user.as_str().into(), now.into()]).await?;
        Ok(())
    }

    /// Refuses from now on every login of a user that is from before `now`.
    pub async fn end_logins(&self, user: &PrincipalId, now: Timestamp) -> Result<()> {
        self.ensure_user(user.as_str(), now).await?;
        // It moves even if clocks disagree: that is what a sign-in under way notices.
        let end = "update doorward_users set not_before = case when not_before < $2 then $2 else not_before + 1 end \
                   where id = $1";
        self.pool.execute(end, &[user.as_str().into(), now.into()]).await?;
        Ok(())
    }

    /// As [`end_logins`](Self::end_logins), in one tenant.
    pub async fn end_membership(&self, user: &PrincipalId, tenant: &TenantId, now: Timestamp) -> Result<()> {
        let end = "insert into doorward_user_tenants (user_id, tenant, roles, seen_at, not_before) \
                   values ($1, $2, '', $3, $3) on conflict (user_id, tenant) do update set roles = '', \
                   not_before = case when doorward_user_tenants.not_before < excluded.not_before \
                   then excluded.not_before else doorward_user_tenants.not_before + 1 end";
        self.pool.execute(end, &[user.as_str().into(), tenant.as_str().into(), now.into()]).await?;
        Ok(())
    }

    /// Refuses a provider's session until then.
    pub async fn end_login(&self, provider_session: &str, until: Timestamp, now: Timestamp) -> Result<()> {
        self.pool.execute("delete from doorward_ended_logins where until <= $1", &[now.into()]).await?;
        let end = "insert into doorward_ended_logins (provider_session, until) values ($1, $2) \
                   on conflict (provider_session) do update set until = excluded.until \
                   where doorward_ended_logins.until < excluded.until";
        self.pool.execute(end, &[provider_session.into(), until.into()]).await?;
        Ok(())
    }

    /// Keeps what a provider says of a user, unless something newer is known or the user is deleted.
    ///
    /// Returns whether it was kept.
    pub async fn refresh_user(&self, user: &PrincipalId, person: &Person, now: Timestamp) -> Result<bool> {
        let refresh = "insert into doorward_users (id, name, email, created_at, updated_at) \
                       values ($1, $2, $3, $4, $5) on conflict (id) do update \
                       set name = excluded.name, email = excluded.email, updated_at = excluded.updated_at \
                       where doorward_users.deleted_at is null and doorward_users.updated_at <= excluded.updated_at";
        let values: [Value<'_>; 5] = [
            user.as_str().into(),
            person.name.as_deref().into(),
            person.email.as_deref().into(),
            now.into(),
            person.changed_at.into(),
        ];
        Ok(self.pool.execute(refresh, &values).await? > 0)
    }

    /// Returns where a user has signed in.
    pub async fn list_tenants(&self, user: &PrincipalId) -> Result<Vec<TenantId>> {
        let list = "select tenant from doorward_user_tenants where user_id = $1 order by tenant";
        let rows = self.pool.rows(list, &[user.as_str().into()]).await?;
        let tenant = |row: &Row| {
            row.text(0)?.parse().map_err(|_| DirectoryError::Inconsistent("a tenant that cannot be a header's value"))
        };
        rows.iter().map(tenant).collect()
    }

    async fn ensure_user(&self, user: &str, now: Timestamp) -> Result<()> {
        let ensure = "insert into doorward_users (id, created_at, updated_at) values ($1, $2, 0) \
                      on conflict (id) do nothing";
        self.pool.execute(ensure, &[user.into(), now.into()]).await?;
        Ok(())
    }

    async fn standing_row(&self, identity: &Identity, tenant: &TenantId) -> Result<Row> {
        let login = identity.provider_session.as_deref();
        let values: [Value<'_>; 3] = [identity.subject.as_str().into(), tenant.as_str().into(), login.into()];
        let mut rows = self.pool.rows(STANDING, &values).await?;
        rows.pop().ok_or(DirectoryError::Inconsistent("a query without a source returned no row"))
    }
}

fn standing(row: &Row, identity: &Identity, now: Timestamp) -> Result<Standing> {
    let marks = Marks { user: row.maybe_int(1)?.unwrap_or(0), tenant: row.maybe_int(2)?.unwrap_or(0) };
    let since = i64::try_from(identity.authenticated_at.0).unwrap_or(i64::MAX);
    let login_until = row.maybe_int(4)?.and_then(|until| u64::try_from(until).ok()).map(Timestamp);
    Ok(if row.maybe_int(0)?.is_some() {
        Standing::UserDeleted
    } else if login_until.is_some_and(|until| now < until) || since <= marks.user.max(marks.tenant) {
        Standing::LoginEnded
    } else {
        Standing::Good(marks)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::TestDirectory;
    use crate::model::PrincipalKind;

    const NOON: Timestamp = Timestamp(1_800_000_000_000);

    async fn directory(place: &TestDirectory) -> Directory {
        let url = format!("sqlite://{}", place.path().join("directory.db").display());
        let environment = [("DOORWARD__DIRECTORY__URL".to_owned(), url)].into();
        let directory = Directory::open(&Config::load(&[], &environment).unwrap().config.directory).unwrap();
        directory.migrate().await.unwrap();
        directory
    }

    fn login(authenticated_at: u64) -> Identity {
        Identity {
            issuer: "https://clerk.example.com".to_owned(),
            kind: PrincipalKind::User,
            subject: "user_alice".parse().unwrap(),
            tenant: None,
            roles: vec!["org:admin".parse().unwrap(), "org:owner".parse().unwrap()],
            provider_session: Some("sess_1".to_owned()),
            actor: None,
            authenticated_at: Timestamp(NOON.0 + authenticated_at),
            proof_id: None,
        }
    }

    fn tenant(name: &str) -> TenantId {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_sign_in_notices_what_ended_meanwhile_even_by_a_clock_that_is_behind() {
        let place = TestDirectory::new();
        let directory = directory(&place).await;
        // Ten seconds ahead of whoever ends it.
        let (login, here) = (login(10_000), tenant("default"));
        let before = directory.sign_in(&login, &here, NOON).await.unwrap();
        assert!(matches!(before, Standing::Good(_)), "{before:?}");
        assert_eq!(directory.find_standing(&login, &here, NOON).await.unwrap(), before);

        directory.end_logins(&login.subject, NOON).await.unwrap();
        let after = directory.find_standing(&login, &here, NOON).await.unwrap();
        assert!(matches!(after, Standing::Good(_)) && after != before, "{after:?}");
        directory.end_logins(&login.subject, NOON).await.unwrap();
        let again = directory.find_standing(&login, &here, NOON).await.unwrap();
        assert!(again != after && again != before, "at the same moment: {again:?}");

        directory.end_membership(&login.subject, &tenant("other"), NOON).await.unwrap();
        assert_eq!(directory.find_standing(&login, &here, NOON).await.unwrap(), again, "another tenant");
        directory.end_membership(&login.subject, &here, NOON).await.unwrap();
        let left = directory.find_standing(&login, &here, NOON).await.unwrap();
        assert!(matches!(left, Standing::Good(_)) && left != again, "{left:?}");
    }

    #[tokio::test]
    async fn logins_from_before_are_refused_and_later_ones_are_not() {
        let place = TestDirectory::new();
        let directory = directory(&place).await;
        let (here, there, user) = (tenant("default"), tenant("org_1"), login(0).subject);
        let standing = async |at, tenant: &TenantId| directory.find_standing(&login(at), tenant, NOON).await.unwrap();
        directory.end_logins(&user, Timestamp(NOON.0 + 5)).await.unwrap();
        assert_eq!(standing(5, &here).await, Standing::LoginEnded);
        assert!(matches!(standing(6, &here).await, Standing::Good(_)));
        directory.end_membership(&user, &there, Timestamp(NOON.0 + 8)).await.unwrap();
        assert_eq!(standing(8, &there).await, Standing::LoginEnded);
        assert!(matches!(standing(9, &there).await, Standing::Good(_)));
        assert!(matches!(standing(8, &here).await, Standing::Good(_)));

        directory.end_login("sess_1", Timestamp(NOON.0 + 50), NOON).await.unwrap();
        directory.end_login("sess_1", Timestamp(NOON.0 + 40), NOON).await.unwrap();
        let at = async |now| directory.find_standing(&login(100), &here, Timestamp(NOON.0 + now)).await.unwrap();
        assert_eq!(at(49).await, Standing::LoginEnded, "the later end stands");
        assert!(matches!(at(50).await, Standing::Good(_)));
        directory.delete_user(&user, NOON).await.unwrap();
        assert_eq!(at(1_000).await, Standing::UserDeleted);
        assert!(!directory.refresh_user(&user, &Person::default(), NOON).await.unwrap());
    }

    #[tokio::test]
    async fn a_sign_in_is_noted_with_its_tenant_and_roles() {
        let place = TestDirectory::new();
        let directory = directory(&place).await;
        let user = login(0).subject;
        assert_eq!(directory.list_tenants(&user).await.unwrap(), []);
        for name in ["org_2", "org_1", "org_2"] {
            directory.sign_in(&login(0), &tenant(name), NOON).await.unwrap();
        }
        assert_eq!(directory.list_tenants(&user).await.unwrap(), [tenant("org_1"), tenant("org_2")]);
        let roles = async || {
            let sql = "select roles from doorward_user_tenants where tenant = 'org_1'";
            directory.pool.rows(sql, &[]).await.unwrap()[0].text(0).unwrap()
        };
        assert_eq!(roles().await, "org:admin,org:owner");
        let demoted = Identity { roles: Vec::new(), ..login(0) };
        directory.sign_in(&demoted, &tenant("org_1"), NOON).await.unwrap();
        assert_eq!(roles().await, "");
    }

    #[tokio::test]
    async fn a_receipt_is_found_until_its_time_is_up() {
        let place = TestDirectory::new();
        let directory = directory(&place).await;
        let until = Timestamp(NOON.0 + 10);
        directory.keep_receipt("clerk", "msg_1", None, until, NOON).await.unwrap();
        let found = async |scope, now| directory.find_receipt(scope, "msg_1", Timestamp(NOON.0 + now)).await.unwrap();
        assert!(found("clerk", 9).await.is_some());
        assert!(found("other", 9).await.is_none());
        assert!(found("clerk", 10).await.is_none());
    }
}
