//! Surface session-exchange: a provider's JWT, or a device, becomes a session; a session ends.
//!
//! The operations under `/auth` (contracts §5). A caller learns a token once, from
//! the response that started its session. Paths match exactly.

mod anonymous;
mod bootstrap;
pub(super) mod dialect;
mod exchange;
mod logout;
mod rebind;

use std::net::IpAddr;
use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::accounts::{SignIn, SignInMethod, SignedIn};
use crate::api::error::{Error, json_text};
use crate::api::extract::ClientAddr;
use crate::api::limit::Limits;
use crate::bootstrap::Bootstrap;
use crate::config::rebind::Fields;
use crate::identity::Providers;
use crate::model::Session;
use crate::session::{self, Rebinds, Sessions};
use crate::telemetry::audit::{Action, Event};

/// What the surface works with.
#[derive(Clone)]
pub struct App {
    /// Starts sessions.
    pub sign_in: Arc<SignIn>,
    /// Finds and ends sessions.
    pub sessions: Arc<Sessions>,
    /// Puts together what a front end needs first.
    pub bootstrap: Arc<Bootstrap>,
    /// Makes guests users.
    pub rebinds: Arc<Rebinds>,
    /// What two keys of a rebind's answer are called.
    pub rebind_fields: Arc<Fields>,
    /// Believes or refuses JWTs.
    pub providers: Arc<Providers>,
    /// How often callers may try.
    pub limits: Arc<Limits>,
    /// Makes request ids for requests that came without one.
    pub random: Arc<dyn SecureRandom + Send + Sync>,
}

/// A 200 response with a JSON body.
struct Json<T>(T);

/// The body of a response that starts a session: exactly these keys (contracts §5.1).
#[derive(Serialize)]
struct StartedBody {
    token: String,
    expires_in: u64,
}

/// Returns the surface, which takes whole paths and every request under `/auth`.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/auth/session", post(exchange::handle).merge(delete(logout::handle)))
        .route("/auth/anonymous", post(anonymous::handle))
        .route("/auth/bootstrap", get(bootstrap::handle))
        .route("/auth/rebind", post(rebind::handle))
        .route("/auth/revoke", post(logout::handle))
        .route("/auth/logout", post(logout::handle))
        .layer(from_fn_with_state(Arc::clone(&app.random), dialect::speak))
        .with_state(app)
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json_text(&self.0)).into_response()
    }
}

impl App {
    /// Counts and audits a sign-in that was refused before it reached [`SignIn`]; returns the refusal.
    fn refused(&self, method: SignInMethod, client: Option<ClientAddr>, error: Error) -> Error {
        self.sign_in.record_refusal(method, address(client), error.kind.label());
        error
    }
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
