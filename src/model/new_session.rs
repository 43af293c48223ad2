//! What a session is started from.

use crate::model::{ActorId, Identity, Principal, ProviderId, Role};
use crate::time::Timestamp;

/// Where a session came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Who vouched for its principal.
    pub provider: ProviderId,
    /// The provider's session (Clerk `sid`), unique within the provider only.
    pub provider_session: Option<String>,
}

/// A sign-in that has been resolved: all that a session needs to know of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewSession {
    /// Who the session acts for.
    pub principal: Principal,
    /// Roles inside the tenant.
    pub roles: Vec<Role>,
    /// Who vouched, and for which login.
    pub origin: Origin,
    /// Who acts in the principal's name, where a provider said so.
    pub actor: Option<ActorId>,
    /// When the caller was authenticated.
    pub authenticated_at: Timestamp,
    /// Names the proof where it must not be used a second time.
    pub proof_id: Option<String>,
}

impl NewSession {
    /// Returns the sign-in that an identity is, once it is known to be `principal`.
    pub fn of(principal: Principal, identity: Identity) -> Self {
        let Identity { provider, roles, provider_session, actor, authenticated_at, proof_id, .. } = identity;
        let origin = Origin { provider, provider_session };
        Self { principal, roles, origin, actor, authenticated_at, proof_id }
    }

    /// Returns the sign-in of a device's guest.
    pub fn guest(principal: Principal, authenticated_at: Timestamp) -> Self {
        let origin = Origin { provider: ProviderId::DEVICE, provider_session: None };
        Self { principal, roles: Vec::new(), origin, actor: None, authenticated_at, proof_id: None }
    }
}
