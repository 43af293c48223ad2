//! Whether a login that a provider vouched for is still one (contracts §11.1 rule 15).
//!
//! Only the provider's webhooks can say that it is not: without them the directory is told of
//! sign-ins when it has time, and nobody waits for it. With them it is asked before a session
//! starts and once more when it has: whatever ends between the two looks is seen by the second,
//! and whatever ends later finds the session in the store.

use super::{App, Method};
use crate::api::error::{Error, Kind};
use crate::directory::Standing;
use crate::model::{EndReason, Identity};
use crate::session::{Handout, Started};

impl App {
    /// Returns the login that a JWT proves, unless its user or provider session is gone: for endpoints
    /// that take a JWT as it is.
    pub async fn verify_login(&self, jwt: &str) -> Result<Identity, Error> {
        let identity = self.providers.verify(jwt).await?;
        if !self.hears_of_ends {
            return Ok(identity);
        }
        let tenant = self.sessions.tenant_of(&identity);
        match self.directory.find_standing(&identity, tenant, self.clock.now()).await? {
            Standing::Good(_) => Ok(identity),
            gone => Err(refusal(gone)),
        }
    }
}

/// Starts a session for a login, unless user or login are gone.
pub(super) async fn start(app: &App, identity: &Identity, method: Method) -> Result<Started, Error> {
    let tenant = app.sessions.tenant_of(identity);
    if !app.hears_of_ends {
        let started = app.sessions.start(identity, method.label(), Handout::OPAQUE).await?;
        app.directory.note_sign_in(identity.clone(), tenant.clone(), app.clock.now());
        return Ok(started);
    }
    let before = app.directory.sign_in(identity, tenant, app.clock.now()).await?;
    if !matches!(before, Standing::Good(_)) {
        return Err(refusal(before));
    }
    let started = app.sessions.start(identity, method.label(), Handout::OPAQUE).await?;
    let after = app.directory.find_standing(identity, tenant, app.clock.now()).await;
    if after.as_ref().is_ok_and(|after| *after == before) {
        return Ok(started);
    }
    // Nobody knows its token, and nobody will; it only should not be counted among the live ones.
    let _ = app.sessions.end(&started.session, EndReason::Admin).await;
    Err(after.map_or_else(Error::from, refusal))
}

// Marks that moved say that all sessions ended meanwhile, this login's among them.
fn refusal(standing: Standing) -> Error {
    let text = match standing {
        Standing::UserDeleted => "Invalid token: user deleted",
        Standing::LoginEnded | Standing::Good(_) => "Invalid token: session revoked",
    };
    Error::new(Kind::InvalidToken, text)
}
