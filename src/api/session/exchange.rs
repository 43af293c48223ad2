//! `POST /auth/session`: a provider's JWT becomes a session (contracts §5.1).
//!
//! Our own tokens are refused: a session cannot extend itself. The subject's rate limit is charged
//! after verification, so that nobody can spend another subject's allowance.

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;

use super::{App, StartedBody, address};
use crate::accounts::SignInMethod;
use crate::api::bearer::{bearer, is_jwt_shaped};
use crate::api::extract::ClientAddr;
use crate::api::json::Json;
use crate::api::limit::ProvenSubject;
use crate::api::problem::{Problem, TokenFault};
use crate::model::Identity;

pub(super) async fn handle(
    State(app): State<App>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<StartedBody>, Problem> {
    let client = client.map(|Extension(client)| client);
    let identity = prove(&app, &headers).await.map_err(|problem| app.refused(SignInMethod::Clerk, client, problem))?;
    Ok(app.sign_in.with_identity(identity, address(client)).await?.into())
}

async fn prove(app: &App, headers: &HeaderMap) -> Result<Identity, Problem> {
    let jwt = bearer(headers)?;
    if !is_jwt_shaped(jwt) {
        return Err(TokenFault::NotAJwt.into());
    }
    let identity = app.providers.verify(jwt).await?;
    app.limits.exchange.check(&ProvenSubject::of(&identity))?;
    Ok(identity)
}
