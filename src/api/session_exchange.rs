//! Surface session-exchange: a provider's JWT, or a device, becomes a session; a session ends.
//!
//! The operations of contracts §5. A caller learns a token once, from
//! the response that started its session. Paths match exactly.

mod anonymous;
mod bootstrap;
mod exchange;
mod logout;
mod rebind;
mod signed_in;

use http::Method;

use crate::api::operation::Operation;

/// Returns the surface's operations (contracts §5); the path of ending a session has two aliases.
pub(super) fn operations() -> Vec<Operation> {
    vec![
        Operation::new(Method::POST, "/session", "exchange", exchange::handle),
        Operation::new(Method::DELETE, "/session", "logout", logout::handle),
        Operation::new(Method::POST, "/anonymous", "anonymous", anonymous::handle),
        Operation::new(Method::GET, "/bootstrap", "bootstrap", bootstrap::handle),
        Operation::new(Method::POST, "/rebind", "rebind", rebind::handle),
        Operation::new(Method::POST, "/revoke", "logout", logout::handle),
        Operation::new(Method::POST, "/logout", "logout", logout::handle),
    ]
}

#[cfg(test)]
mod tests;
