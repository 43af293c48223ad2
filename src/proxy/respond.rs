//! Answers that the proxy writes itself.

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Method, Response, header};
use pingora::http::ResponseHeader;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::proxy::Session as Exchange;
use pingora::{ErrorSource, ErrorType};

use super::context::Context;
use crate::api::problem::{Awaited, Problem, What};
use crate::api::{Dialect, RequestId};
use crate::session::Refusal;

/// Writes the answer that tells the caller of `problem`. The connection stays usable if nothing speaks against it.
///
/// Boxed: pingora moves the future of `request_filter` about, and one that held the writing of a
/// response would be several times the size.
pub(super) fn refuse<'a>(
    exchange: &'a mut Exchange,
    context: &mut Context,
    problem: &Problem,
) -> BoxFuture<'a, pingora::Result<bool>> {
    let response = context.refuse(problem);
    Box::pin(async move { write(exchange, response).await.map(|()| true) })
}

/// Writes a whole response.
pub(super) async fn write(exchange: &mut Exchange, response: Response<Bytes>) -> pingora::Result<()> {
    let (head, body) = head_and_body(response)?;
    // A body that stays unread must not be taken for the next request.
    if !exchange.as_mut().is_body_empty() {
        exchange.set_keepalive(None);
    }
    let bodyless = exchange.req_header().method == Method::HEAD || body.is_empty();
    exchange.write_response_header(head, bodyless).await?;
    if bodyless { Ok(()) } else { exchange.write_response_body(Some(body), true).await }
}

/// Refuses on an HTTP/2 stream that no exchange carries any longer, unless it was answered.
pub(in crate::proxy) async fn refuse_stream(
    stream: &mut HttpSession,
    refusal: Refusal,
    dialect: Dialect,
    request_id: RequestId,
) -> pingora::Result<()> {
    if stream.response_written().is_some() {
        return Ok(());
    }
    let (head, body) = head_and_body(dialect.render(&refusal.into(), request_id))?;
    let bodyless = stream.req_header().method == Method::HEAD || body.is_empty();
    stream.write_response_header(head, bodyless)?;
    if bodyless { Ok(()) } else { stream.write_body(body, true).await }
}

fn head_and_body(response: Response<Bytes>) -> pingora::Result<(Box<ResponseHeader>, Bytes)> {
    let (parts, body) = response.into_parts();
    let mut head = ResponseHeader::build(parts.status, Some(parts.headers.len() + 1))?;
    for (name, value) in &parts.headers {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header(header::CONTENT_LENGTH, body.len())?;
    Ok((Box::new(head), body))
}

/// Returns what to tell the caller of a failure; `None` when the client is gone.
pub(super) fn answer_to(error: &pingora::Error) -> Option<Problem> {
    let what = match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(413), _) => What::TooLarge,
        (ErrorType::HTTPStatus(401), _) => return Some(Refusal::Revoked.into()),
        (ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed, ErrorSource::Downstream) => {
            return None;
        }
        (_, ErrorSource::Downstream) => What::BadRequest,
        (ErrorType::ReadTimedout | ErrorType::WriteTimedout, ErrorSource::Upstream) => {
            What::TimedOut(Awaited::Application)
        }
        (_, ErrorSource::Upstream) => What::BadGateway(Awaited::Application),
        _ => What::Internal,
    };
    Some(what.into())
}

/// Returns the metric label of a failure on the application's side.
pub(super) fn upstream_error(error: &pingora::Error) -> Option<&'static str> {
    if *error.esource() != ErrorSource::Upstream {
        return None;
    }
    Some(match error.etype() {
        ErrorType::ConnectTimedout
        | ErrorType::ConnectRefused
        | ErrorType::ConnectNoRoute
        | ErrorType::ConnectError
        | ErrorType::SocketError => "connect",
        ErrorType::TLSHandshakeFailure | ErrorType::TLSHandshakeTimedout | ErrorType::InvalidCert => "tls",
        ErrorType::ReadTimedout | ErrorType::WriteTimedout => "timeout",
        ErrorType::ConnectionClosed | ErrorType::ReadError | ErrorType::WriteError => "reset",
        _ => "protocol",
    })
}
