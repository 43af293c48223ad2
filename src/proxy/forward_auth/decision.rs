//! Decides about the request that another proxy asks about.

use http::HeaderMap;

use super::original::Original;
use crate::api::error::{Error as ApiError, Kind};
use crate::proxy::context::Context;
use crate::proxy::identity_headers;
use crate::proxy::route::Route;

/// Decides about `original` and records the decision; returns the identity headers of the answer.
pub(super) async fn decide(original: &Original, context: &mut Context) -> Result<HeaderMap, ApiError> {
    let settings = context.settings().clone();
    let rejected = match settings.routes.classify(original.method(), original.path()) {
        Route::Open(rule) => {
            context.open(rule);
            Ok(())
        }
        Route::Guard(rule) => context.guard_original(rule, original.head()).await,
        // What Doorward answers itself is none of that proxy's application's: no rule opens it.
        Route::Terminate(_) => context.guard_original(settings.routes.unmatched(), original.head()).await,
    };
    rejected.map_err(|rejection| rejection.error())?;
    // There is a permit wherever there is no rejection.
    let (permit, _) = context.permitted().ok_or_else(|| ApiError::from(Kind::Internal))?;
    Ok(identity_headers::for_proxies(permit, settings.identity_headers))
}
