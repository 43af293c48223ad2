//! What a route asks of a caller.

use crate::config::Auth;

/// What the guard asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoutePolicy {
    /// Whether a session is needed.
    pub auth: Auth,
    /// Whether a guest's session is enough.
    pub allow_anonymous: bool,
    /// Roles of which the principal must have one; empty for none.
    pub require_any_role: Vec<String>,
    /// Whether such an exchange begins a new lifetime of its session.
    pub stream: bool,
    /// Whether the application may see the credentials.
    pub keep_credentials: bool,
}
