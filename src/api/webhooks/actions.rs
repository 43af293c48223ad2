//! What is done about an event. All of it may be done again, and in any order.
//!
//! The directory is told first and the sessions end second: a sign-in that began before either
//! looks into the directory once more when it is done, and ends itself (see `session::standing`).

use std::time::Duration;

use super::App;
use super::payload::Event;
use crate::api::error::Error;
use crate::model::EndReason;
use crate::model::{PrincipalId, TenantId};
use crate::telemetry::audit::{Action, Event as Audited};

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
pub(super) async fn apply(app: &App, event: &Event) -> Result<(), Error> {
    let now = app.clock.now();
    match event {
        Event::UserDeleted { user } => {
            app.directory.delete_user(user, now).await?;
            let ended = end_everywhere(app, user).await?;
            audit(Action::UserDeleted, user, &Effect { ended: Some(ended), ..Effect::default() });
        }
        Event::UserChanged { user, person, barred } => {
            if *barred {
                app.directory.end_logins(user, now).await?;
                let ended = end_everywhere(app, user).await?;
                audit(Action::UserBarred, user, &Effect { ended: Some(ended), ..Effect::default() });
            }
            if app.directory.refresh_user(user, person, now).await? {
                audit(Action::UserRefreshed, user, &Effect::default());
            }
        }
        Event::LoginEnded { user, login } => {
            app.directory.end_login(login, now.plus(LOGIN_REFUSED), now).await?;
            let ended = end_login(app, user, login).await?;
            audit(Action::LoginEnded, user, &Effect { login: Some(login), ended: Some(ended), ..Effect::default() });
        }
        Event::MembershipEnded { user, tenant } => {
            app.directory.end_membership(user, tenant, now).await?;
            let ended = app.sessions.end_principal(tenant, user).await?;
            audit(Action::MembershipEnded, user, &Effect { tenant: Some(tenant), ended: Some(ended), login: None });
        }
        Event::Ignored => {}
    }
    Ok(())
}

async fn end_everywhere(app: &App, user: &PrincipalId) -> Result<u64, Error> {
    let mut ended = 0;
    for tenant in tenants_of(app, user).await? {
        ended += app.sessions.end_principal(&tenant, user).await?;
    }
    Ok(ended)
}

async fn end_login(app: &App, user: &PrincipalId, login: &str) -> Result<u64, Error> {
    let mut ended = 0;
    for tenant in tenants_of(app, user).await? {
        let sessions = app.sessions.list(&tenant, user).await?;
        for session in sessions.iter().filter(|session| session.provider_session.as_deref() == Some(login)) {
            app.sessions.end(session, EndReason::Admin).await?;
            ended += 1;
        }
    }
    Ok(ended)
}

// Sign-ins from before this endpoint was configured may be missing in the directory: most of them
// were in the default tenant.
async fn tenants_of(app: &App, user: &PrincipalId) -> Result<Vec<TenantId>, Error> {
    let mut tenants = app.directory.list_tenants(user).await?;
    let default = app.sessions.default_tenant();
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
