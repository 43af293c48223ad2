//! The question over HTTP: `/_doorward/verify` on the proxy port.

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response};
use pingora::proxy::Session as Exchange;

use super::decision::decide;
use super::original::Original;
use crate::api::problem::{Problem, What};
use crate::proxy::context::Context;
use crate::proxy::guard::Rejection;
use crate::proxy::identity_headers::{X_CLIENT_ID, X_REQUEST_ID, X_USER_ID};
use crate::proxy::{Gateway, respond};

impl Gateway {
    /// Answers what another proxy asks; `non_canonical` says that an identity header came in a spelling
    /// that Doorward does not write.
    pub(in crate::proxy) async fn verify(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        non_canonical: bool,
    ) -> pingora::Result<bool> {
        if !context.settings.forward_auth {
            let head = exchange.req_header();
            let nothing_here = What::NoRoute { method: head.method.clone(), path: head.uri.path().to_owned() };
            return crate::proxy::refuse(exchange, &nothing_here.into(), context).await;
        }
        context.answers_a_proxy();
        let decided = self.decide_question(exchange, context, non_canonical).await;
        answer(exchange, context, decided).await
    }

    /// Refuses a question that cannot be read; a stranger is not told so.
    pub(in crate::proxy) async fn refuse_question(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        what: What,
    ) -> pingora::Result<bool> {
        context.answers_a_proxy();
        let error = believe(context).err().unwrap_or_else(|| {
            context.refuse_unread();
            what.into()
        });
        answer(exchange, context, Err(error)).await
    }

    async fn decide_question(
        &self,
        exchange: &Exchange,
        context: &mut Context,
        non_canonical: bool,
    ) -> Result<HeaderMap, Problem> {
        believe(context)?;
        let Ok(original) = Original::from_question(exchange.req_header()) else {
            context.refuse_unread();
            return Err(What::BadRequest.into());
        };
        context.note_original(original.method(), original.target());
        // An answer replaces headers by name: it cannot reach a name that only the application folds.
        if non_canonical {
            return Err(context.turn_away(Rejection::IdentityHeader));
        }
        Box::pin(decide(&self.sessions, &original, context)).await
    }
}

fn believe(context: &mut Context) -> Result<(), Problem> {
    if context.peer_is_trusted() { Ok(()) } else { Err(context.turn_away(Rejection::UntrustedPeer)) }
}

async fn answer(
    exchange: &mut Exchange,
    context: &mut Context,
    decided: Result<HeaderMap, Problem>,
) -> pingora::Result<bool> {
    let response = match decided {
        Ok(identity) => allowed(identity, context),
        Err(problem) => denied(&problem, context),
    };
    context.status = Some(response.status());
    respond::write(exchange, response).await.map(|()| true)
}

fn allowed(identity: HeaderMap, context: &Context) -> Response<Bytes> {
    let mut response = Response::new(Bytes::new());
    *response.headers_mut() = identity;
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, context.request_id_value());
    response
}

// A proxy that copies headers from any answer must not leave what the client made up.
fn denied(problem: &Problem, context: &Context) -> Response<Bytes> {
    let mut response = context.render(problem);
    for name in [X_USER_ID, X_CLIENT_ID] {
        response.headers_mut().insert(name, HeaderValue::from_static(""));
    }
    response
}
