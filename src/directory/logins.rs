//! Logins: where users signed in, and which of their logins are over.
//!
//! What ends never begins again. An event that ends logins is written here first and then ends the
//! sessions of every tenant in [`Directory::list_tenants`]; a sign-in writes its tenant first and
//! then looks, so that of two at the same time one sees the other.

use std::sync::Arc;

use super::sql::{Result, SqlRow, Value};
use super::{Directory, DirectoryError};
use crate::model::{NewSession, PrincipalId, ProviderId, TenantId, role};
use crate::telemetry::with_causes;
use crate::time::Timestamp;

/// Whether a login may become a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LoginStatus {
    /// It may, as long as these epochs do not move.
    Active(RevocationEpochs),
    /// The user was deleted.
    UserDeleted,
    /// The login has ended, or is from before all of the user's logins ended.
    Ended,
}

/// The times before which a user's logins are refused. Each moves whenever all of the user's sessions end:
/// everywhere, or in one tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationEpochs {
    user: i64,
    tenant: i64,
}

// One row, also for an unknown user: deleted, epoch of the user, epoch and roles in the tenant, end of
// the login.
const LOGIN_STATUS: &str = "select \
    (select deleted_at from doorward_users where id = $1), \
    (select not_before from doorward_users where id = $1), \
    (select not_before from doorward_user_tenants where user_id = $1 and tenant = $2), \
    (select roles from doorward_user_tenants where user_id = $1 and tenant = $2), \
    (select until from doorward_ended_logins \
     where provider = $3 and provider_session = $4)";

impl Directory {
    /// Records that a user signs in, with the tenant and the roles; returns whether that may be.
    ///
    /// From then on an event that ends the user's sessions looks for them in that tenant too.
    pub async fn record_sign_in(&self, login: &NewSession, now: Timestamp) -> Result<LoginStatus> {
        let (user, tenant, roles) = (&login.principal.id, &login.principal.tenant, role::join(&login.roles));
        let row = self.login_status_row(login).await?;
        // Most users come back: they need no write.
        if row.maybe_int(1)?.is_some() && row.maybe_text(3)?.as_deref() == Some(&roles) {
            return login_status(&row, login, now);
        }
        self.ensure_user(user, now).await?;
        let seen = "insert into doorward_user_tenants (user_id, tenant, roles, seen_at) values ($1, $2, $3, $4) \
                    on conflict (user_id, tenant) do update set roles = excluded.roles, seen_at = excluded.seen_at";
        let values = [user.as_str().into(), tenant.as_str().into(), roles.as_str().into(), now.into()];
        self.pool.execute(seen, &values).await?;
        self.find_login_status(login, now).await
    }

    /// As [`record_sign_in`](Self::record_sign_in), in the background and without a result.
    ///
    /// It is not done when the database is away, or when very many sign in at once.
    pub fn record_sign_in_later(self: &Arc<Self>, login: NewSession, now: Timestamp) {
        let Ok(room) = Arc::clone(&self.notes).try_acquire_owned() else { return };
        let directory = Arc::clone(self);
        tokio::spawn(async move {
            if let Err(error) = directory.record_sign_in(&login, now).await {
                tracing::debug!(error = %with_causes(&error), "A sign-in was not recorded");
            }
            drop(room);
        });
    }

    /// Returns whether a login may become, or remain, a session.
    pub async fn find_login_status(&self, login: &NewSession, now: Timestamp) -> Result<LoginStatus> {
        login_status(&self.login_status_row(login).await?, login, now)
    }

    /// Refuses from now on every login of a user that is from before `now`.
    pub async fn end_logins(&self, user: &PrincipalId, now: Timestamp) -> Result<()> {
        self.ensure_user(user, now).await?;
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

    /// Refuses a session of a provider's until then.
    pub async fn end_login(
        &self,
        provider: &ProviderId,
        provider_session: &str,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<()> {
        self.pool.execute("delete from doorward_ended_logins where until <= $1", &[now.into()]).await?;
        let end = "insert into doorward_ended_logins (provider, provider_session, until) values ($1, $2, $3) \
                   on conflict (provider, provider_session) do update set until = excluded.until \
                   where doorward_ended_logins.until < excluded.until";
        self.pool.execute(end, &[provider.as_str().into(), provider_session.into(), until.into()]).await?;
        Ok(())
    }

    /// Returns where a user has signed in.
    pub async fn list_tenants(&self, user: &PrincipalId) -> Result<Vec<TenantId>> {
        let list = "select tenant from doorward_user_tenants where user_id = $1 order by tenant";
        let rows = self.pool.rows(list, &[user.as_str().into()]).await?;
        let tenant = |row: &SqlRow| {
            row.text(0)?.parse().map_err(|_| DirectoryError::Inconsistent("a tenant that cannot be a header's value"))
        };
        rows.iter().map(tenant).collect()
    }

    async fn login_status_row(&self, login: &NewSession) -> Result<SqlRow> {
        let (principal, origin) = (&login.principal, &login.origin);
        let values: [Value<'_>; 4] = [
            principal.id.as_str().into(),
            principal.tenant.as_str().into(),
            origin.provider.as_str().into(),
            origin.provider_session.as_deref().into(),
        ];
        let mut rows = self.pool.rows(LOGIN_STATUS, &values).await?;
        rows.pop().ok_or(DirectoryError::Inconsistent("a query without a source returned no row"))
    }
}

fn login_status(row: &SqlRow, login: &NewSession, now: Timestamp) -> Result<LoginStatus> {
    let epochs = RevocationEpochs { user: row.maybe_int(1)?.unwrap_or(0), tenant: row.maybe_int(2)?.unwrap_or(0) };
    let since = i64::try_from(login.authenticated_at.0).unwrap_or(i64::MAX);
    let login_until = row.maybe_int(4)?.and_then(|until| u64::try_from(until).ok()).map(Timestamp);
    Ok(if row.maybe_int(0)?.is_some() {
        LoginStatus::UserDeleted
    } else if login_until.is_some_and(|until| now < until) || since <= epochs.user.max(epochs.tenant) {
        LoginStatus::Ended
    } else {
        LoginStatus::Active(epochs)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::TestDirectory;
    use crate::directory::{UserProfile, embedded};
    use crate::model::{Origin, Principal, PrincipalKind};

    const NOON: Timestamp = Timestamp(1_800_000_000_000);

    fn login(authenticated_at: u64, tenant: &str) -> NewSession {
        NewSession {
            principal: Principal {
                kind: PrincipalKind::User,
                id: "user_alice".parse().unwrap(),
                tenant: tenant.parse().unwrap(),
            },
            roles: vec!["org:admin".parse().unwrap(), "org:owner".parse().unwrap()],
            origin: Origin { provider: ProviderId::CLERK, provider_session: Some("sess_1".to_owned()) },
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
        let directory = embedded(&place).await;
        // Ten seconds ahead of the event that ends it.
        let login = login(10_000, "default");
        let user = &login.principal.id;
        let before = directory.record_sign_in(&login, NOON).await.unwrap();
        assert!(matches!(before, LoginStatus::Active(_)), "{before:?}");
        assert_eq!(directory.find_login_status(&login, NOON).await.unwrap(), before);

        directory.end_logins(user, NOON).await.unwrap();
        let after = directory.find_login_status(&login, NOON).await.unwrap();
        assert!(matches!(after, LoginStatus::Active(_)) && after != before, "{after:?}");
        directory.end_logins(user, NOON).await.unwrap();
        let again = directory.find_login_status(&login, NOON).await.unwrap();
        assert!(again != after && again != before, "at the same moment: {again:?}");

        directory.end_membership(user, &tenant("other"), NOON).await.unwrap();
        assert_eq!(directory.find_login_status(&login, NOON).await.unwrap(), again, "another tenant");
        directory.end_membership(user, &tenant("default"), NOON).await.unwrap();
        let left = directory.find_login_status(&login, NOON).await.unwrap();
        assert!(matches!(left, LoginStatus::Active(_)) && left != again, "{left:?}");
    }

    #[tokio::test]
    async fn logins_from_before_are_refused_and_later_ones_are_not() {
        let place = TestDirectory::new();
        let directory = embedded(&place).await;
        let (here, there) = ("default", "org_1");
        let user = login(0, here).principal.id;
        let status = async |at, tenant| directory.find_login_status(&login(at, tenant), NOON).await.unwrap();
        directory.end_logins(&user, Timestamp(NOON.0 + 5)).await.unwrap();
        assert_eq!(status(5, here).await, LoginStatus::Ended);
        assert!(matches!(status(6, here).await, LoginStatus::Active(_)));
        directory.end_membership(&user, &tenant(there), Timestamp(NOON.0 + 8)).await.unwrap();
        assert_eq!(status(8, there).await, LoginStatus::Ended);
        assert!(matches!(status(9, there).await, LoginStatus::Active(_)));
        assert!(matches!(status(8, here).await, LoginStatus::Active(_)));

        let end = async |until| {
            let until = Timestamp(NOON.0 + until);
            directory.end_login(&ProviderId::CLERK, "sess_1", until, NOON).await.unwrap();
        };
        end(50).await;
        end(40).await;
        let at = async |now| directory.find_login_status(&login(100, here), Timestamp(NOON.0 + now)).await.unwrap();
        assert_eq!(at(49).await, LoginStatus::Ended, "the later end stands");
        assert!(matches!(at(50).await, LoginStatus::Active(_)));
        let mut elsewhere = login(100, here);
        elsewhere.origin.provider = "partner".parse().unwrap();
        let elsewhere = directory.find_login_status(&elsewhere, NOON).await.unwrap();
        assert!(matches!(elsewhere, LoginStatus::Active(_)), "another provider's session of the same name");
        directory.delete_user(&user, NOON).await.unwrap();
        assert_eq!(at(1_000).await, LoginStatus::UserDeleted);
        assert!(!directory.refresh_user(&user, &UserProfile::default(), NOON).await.unwrap());
    }

    #[tokio::test]
    async fn a_sign_in_is_recorded_with_its_tenant_and_roles() {
        let place = TestDirectory::new();
        let directory = embedded(&place).await;
        let user = login(0, "org_1").principal.id;
        assert_eq!(directory.list_tenants(&user).await.unwrap(), []);
        for name in ["org_2", "org_1", "org_2"] {
            directory.record_sign_in(&login(0, name), NOON).await.unwrap();
        }
        assert_eq!(directory.list_tenants(&user).await.unwrap(), [tenant("org_1"), tenant("org_2")]);
        let roles = async || {
            let sql = "select roles from doorward_user_tenants where tenant = 'org_1'";
            directory.pool.rows(sql, &[]).await.unwrap()[0].text(0).unwrap()
        };
        assert_eq!(roles().await, "org:admin,org:owner");
        let demoted = NewSession { roles: Vec::new(), ..login(0, "org_1") };
        directory.record_sign_in(&demoted, NOON).await.unwrap();
        assert_eq!(roles().await, "");
    }

    #[tokio::test]
    async fn a_receipt_is_found_until_its_time_is_up() {
        let place = TestDirectory::new();
        let directory = embedded(&place).await;
        let until = Timestamp(NOON.0 + 10);
        directory.keep_receipt("clerk", "msg_1", None, until, NOON).await.unwrap();
        let found = async |scope, now| directory.find_receipt(scope, "msg_1", Timestamp(NOON.0 + now)).await.unwrap();
        assert!(found("clerk", 9).await.is_some());
        assert!(found("other", 9).await.is_none());
        assert!(found("clerk", 10).await.is_none());
    }
}
