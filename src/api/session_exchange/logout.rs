//! `DELETE /auth/session`, `POST /auth/revoke`, `POST /auth/logout`: a session ends (contracts §5.4).
//!
//! When the 200 is sent this replica refuses the token already. A second call is a 401: the
//! credentials are no longer good.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;

use super::signed_in::audit;
use crate::api::bearer::{bearer, is_jwt_shaped};
use crate::api::core::Core;
use crate::api::extract::ClientAddr;
use crate::api::json::Json;
use crate::api::problem::{Problem, TokenFault};
use crate::telemetry::audit::Action;

#[derive(Serialize)]
pub(super) struct LogoutAnswer {
    revoked: bool,
}

pub(super) async fn handle(
    State(core): State<Arc<Core>>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<LogoutAnswer>, Problem> {
    let token = bearer(&headers)?;
    if is_jwt_shaped(token) {
        return Err(TokenFault::NotASessionToken.into());
    }
    let session = core.sessions.end_by_token(token).await?;
    audit(Action::SessionEnded, &session, client.map(|Extension(client)| client));
    Ok(Json(LogoutAnswer { revoked: true }))
}
