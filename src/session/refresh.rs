//! Moves a session to its next refresh token, and finds out when one was stolen.

use std::sync::Arc;

use super::{Refusal, Sessions, audit, unavailable};
use crate::model::session::AgentMark;
use crate::model::{EndReason, Session, SessionToken, TokenError, TokenKind};
use crate::store::{Presented, Rotated};
use crate::telemetry::audit::Action;

/// A session whose refresh token was used.
#[derive(Debug)]
pub struct Refreshed {
    /// The record as it is now.
    pub session: Arc<Session>,
    /// The refresh token that is due.
    pub refresh: SessionToken,
    /// Whether the same answer was given before, within the grace.
    pub repeated: bool,
}

impl Sessions {
    /// Returns the successor of a refresh token. Of concurrent attempts with one token one makes the
    /// successor, and those within the grace and from the same `agent` get the same one. A token that
    /// was replaced longer ago was stolen: the session ends, with all of its credentials.
    pub async fn rotate(&self, token: &str, agent: AgentMark) -> Result<Refreshed, Refusal> {
        let now = self.clock.now();
        let keys = self.keys.load_full();
        let parsed = keys.parse(&[TokenKind::Refresh], token).map_err(Refusal::from)?;
        if parsed.nominal_expiry <= now {
            return Err(Refusal::Expired);
        }
        if self.revocations.is_revoked(&parsed.session) {
            return Err(Refusal::Revoked);
        }
        let (turn, grace) = (parsed.turn, self.policy.refresh_grace);
        let presented = Presented { turn, verifier: parsed.verifier(), agent, grace };
        let rotated = self.store.rotate(parsed.session, presented, now).await;
        let rotated = rotated.map_err(|error| unavailable(&error, Refusal::Unavailable))?;
        self.count_rotation(&rotated);
        let repeated = matches!(rotated, Rotated::Repeated(_));
        let session = match rotated {
            Rotated::Next(session) | Rotated::Ahead(session) | Rotated::Repeated(session) => session,
            Rotated::Reused(session) => return Err(self.end_stolen(&session).await),
            Rotated::Gone => return Err(Refusal::Revoked),
        };
        if repeated {
            audit::event(Action::RefreshRepeated, &session).write();
        }
        // An end that came while the store was answering: nothing leaves after it.
        if self.revocations.is_revoked(&session.id) {
            return Err(Refusal::Revoked);
        }
        self.cache.forget(session.id, self.revocations.stamp(&session.id)).await;
        let refresh = keys.successor(&parsed, session.refresh.turn).map_err(Refusal::from)?;
        Ok(Refreshed { session: Arc::new(session), refresh, repeated })
    }

    fn count_rotation(&self, rotated: &Rotated) {
        let result = match rotated {
            Rotated::Next(_) => "next",
            Rotated::Repeated(_) => "repeated",
            Rotated::Ahead(_) => "ahead",
            Rotated::Reused(_) => "reused",
            Rotated::Gone => return,
        };
        self.metrics.refresh_tokens.with_label_values(&[result]).inc();
    }

    async fn end_stolen(&self, session: &Session) -> Refusal {
        audit::event(Action::RefreshReused, session).write();
        // On an error this replica refuses it all the same, and the store's journal tries again.
        self.end(session, EndReason::Reuse).await.err().unwrap_or(Refusal::Revoked)
    }
}

impl From<TokenError> for Refusal {
    fn from(error: TokenError) -> Self {
        match error {
            TokenError::Malformed => Self::Malformed,
            TokenError::Forged => Self::Unknown,
        }
    }
}
