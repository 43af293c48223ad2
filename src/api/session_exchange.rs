//! Surface session-exchange: a provider's JWT, or a device, becomes a session; a session ends.
//!
//! The operations of contracts §5. A caller learns a token once, from
//! the response that started its session. Paths match exactly.

mod anonymous;
mod bootstrap;
mod exchange;
mod logout;
mod rebind;

use std::net::IpAddr;

use http::Method;
use serde::Serialize;

use crate::accounts::{SignInMethod, SignedIn};
use crate::api::core::Core;
use crate::api::endpoint::Endpoint;
use crate::api::extract::ClientAddr;
use crate::api::json::Json;
use crate::api::problem::Problem;
use crate::model::Session;
use crate::session;
use crate::telemetry::audit::{Action, Event};

/// The body of a response that starts a session: exactly these keys (contracts §5.1).
#[derive(Serialize)]
struct StartedBody {
    token: String,
    expires_in: u64,
}

/// Returns the surface's operations (contracts §5); the path of ending a session has two aliases.
pub(super) fn endpoints() -> Vec<Endpoint> {
    vec![
        Endpoint::new(Method::POST, "/session", "exchange", exchange::handle),
        Endpoint::new(Method::DELETE, "/session", "logout", logout::handle),
        Endpoint::new(Method::POST, "/anonymous", "anonymous", anonymous::handle),
        Endpoint::new(Method::GET, "/bootstrap", "bootstrap", bootstrap::handle),
        Endpoint::new(Method::POST, "/rebind", "rebind", rebind::handle),
        Endpoint::new(Method::POST, "/revoke", "logout", logout::handle),
        Endpoint::new(Method::POST, "/logout", "logout", logout::handle),
    ]
}

/// Counts and audits a sign-in that was refused before it reached [`SignIn`]; returns the refusal.
///
/// [`SignIn`]: crate::accounts::SignIn
fn refused(core: &Core, method: SignInMethod, client: Option<ClientAddr>, problem: Problem) -> Problem {
    core.sign_in.record_refusal(method, address(client), problem.what.label());
    problem
}

impl From<SignedIn> for Json<StartedBody> {
    fn from(SignedIn { started }: SignedIn) -> Self {
        let (token, expires_in) = (started.opaque().expose().to_owned(), started.expires_in.as_secs());
        Self(StartedBody { token, expires_in })
    }
}

fn address(client: Option<ClientAddr>) -> Option<IpAddr> {
    client.map(|ClientAddr(address)| address)
}

fn audit(action: Action, session: &Session, client: Option<ClientAddr>) {
    Event { client_ip: address(client), ..session::audit::event(action, session) }.write();
}

#[cfg(test)]
mod tests;
