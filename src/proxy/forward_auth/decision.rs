//! Decides about the request that another proxy asks about.

use http::HeaderMap;

use super::original::Original;
use crate::api::problem::{Problem, What};
use crate::proxy::context::Context;
use crate::proxy::guard::Rejection;
use crate::proxy::identity_headers;
use crate::proxy::route::Route;

/// Decides about `original` and records the decision; returns the identity headers of the answer.
pub(super) async fn decide(original: &Original, context: &mut Context) -> Result<HeaderMap, Problem> {
    let settings = context.settings().clone();
    let (rule, is_open) = match settings.routes.classify(original.method(), original.path()) {
        Route::Open(rule) => (rule, true),
        Route::Guard(rule) => (rule, false),
        // What Doorward answers itself is none of that proxy's application's: no rule opens it.
        Route::Terminate(_) | Route::Check => (settings.routes.unmatched(), false),
    };
    context.speak(rule.dialect);
    if is_open {
        context.open(rule);
    } else {
        context.guard_original(rule, original.head()).await.map_err(Rejection::problem)?;
    }
    // There is a permit wherever there is no rejection.
    let Some((permit, _)) = context.permitted() else { return Err(What::Internal.into()) };
    Ok(identity_headers::for_proxies(permit, settings.identity_headers))
}
