//! `POST /auth/session`: a provider's JWT becomes a session (contracts §5.1).
//!
//! Our own tokens are refused: a session cannot extend itself. The subject's rate limit is charged
//! after verification, so that nobody can spend another subject's allowance.

use axum::Extension;
use axum::extract::State;
use http::HeaderMap;

use super::{App, Json, Method, StartedBody, answer, standing};
use crate::api::error::{Error, Kind};
use crate::api::extract::{ClientAddr, bearer, is_jwt_shaped};
use crate::api::limit::Subject;
use crate::session::Started;

pub(super) async fn handle(
    State(app): State<App>,
    client: Option<Extension<ClientAddr>>,
    headers: HeaderMap,
) -> Result<Json<StartedBody>, Error> {
    let outcome = exchange(&app, &headers).await;
    answer(&app, Method::Clerk, client.map(|Extension(client)| client), outcome)
}

async fn exchange(app: &App, headers: &HeaderMap) -> Result<Started, Error> {
    let jwt = bearer(headers)?;
    if !is_jwt_shaped(jwt) {
        return Err(Error::new(Kind::InvalidToken, "Invalid token: expected a Clerk JWT"));
    }
    let identity = app.providers.verify(jwt).await?;
    app.limits.exchange.check(&Subject::of(&identity))?;
    standing::start(app, &identity, Method::Clerk).await
}
