//! What a provider asserted about a caller.

use crate::model::{ActorId, PrincipalId, PrincipalKind, Role, TenantId};
use crate::time::Timestamp;

/// A proof from outside that a caller is who they say, already verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The provider that vouches: a token's issuer, or the name of a built-in source.
    pub issuer: String,
    /// Which kind of principal this identity becomes.
    pub kind: PrincipalKind,
    /// The provider's name for the caller, already in the form that becomes `X-User-ID`.
    pub subject: PrincipalId,
    /// The tenant that the provider asserted; the deployment's default when absent.
    pub tenant: Option<TenantId>,
    /// Roles inside the tenant, in the provider's spelling.
    pub roles: Vec<Role>,
    /// The provider's own session (Clerk `sid`), so that its end can end ours.
    pub provider_session: Option<String>,
    /// Who acts in the caller's name, when the provider says so (Clerk `act.sub`).
    pub actor: Option<ActorId>,
    /// When the provider authenticated the caller; a later revoke-all refuses earlier logins.
    pub authenticated_at: Timestamp,
    /// Identifies this very proof, so that a provider can be configured for single use.
    pub proof_id: Option<String>,
}
