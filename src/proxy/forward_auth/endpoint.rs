//! The check over HTTP: `/_doorward/verify` on the proxy port.

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response};
use pingora::proxy::Session as Exchange;

use super::decision::decide;
use super::original::Original;
use crate::api::problem::Problem;
use crate::proxy::context::Context;
use crate::proxy::guard::Rejection;
use crate::proxy::identity_headers::{X_CLIENT_ID, X_USER_ID};
use crate::proxy::respond;
use crate::wire::headers::X_REQUEST_ID;

/// Answers what another proxy asks. `non_canonical_identity_header` says that an identity header
/// came in a spelling that Doorward does not write.
pub(in crate::proxy) async fn check(
    exchange: &mut Exchange,
    context: &mut Context,
    non_canonical_identity_header: bool,
) -> pingora::Result<bool> {
    context.is_check();
    let response = match decide_check(exchange, context, non_canonical_identity_header).await {
        Ok(identity) => allowed(identity, context),
        Err(problem) => denied(&problem, context),
    };
    respond::write(exchange, response).await.map(|()| true)
}

/// Refuses a check that cannot be read. Untrusted peers get 403 even so.
pub(in crate::proxy) async fn refuse_unreadable(
    exchange: &mut Exchange,
    context: &mut Context,
) -> pingora::Result<bool> {
    context.is_check();
    let rejection = if context.peer_is_trusted() { Rejection::Unreadable } else { Rejection::UntrustedPeer };
    let problem = reject(context, rejection);
    let response = denied(&problem, context);
    respond::write(exchange, response).await.map(|()| true)
}

async fn decide_check(
    exchange: &Exchange,
    context: &mut Context,
    non_canonical_identity_header: bool,
) -> Result<HeaderMap, Problem> {
    if !context.peer_is_trusted() {
        return Err(reject(context, Rejection::UntrustedPeer));
    }
    let Ok(original) = Original::from_check(exchange.req_header()) else {
        return Err(reject(context, Rejection::Unreadable));
    };
    context.note_original(original.method(), original.target());
    // An answer replaces headers by name: it cannot reach a name that only the application folds.
    if non_canonical_identity_header {
        return Err(reject(context, Rejection::IdentityHeader));
    }
    Box::pin(decide(&original, context)).await
}

fn reject(context: &mut Context, rejection: Rejection) -> Problem {
    context.reject(rejection);
    rejection.problem()
}

fn allowed(identity: HeaderMap, context: &mut Context) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = identity;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, context.request_id_value());
    context.answering(response.status());
    response
}

// A proxy that copies headers from any answer must not leave what the client made up.
fn denied(problem: &Problem, context: &mut Context) -> Response<Bytes> {
    let mut response = context.refuse(problem);
    for name in [X_USER_ID, X_CLIENT_ID] {
        response.headers_mut().insert(name, HeaderValue::from_static(""));
    }
    response
}
