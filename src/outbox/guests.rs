//! The sessions of guests who became users, ended also when the rebind crashed before it got there.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::lane::{Destination, Verdict};
use crate::directory::{EventKind, Leased};
use crate::model::{PrincipalId, TenantId};
use crate::session::Sessions;
use crate::telemetry::audit::{Action, Event};

/// Ends guests' sessions.
pub(super) struct Guests {
    pub(super) sessions: Arc<Sessions>,
}

#[derive(Deserialize)]
struct Guest {
    tenant: String,
    principal: String,
}

#[async_trait]
impl Destination for Guests {
    fn kind(&self) -> EventKind {
        EventKind::RevokeGuest
    }

    // After a failure all are tried again: a session ends only once.
    async fn deliver(&self, events: &[Leased]) -> Verdict {
        let Some(guests) = events.iter().map(guest).collect::<Option<Vec<_>>>() else {
            return Verdict::Refused("the event is not one that Doorward wrote".to_owned());
        };
        for (tenant, guest) in &guests {
            let Ok(ended) = self.sessions.end_principal(tenant, guest).await else {
                return Verdict::Failed { error: "the session store cannot be asked".to_owned(), after: None };
            };
            let (user_id, organization_id) = (Some(guest.as_str()), Some(tenant.as_str()));
            Event { user_id, organization_id, sessions_ended: Some(ended), ..Action::GuestEnded.event() }.write();
        }
        Verdict::Delivered
    }
}

fn guest(event: &Leased) -> Option<(TenantId, PrincipalId)> {
    let Guest { tenant, principal } = serde_json::from_str(&event.body).ok()?;
    Some((tenant.parse().ok()?, principal.parse().ok()?))
}
