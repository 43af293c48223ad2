//! The question over HTTP: `/_doorward/verify` on the proxy port.

use bytes::Bytes;
use http::header::CACHE_CONTROL;
use http::{HeaderMap, HeaderValue, Response};
use pingora::proxy::Session as Exchange;

use super::decision::decide;
use super::original::Original;
use crate::api::error::{Error as ApiError, Kind, render_detail};
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
            return crate::proxy::refuse(exchange, &Kind::NotFound.into(), context).await;
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
        kind: Kind,
    ) -> pingora::Result<bool> {
        context.answers_a_proxy();
        let error = believe(context).err().unwrap_or_else(|| {
            context.refuse_unread();
            kind.into()
        });
        answer(exchange, context, Err(error)).await
    }

    async fn decide_question(
        &self,
        exchange: &Exchange,
        context: &mut Context,
        non_canonical: bool,
    ) -> Result<HeaderMap, ApiError> {
        believe(context)?;
        let Ok(original) = Original::from_question(exchange.req_header()) else {
            context.refuse_unread();
            return Err(Kind::BadRequest.into());
        };
        context.note_original(original.method(), original.target());
        // An answer replaces headers by name: it cannot reach a name that only the application folds.
        if non_canonical {
            return Err(context.turn_away(Rejection::IdentityHeader));
        }
        Box::pin(decide(&self.sessions, &original, context)).await
    }
}

fn believe(context: &mut Context) -> Result<(), ApiError> {
    if context.peer_is_trusted() { Ok(()) } else { Err(context.turn_away(Rejection::UntrustedPeer)) }
}

async fn answer(
    exchange: &mut Exchange,
    context: &mut Context,
    decided: Result<HeaderMap, ApiError>,
) -> pingora::Result<bool> {
    let response = match decided {
        Ok(identity) => allowed(identity, context),
        Err(error) => denied(&error, context),
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
fn denied(error: &ApiError, context: &Context) -> Response<Bytes> {
    let mut response = render_detail(error, context.request_id());
    for name in [X_USER_ID, X_CLIENT_ID] {
        response.headers_mut().insert(name, HeaderValue::from_static(""));
    }
    response
}
