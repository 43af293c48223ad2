//! Plain data: what a token, a principal, an identity and a session are.
//!
//! No I/O, no clock and no serde here: wire and storage shapes live at their boundary.

pub mod dialect;
pub mod identity;
pub mod new_session;
pub mod principal;
pub mod role;
pub mod session;
pub mod surface;
pub mod token;

pub use dialect::Dialect;
pub use identity::{Identity, ProviderId, Subject};
pub use new_session::{NewSession, Origin};
pub use principal::{ActorId, Principal, PrincipalId, PrincipalKind, TenantId};
pub use role::Role;
pub use session::{End, EndReason, Session, SessionId, Shard, Verifier};
pub use token::{ParsedToken, SessionSecret, SessionToken, TokenError, TokenKey, TokenKeys, TokenKind};
