//! What the operations that begin or end a session share: the answer, and what is counted and audited.

use std::net::IpAddr;

use serde::Serialize;

use crate::accounts::{SignInMethod, SignedIn};
use crate::api::core::Core;
use crate::api::extract::ClientAddr;
use crate::api::json::Json;
use crate::api::problem::Problem;
use crate::model::Session;
use crate::session;
use crate::telemetry::audit::{Action, Event};

/// The body of a response that starts a session: exactly these keys (contracts §5.1).
#[derive(Serialize)]
pub(super) struct StartedBody {
    pub(super) token: String,
    pub(super) expires_in: u64,
}

/// Counts and audits a sign-in that was refused before it reached [`SignIn`]; returns the refusal.
///
/// [`SignIn`]: crate::accounts::SignIn
pub(super) fn refused(core: &Core, method: SignInMethod, client: Option<ClientAddr>, problem: Problem) -> Problem {
    core.sign_in.record_refusal(method, address(client), problem.what.label());
    problem
}

impl From<SignedIn> for Json<StartedBody> {
    fn from(SignedIn { started }: SignedIn) -> Self {
        let (token, expires_in) = (started.opaque().expose().to_owned(), started.expires_in.as_secs());
        Self(StartedBody { token, expires_in })
    }
}

/// Returns the caller's address, for the audit log.
pub(super) fn address(client: Option<ClientAddr>) -> Option<IpAddr> {
    client.map(|ClientAddr(address)| address)
}

/// Writes what became of a session to the audit log.
pub(super) fn audit(action: Action, session: &Session, client: Option<ClientAddr>) {
    Event { client_ip: address(client), ..session::audit::event(action, session) }.write();
}
