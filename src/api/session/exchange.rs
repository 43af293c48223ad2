//! `POST /auth/session`: a provider's JWT becomes a session (contracts §5.1).
//!
//! Our own tokens are refused: a session cannot extend itself. The subject's rate limit is charged
//! after verification, so that nobody can spend another subject's allowance.

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;

use super::{App, Json, StartedBody, address};
use crate::accounts::SignInMethod;
use crate::api::error::{Error, Kind};
use crate::api::extract::{ClientAddr, bearer, is_jwt_shaped};
use crate::api::limit::ProvenSubject;
use crate::model::Identity;

pub(super) async fn handle(
    State(app): State<App>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<StartedBody>, Error> {
    let client = client.map(|Extension(client)| client);
    let identity = prove(&app, &headers).await.map_err(|error| app.refused(SignInMethod::Clerk, client, error))?;
    Ok(app.sign_in.with_identity(identity, address(client)).await?.into())
}

async fn prove(app: &App, headers: &HeaderMap) -> Result<Identity, Error> {
    let jwt = bearer(headers)?;
    if !is_jwt_shaped(jwt) {
        return Err(Error::new(Kind::InvalidToken, "Invalid token: expected a Clerk JWT"));
    }
    let identity = app.providers.verify(jwt).await?;
    app.limits.exchange.check(&ProvenSubject::of(&identity))?;
    Ok(identity)
}
