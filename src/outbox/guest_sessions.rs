//! Ends the sessions of guests who became users, for rebinds that crashed before they did it themselves.

use std::sync::Arc;

use async_trait::async_trait;
use serde::Deserialize;

use super::lane::{DeliveryOutcome, Destination};
use crate::directory::{EventKind, Leased};
use crate::model::{PrincipalId, TenantId};
use crate::session::Sessions;
use crate::telemetry::audit::{Action, Event};

/// Ends guests' sessions.
pub(super) struct GuestSessions {
    pub(super) sessions: Arc<Sessions>,
}

#[derive(Deserialize)]
struct GuestEvent {
    tenant: String,
    principal: String,
}

#[async_trait]
impl Destination for GuestSessions {
    fn kind(&self) -> EventKind {
        EventKind::RevokeGuest
    }

    // After a failure all of them are tried again, which is harmless: a session ends only once.
    async fn deliver(&self, events: &[Leased]) -> DeliveryOutcome {
        let Some(guests) = events.iter().map(guest).collect::<Option<Vec<_>>>() else {
            return DeliveryOutcome::Refused("the event is not one that Doorward wrote".to_owned());
        };
        for (tenant, guest) in &guests {
            let Ok(ended) = self.sessions.end_principal(tenant, guest).await else {
                return DeliveryOutcome::Failed { error: "the session store cannot be asked".to_owned(), after: None };
            };
            let (user_id, organization_id) = (Some(guest.as_str()), Some(tenant.as_str()));
            Event { user_id, organization_id, sessions_ended: Some(ended), ..Action::GuestEnded.event() }.write();
        }
        DeliveryOutcome::Delivered
    }
}

fn guest(event: &Leased) -> Option<(TenantId, PrincipalId)> {
    let GuestEvent { tenant, principal } = serde_json::from_str(&event.body).ok()?;
    Some((tenant.parse().ok()?, principal.parse().ok()?))
}
