//! What the audit stream says of a session: ids, never its token.

use crate::model::Session;
use crate::telemetry::audit::{Action, Event};

/// Returns an event about a session.
pub fn event(action: Action, session: &Session) -> Event<'_> {
    Event {
        session_id: Some(session.id.to_string()),
        user_id: Some(session.principal.id.as_str()),
        user_kind: Some(session.principal.kind.as_str()),
        organization_id: Some(session.principal.tenant.as_str()),
        actor_id: session.actor.as_ref().map(crate::model::ActorId::as_str),
        ..action.event()
    }
}
