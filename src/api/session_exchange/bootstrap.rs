//! `GET /auth/bootstrap`: profile, subscription and masked secrets in one answer (contracts §5.5).
//!
//! A session token is accepted, and a provider's JWT like at the exchange. Never cached: the
//! application may act on being asked.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::api::bearer::{bearer, is_jwt_shaped};
use crate::api::core::Core;
use crate::api::json::Json;
use crate::api::problem::{Problem, What, Why};
use crate::api::request_id::RequestId;
use crate::bootstrap::Composed;
use crate::session::{Caller, Refusal};

/// Names the optional sections that failed.
const X_BOOTSTRAP_DEGRADED: HeaderName = HeaderName::from_static("x-bootstrap-degraded");

pub(super) async fn handle(
    State(core): State<Arc<Core>>,
    request_id: Option<Extension<RequestId>>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let request_id = request_id.map(|Extension(id)| id.header_value());
    let token = bearer(&headers)?;
    if !is_jwt_shaped(token) {
        let session = core.sessions.validate(token).await?.session;
        let composed = compose(&core, Caller::from(&*session), request_id).await?;
        // It may have ended while the sources were asked.
        if core.sessions.is_revoked(&session) {
            return Err(Refusal::Revoked.into());
        }
        return Ok(answer(composed));
    }
    let identity = core.providers.verify(token).await?;
    let principal = core.sign_in.find_principal(&identity).await?;
    let caller =
        Caller { principal: &principal, roles: &identity.roles, actor: identity.actor.as_ref(), session: None };
    compose(&core, caller, request_id).await.map(answer)
}

async fn compose(core: &Core, caller: Caller<'_>, request_id: Option<HeaderValue>) -> Result<Composed, Problem> {
    if !core.bootstrap.admits(caller.principal.kind) {
        return Err(What::Forbidden(Why::Permissions).into());
    }
    Ok(core.bootstrap.compose(caller, request_id).await?)
}

fn answer(composed: Composed) -> Response {
    let degraded = HeaderValue::from_str(&composed.degraded.join(","));
    let mut response = Json(composed.body).into_response();
    if let Some(degraded) = degraded.ok().filter(|names| !names.is_empty()) {
        response.headers_mut().insert(X_BOOTSTRAP_DEGRADED, degraded);
    }
    response
}
