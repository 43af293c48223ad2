//! `POST /auth/session`: a provider's JWT becomes a session (contracts §5.1).
//!
//! Our own tokens are refused: a session cannot extend itself. The subject's rate limit is charged
//! after verification, so that a caller cannot spend another subject's allowance.

use std::sync::Arc;

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;

use super::signed_in::{StartedBody, address, refused};
use crate::accounts::SignInMethod;
use crate::api::bearer::{bearer, is_jwt_shaped};
use crate::api::core::Core;
use crate::api::extract::ClientAddr;
use crate::api::json::Json;
use crate::api::limit::ProvenSubject;
use crate::api::problem::{Problem, TokenFault};
use crate::model::Identity;

pub(super) async fn handle(
    State(core): State<Arc<Core>>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<StartedBody>, Problem> {
    let client = client.map(|Extension(client)| client);
    let identity =
        prove(&core, &headers).await.map_err(|problem| refused(&core, SignInMethod::Clerk, client, problem))?;
    Ok(core.sign_in.with_identity(identity, address(client)).await?.into())
}

async fn prove(core: &Core, headers: &HeaderMap) -> Result<Identity, Problem> {
    let jwt = bearer(headers)?;
    if !is_jwt_shaped(jwt) {
        return Err(TokenFault::NotAJwt.into());
    }
    let identity = core.providers.verify(jwt).await?;
    core.limits.exchange.check(&ProvenSubject::of(&identity))?;
    Ok(identity)
}
