//! Plain data: what a token, a principal, an identity and a session are.
//!
//! No I/O, no clock and no serde here: wire and storage shapes live at their boundary.

pub mod dialect;
pub mod identity;
pub mod new_session;
pub mod principal;
pub mod session;
pub mod surface;
pub mod token;

pub use dialect::Dialect;
pub use identity::{Identity, ProviderId, Subject};
pub use new_session::{NewSession, Origin};
pub use principal::{Principal, PrincipalId, PrincipalKind, TenantId};
pub use session::{Session, SessionId};
pub use token::{ParsedToken, SessionToken, Shard, TokenError, TokenId, TokenKey, TokenKeys, TokenKind};
