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
mod standing;

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;

use crate::api::error::{Error, json_text};
use crate::api::extract::ClientAddr;
use crate::api::limit::Limits;
use crate::bootstrap::BootstrapComposer;
use crate::config::rebind::Fields;
use crate::directory::Directory;
use crate::guests::{Guests, Rebinds};
use crate::identity::Providers;
use crate::metrics::Metrics;
use crate::model::Session;
use crate::session::{self, Sessions, Started};
use crate::telemetry::audit::{Action, Event};
use crate::time::Clock;

/// What the surface works with.
#[derive(Clone)]
pub struct App {
    /// Starts and ends sessions.
    pub sessions: Arc<Sessions>,
    /// Puts together what a front end needs first.
    pub bootstrap: Arc<BootstrapComposer>,
    /// Devices and users.
    pub directory: Arc<Directory>,
    /// Whether webhooks tell of users and logins that end: then the directory has to be asked.
    pub hears_of_ends: bool,
    /// Says who the guest of a device is.
    pub guests: Arc<Guests>,
    /// Makes guests users.
    pub rebinds: Arc<Rebinds>,
    /// What two keys of a rebind's answer are called.
    pub rebind_fields: Arc<Fields>,
    /// Believes or refuses JWTs.
    pub providers: Arc<Providers>,
    /// How often callers may try.
    pub limits: Arc<Limits>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Counts sign-ins.
    pub metrics: Arc<Metrics>,
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

/// How callers sign in: the label of `login_attempts`.
#[derive(Clone, Copy)]
enum Method {
    Clerk,
    Anonymous,
}

/// Returns the surface, which takes whole paths and every request under `/auth`.
pub fn router(app: App) -> Router {
    for method in [Method::Clerk, Method::Anonymous] {
        for outcome in method.outcomes() {
            app.metrics.login_attempts.with_label_values(&[method.label(), outcome]);
        }
    }
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

impl Method {
    fn label(self) -> &'static str {
        match self {
            Self::Clerk => "clerk",
            Self::Anonymous => "anonymous",
        }
    }

    // Every outcome that can happen, so that each series has a zero to begin from.
    fn outcomes(self) -> &'static [&'static str] {
        match self {
            Self::Clerk => &["success", "missing_token", "invalid_token", "expired", "rate_limited", "unavailable"],
            Self::Anonymous => &[
                "success",
                "bad_request",
                "too_large",
                "unsupported_media_type",
                "unprocessable",
                "rate_limited",
                "invalid_token",
                "unavailable",
            ],
        }
    }
}

/// Counts an attempt to sign in, writes it to the audit log, and answers it.
fn answer(
    app: &App,
    method: Method,
    client: Option<ClientAddr>,
    outcome: Result<Started, Error>,
) -> Result<Json<StartedBody>, Error> {
    let label = outcome.as_ref().map_or_else(|error| error.kind.label(), |_| "success");
    app.metrics.login_attempts.with_label_values(&[method.label(), label]).inc();
    if outcome.is_err() {
        let client_ip = client.map(|ClientAddr(address)| address);
        let (reason, method) = (Some(label), Some(method.label()));
        Event { reason, client_ip, method, ..Action::LoginDenied.event() }.write();
    }
    let started = outcome?;
    audit(Action::SessionStarted, &started.session, client);
    let body = StartedBody { token: started.opaque().expose().to_owned(), expires_in: started.expires_in.as_secs() };
    Ok(Json(body))
}

fn audit(action: Action, session: &Session, client: Option<ClientAddr>) {
    Event { client_ip: client.map(|ClientAddr(address)| address), ..session::audit::event(action, session) }.write();
}

#[cfg(test)]
mod tests;
