//! What is done about an event. All of it may be done again, and in any order.
//!
//! The events are Clerk's: they are about users that Clerk vouched for at sign-in, and about no
//! other provider's user of the same name. The directory is told first and the sessions end second: a
//! sign-in that began before either looks into the directory once more when it is done, and ends
//! itself (see `accounts::SignIn`).

use std::time::Duration;

use super::payload::WebhookEvent;
use crate::api::core::Core;
use crate::api::problem::Problem;
use crate::model::{EndReason, PrincipalId, ProviderId, Subject, TenantId};
use crate::telemetry::audit::{Action, Event as Audited};

/// Whose events are taken.
const PROVIDER: ProviderId = ProviderId::CLERK;
/// How long the login of an ended provider session is refused (contracts §10).
const LOGIN_REFUSED: Duration = Duration::from_hours(24);

/// What was done, for the audit log: ids and counts only.
#[derive(Default)]
struct Effect<'a> {
    tenant: Option<&'a TenantId>,
    login: Option<&'a str>,
    ended: Option<u64>,
}

/// Does what `event` asks for; an error says that it must be asked for again.
pub(super) async fn apply(core: &Core, event: &WebhookEvent) -> Result<(), Problem> {
    let now = core.clock.now();
    let Some(user) = find_user(core, event).await? else { return Ok(()) };
    match event {
        WebhookEvent::UserDeleted { .. } => {
            core.directory.delete_user(&user, now).await?;
            let ended = end_everywhere(core, &user).await?;
            audit(Action::UserDeleted, &user, &Effect { ended: Some(ended), ..Effect::default() });
        }
        WebhookEvent::UserChanged { profile, barred, .. } => {
            if *barred {
                core.directory.end_logins(&user, now).await?;
                let ended = end_everywhere(core, &user).await?;
                audit(Action::UserBarred, &user, &Effect { ended: Some(ended), ..Effect::default() });
            }
            if core.directory.refresh_user(&user, profile, now).await? {
                audit(Action::UserRefreshed, &user, &Effect::default());
            }
        }
        WebhookEvent::LoginEnded { login, .. } => {
            core.directory.end_login(&PROVIDER, login, now.plus(LOGIN_REFUSED), now).await?;
            let ended = end_login(core, &user, login).await?;
            audit(Action::LoginEnded, &user, &Effect { login: Some(login), ended: Some(ended), ..Effect::default() });
        }
        WebhookEvent::MembershipEnded { tenant, .. } => {
            core.directory.end_membership(&user, tenant, now).await?;
            let ended = core.sessions.end_principal(tenant, &user).await?;
            audit(Action::MembershipEnded, &user, &Effect { tenant: Some(tenant), ended: Some(ended), login: None });
        }
        WebhookEvent::Ignored => {}
    }
    Ok(())
}

async fn find_user(core: &Core, event: &WebhookEvent) -> Result<Option<PrincipalId>, Problem> {
    let subject: &Subject = match event {
        WebhookEvent::UserDeleted { user }
        | WebhookEvent::UserChanged { user, .. }
        | WebhookEvent::LoginEnded { user, .. }
        | WebhookEvent::MembershipEnded { user, .. } => user,
        WebhookEvent::Ignored => return Ok(None),
    };
    Ok(core.resolver.find_user(&PROVIDER, subject).await?)
}

async fn end_everywhere(core: &Core, user: &PrincipalId) -> Result<u64, Problem> {
    let mut ended = 0;
    for tenant in tenants_of(core, user).await? {
        ended += core.sessions.end_principal(&tenant, user).await?;
    }
    Ok(ended)
}

async fn end_login(core: &Core, user: &PrincipalId, login: &str) -> Result<u64, Problem> {
    let mut ended = 0;
    for tenant in tenants_of(core, user).await? {
        let sessions = core.sessions.list(&tenant, user).await?;
        for session in sessions.iter().filter(|session| session.provider_session.as_deref() == Some(login)) {
            core.sessions.end(session, EndReason::Admin).await?;
            ended += 1;
        }
    }
    Ok(ended)
}

// Sign-ins from before this endpoint was configured may be missing in the directory: most of them
// were in the default tenant.
async fn tenants_of(core: &Core, user: &PrincipalId) -> Result<Vec<TenantId>, Problem> {
    let mut tenants = core.directory.list_tenants(user).await?;
    let default = core.sessions.default_tenant();
    if !tenants.contains(default) {
        tenants.push(default.clone());
    }
    Ok(tenants)
}

fn audit(action: Action, user: &PrincipalId, effect: &Effect<'_>) {
    Audited {
        user_id: Some(user.as_str()),
        organization_id: effect.tenant.map(TenantId::as_str),
        login_id: effect.login,
        sessions_ended: effect.ended,
        ..action.event()
    }
    .write();
}
