//! What is changed in the head of a request and in that of its answer, on the fast path and on pingora's.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{StatusCode, Version, header};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::proxy::Session as Exchange;
use pingora::{Error, ErrorType};

use crate::proxy::context::Context;
use crate::proxy::{forwarded, identity_headers};
use crate::wire::headers::X_REQUEST_ID;

/// Makes `response` what the client gets; an error where it may get none. While the process is
/// `draining`, it ends the connection.
pub(in crate::proxy) fn filter_response(
    exchange: &mut Exchange,
    response: &mut ResponseHeader,
    context: &mut Context,
    draining: &AtomicBool,
) -> pingora::Result<()> {
    // Revoked while the application was thinking: the answer is no longer this caller's.
    if context.ended().is_some() {
        return Error::e_explain(ErrorType::HTTPStatus(401), "session ended");
    }
    // RFC 9110 §7.8: a server must not switch to a protocol that the client did not ask for.
    if response.status == StatusCode::SWITCHING_PROTOCOLS && !exchange.is_upgrade_req() {
        return Err(Error::explain(ErrorType::InvalidHTTPHeader, "101 to a request for no upgrade").into_up());
    }
    let interim = response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS;
    if !interim {
        context.forwarding_answer(response.status);
    }
    for name in &identity_headers::IDENTITY_IN_RESPONSES {
        response.remove_header(name);
    }
    response.insert_header(X_REQUEST_ID, context.request_id_value())?;
    if response.status.is_informational() {
        // Writing it with the body unread makes pingora give up the connection: not yet.
        context.remember_keepalive(exchange.get_keepalive());
    } else if draining.load(Ordering::Relaxed) {
        exchange.set_keepalive(None);
    } else if let Some(keepalive) = context.take_keepalive() {
        exchange.set_keepalive(Some(keepalive));
    }
    Ok(())
}

/// Makes `request` what the application gets. Nothing goes there without a permit.
pub(in crate::proxy) fn prepare_request(
    exchange: &Exchange,
    request: &mut RequestHeader,
    context: &mut Context,
) -> pingora::Result<()> {
    let Some((permit, rule)) = context.permitted() else {
        return Error::e_explain(ErrorType::InternalError, "no permit");
    };
    let settings = context.settings();
    if !rule.policy.keep_credentials {
        identity_headers::strip_credentials(request, &settings.cookie.name)?;
    }
    identity_headers::inject(request, permit, settings.identity_headers)?;
    let tls = forwarded::is_tls(exchange);
    forwarded::forward(request, context.peer_value(), context.peer_is_trusted(), tls)?;
    request.insert_header(X_REQUEST_ID, context.request_id_value())?;
    context.forwarded(request)
}

/// Gives an HTTP/2 upstream the one `TE` that HTTP/2 knows (RFC 9113 §8.2.2), which gRPC asks for:
/// pingora has removed it from the `request` that it made of what was `received`.
pub(in crate::proxy) fn restore_te(request: &mut RequestHeader, received: &RequestHeader) -> pingora::Result<()> {
    let trailers = received.headers.get(header::TE).filter(|te| *te == "trailers");
    match trailers {
        Some(trailers) if request.version == Version::HTTP_2 && received.version == Version::HTTP_2 => {
            request.insert_header(header::TE, trailers.clone())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> RequestHeader {
        let mut request = RequestHeader::build("GET", b"/", None).unwrap();
        for (name, text) in headers {
            request.append_header(*name, *text).unwrap();
        }
        request
    }

    #[test]
    fn only_http2_to_http2_keeps_the_te_that_grpc_asks_for() {
        for (te, received, sent, kept) in [
            ("trailers", Version::HTTP_2, Version::HTTP_2, true),
            ("trailers", Version::HTTP_2, Version::HTTP_11, false),
            ("trailers", Version::HTTP_11, Version::HTTP_2, false),
            ("gzip", Version::HTTP_2, Version::HTTP_2, false),
        ] {
            let (mut from, mut to) = (request(&[("te", te)]), request(&[]));
            from.set_version(received);
            to.set_version(sent);
            restore_te(&mut to, &from).unwrap();
            assert_eq!(to.headers.contains_key("te"), kept, "{te} {received:?} {sent:?}");
        }
    }
}
