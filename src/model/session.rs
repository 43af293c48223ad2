//! The server-side record that makes a token valid.

use uuid::Uuid;

use crate::model::{Principal, TokenId};
use crate::time::Timestamp;

/// A session's public identifier: safe to log, useless as a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SessionId(pub Uuid);

/// One sign-in. The store's copy is authoritative; a token without one is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The public identifier.
    pub id: SessionId,
    /// What the store files this session under.
    pub token_id: TokenId,
    /// Who it acts for.
    pub principal: Principal,
    /// Roles inside the tenant.
    pub roles: Vec<String>,
    /// The provider's session that this one came from (Clerk `sid`).
    pub provider_session: Option<String>,
    /// Who acts in the principal's name, if somebody does.
    pub actor: Option<String>,
    /// When the provider authenticated the caller.
    pub authenticated_at: Timestamp,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends unless it is revoked first.
    pub expires_at: Timestamp,
}

impl Session {
    /// Returns whether the session's lifetime has passed at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }
}
