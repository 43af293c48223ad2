//! `POST /auth/session`: a provider's JWT becomes a session (contracts §5.1).
//!
//! Our own tokens are refused: a session cannot extend itself. The subject's rate limit is charged
//! after verification, so that nobody can spend another subject's allowance.

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;

use super::{App, Method, StartedBody, answer, standing};
use crate::api::bearer::{bearer, is_jwt_shaped};
use crate::api::extract::ClientAddr;
use crate::api::json::Json;
use crate::api::limit::Subject;
use crate::api::problem::{Problem, TokenFault};
use crate::session::Started;

pub(super) async fn handle(
    State(app): State<App>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<StartedBody>, Problem> {
    let outcome = exchange(&app, &headers).await;
    answer(&app, Method::Clerk, client.map(|Extension(client)| client), outcome)
}

async fn exchange(app: &App, headers: &HeaderMap) -> Result<Started, Problem> {
    let jwt = bearer(headers)?;
    if !is_jwt_shaped(jwt) {
        return Err(TokenFault::NotAJwt.into());
    }
    let identity = app.providers.verify(jwt).await?;
    app.limits.exchange.check(&Subject::of(&identity))?;
    standing::start(app, &identity, Method::Clerk).await
}
