//! `DELETE /auth/session`, `POST /auth/revoke`, `POST /auth/logout`: a session ends (contracts §5.4).
//!
//! When the 200 is sent this replica refuses the token already. A second call is a 401: the
//! credentials are no longer good.

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;
use serde::Serialize;

use super::{App, Json, audit};
use crate::api::error::{Error, Kind};
use crate::api::extract::{ClientAddr, bearer, is_jwt_shaped};
use crate::telemetry::audit::Action;

#[derive(Serialize)]
pub(super) struct Ended {
    revoked: bool,
}

pub(super) async fn handle(
    State(app): State<App>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<Ended>, Error> {
    let token = bearer(&headers)?;
    if is_jwt_shaped(token) {
        return Err(Error::new(Kind::InvalidToken, "Invalid token: expected a session token"));
    }
    let session = app.sessions.end_by_token(token).await?;
    audit(Action::SessionEnded, &session, client.map(|Extension(client)| client));
    Ok(Json(Ended { revoked: true }))
}
