//! What is changed in the heads of a request and its answer, whichever way they take.

use std::sync::atomic::Ordering;

use http::StatusCode;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session as Exchange;
use pingora::{Error, ErrorType};

use crate::proxy::context::Context;
use crate::proxy::{Gateway, identity_headers as headers, is_tls};

impl Gateway {
    /// Makes `response` what the client gets; an error where it may get none.
    pub(in crate::proxy) fn filter_response(
        &self,
        exchange: &mut Exchange,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        // Revoked while the application was thinking: the answer is no longer this caller's.
        if context.ended_by(&self.sessions).is_some() {
            return Error::e_explain(ErrorType::HTTPStatus(401), "session ended");
        }
        // RFC 9110 §7.8: a server must not switch to a protocol that the client did not ask for.
        if response.status == StatusCode::SWITCHING_PROTOCOLS && !exchange.is_upgrade_req() {
            return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to a request for no upgrade").into_up());
        }
        let informational = response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS;
        if !informational {
            context.answering();
            context.trace_answer(response.status);
        }
        for name in &headers::IDENTITY_IN_RESPONSES {
            response.remove_header(name);
        }
        response.insert_header(headers::X_REQUEST_ID, context.request_id_value())?;
        if response.status.is_informational() {
            // Writing it with the body unread makes pingora give up the connection: not yet.
            context.keepalive = context.keepalive.or(exchange.get_keepalive());
        } else if self.draining.load(Ordering::Relaxed) {
            exchange.set_keepalive(None);
        } else if context.keepalive.is_some() {
            exchange.set_keepalive(context.keepalive.take());
        }
        Ok(())
    }
}

/// Makes `request` what the application gets. Nothing goes there without a permit.
pub(in crate::proxy) fn prepare_request(
    exchange: &Exchange,
    request: &mut RequestHeader,
    context: &mut Context,
) -> pingora::Result<()> {
    let (Some(permit), Some(rule)) = (&context.permit, &context.rule) else {
        return Error::e_explain(ErrorType::InternalError, "no permit");
    };
    if !rule.policy.keep_credentials {
        headers::strip_credentials(request, &context.settings.cookie.name)?;
    }
    headers::inject(request, permit, context.settings.identity_headers)?;
    headers::forward(request, context.peer_value(), context.peer_is_trusted(), is_tls(exchange))?;
    request.insert_header(headers::X_REQUEST_ID, context.request_id_value())?;
    context.propagate(request)?;
    context.forwarded();
    Ok(())
}
