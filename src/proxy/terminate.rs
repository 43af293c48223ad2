//! Hands a request to an axum router in this process and its answer back, streaming both ways.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, HeaderName, Method, Request, Response, StatusCode, Version, header};
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt, StreamBody};
use pingora::http::ResponseHeader;
use pingora::proxy::Session as Exchange;
use pingora::{Error, ErrorType};
use tokio::sync::mpsc;
use tower::ServiceExt;

type Chunk = Result<Frame<Bytes>, std::io::Error>;

/// Chunks of the request body that wait for the handler.
const QUEUE: usize = 2;

/// Answers the exchange from `router`. `extend` may add extensions to the request.
pub(super) async fn serve(
    exchange: &mut Exchange,
    router: &Arc<Router>,
    extend: impl FnOnce(&mut http::Extensions),
) -> pingora::Result<StatusCode> {
    let mut request = head_of(exchange);
    extend(request.extensions_mut());
    let router = Router::clone(router);
    if exchange.as_mut().is_body_empty() {
        let response = infallible(router.oneshot(request.map(|()| Body::empty())).await);
        return write(exchange, response).await;
    }
    if request.headers().contains_key(header::EXPECT) {
        // Writing the 100 with the body unread makes pingora give up the connection: not yet.
        let keepalive = exchange.get_keepalive();
        exchange.write_continue_response().await?;
        exchange.set_keepalive(keepalive);
    }
    let (sender, receiver) = mpsc::channel::<Chunk>(QUEUE);
    let body = stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|chunk| (chunk, receiver)) });
    let handler = router.oneshot(request.map(|()| Body::new(StreamBody::new(body))));
    tokio::pin!(handler);
    let mut sender = Some(sender);
    let response = loop {
        tokio::select! {
            biased;
            response = &mut handler => break infallible(response),
            pumped = pump(exchange, sender.as_ref()), if sender.is_some() => {
                if !pumped? {
                    sender = None;
                }
            }
        }
    };
    if sender.is_some() {
        // The handler did not want the rest: what is left must not be read as the next request.
        exchange.set_keepalive(None);
    }
    write(exchange, response).await
}

fn head_of(exchange: &Exchange) -> Request<()> {
    let head = exchange.req_header();
    let mut request = Request::new(());
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = head.uri.clone();
    *request.version_mut() = head.version;
    *request.headers_mut() = head.headers.clone();
    request
}

// Moves one chunk of the request body; `false` when there is no more to move. The place in the
// queue is taken first: waiting for it holds no data, so this may be cancelled at any point.
async fn pump(exchange: &mut Exchange, sender: Option<&mpsc::Sender<Chunk>>) -> pingora::Result<bool> {
    let Some(sender) = sender else { return Ok(false) };
    let Ok(place) = sender.reserve().await else { return Ok(false) };
    // pingora does not say whose fault it is: a body that breaks off or is framed wrongly is the client's.
    let read = exchange.downstream_session.read_request_body().await.map_err(Error::into_down)?;
    let Some(bytes) = read else { return Ok(false) };
    place.send(Ok(Frame::data(bytes)));
    Ok(!exchange.downstream_session.is_body_done())
}

async fn write(exchange: &mut Exchange, response: Response<Body>) -> pingora::Result<StatusCode> {
    let (parts, mut body) = response.into_parts();
    let bodyless = exchange.req_header().method == Method::HEAD
        || matches!(parts.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let length = body.size_hint().exact();
    let head = head_for(&parts.headers, parts.status, exchange.req_header().version, length, bodyless)?;
    exchange.write_response_header(Box::new(head), bodyless).await?;
    if bodyless {
        return Ok(parts.status);
    }
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Error::because(ErrorType::InternalError, "response body", error))?;
        if let Ok(bytes) = frame.into_data() {
            exchange.write_response_body(Some(bytes), body.is_end_stream()).await?;
        }
    }
    exchange.write_response_body(None, true).await?;
    Ok(parts.status)
}

fn head_for(
    headers: &HeaderMap,
    status: StatusCode,
    version: Version,
    length: Option<u64>,
    bodyless: bool,
) -> pingora::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(status, Some(headers.len() + 1))?;
    // RFC 9110 §8.6: a 204 has no Content-Length, and axum has put one there.
    let wanted = |name: &HeaderName| status != StatusCode::NO_CONTENT || name != header::CONTENT_LENGTH;
    for (name, value) in headers.iter().filter(|(name, _)| wanted(name)) {
        head.append_header(name.clone(), value.clone())?;
    }
    let framed = bodyless || headers.contains_key(header::CONTENT_LENGTH);
    match length {
        _ if framed => {}
        Some(length) => head.insert_header(header::CONTENT_LENGTH, length)?,
        // Without either, pingora frames an HTTP/1 response by closing the connection.
        None if version <= Version::HTTP_11 => head.insert_header(header::TRANSFER_ENCODING, "chunked")?,
        None => {}
    }
    Ok(head)
}

fn infallible<T>(result: Result<T, std::convert::Infallible>) -> T {
    match result {
        Ok(value) => value,
        Err(never) => match never {},
    }
}
