//! `GET /auth/bootstrap`: profile, subscription and masked secrets in one answer (contracts §5.5).
//!
//! A session token is accepted, and a provider's JWT like at the exchange. Never cached: the
//! application may act on being asked.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::{App, Json};
use crate::api::error::{Error, Kind};
use crate::api::extract::{RequestId, bearer, is_jwt_shaped};
use crate::bootstrap::{BootstrapError, Composed};
use crate::session::{Caller, Refusal};

/// Names the optional sections that failed.
const X_BOOTSTRAP_DEGRADED: HeaderName = HeaderName::from_static("x-bootstrap-degraded");

pub(super) async fn handle(
    State(app): State<App>,
    request_id: Option<Extension<RequestId>>,
    headers: HeaderMap,
) -> Result<Response, Error> {
    let request_id = request_id.map(|Extension(id)| id.header_value());
    let token = bearer(&headers)?;
    if !is_jwt_shaped(token) {
        let session = app.sessions.validate(token).await?.session;
        let composed = compose(&app, Caller::from(&*session), request_id).await?;
        // It may have ended while the sources were asked.
        if app.sessions.is_revoked(&session) {
            return Err(Refusal::Revoked.into());
        }
        return Ok(answer(composed));
    }
    let identity = app.verify_login(token).await?;
    let principal = app.sessions.principal_of(&identity);
    let caller =
        Caller { principal: &principal, roles: &identity.roles, actor: identity.actor.as_ref(), session: None };
    compose(&app, caller, request_id).await.map(answer)
}

async fn compose(app: &App, caller: Caller<'_>, request_id: Option<HeaderValue>) -> Result<Composed, Error> {
    if !app.bootstrap.admits(caller.principal.kind) {
        return Err(Kind::Forbidden.into());
    }
    Ok(app.bootstrap.compose(caller, request_id).await?)
}

fn answer(composed: Composed) -> Response {
    let degraded = HeaderValue::from_str(&composed.degraded.join(","));
    let mut response = Json(composed.body).into_response();
    if let Some(degraded) = degraded.ok().filter(|names| !names.is_empty()) {
        response.headers_mut().insert(X_BOOTSTRAP_DEGRADED, degraded);
    }
    response
}

impl From<BootstrapError> for Error {
    fn from(error: BootstrapError) -> Self {
        let kind = match error {
            BootstrapError::Unavailable(_) => Kind::BadGateway,
            BootstrapError::TimedOut(_) => Kind::GatewayTimeout,
        };
        Self::new(kind, error.to_string())
    }
}
