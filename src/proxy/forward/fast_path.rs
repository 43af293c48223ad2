//! The fast path: a request without a body, between an HTTP/1 client and an HTTP/1 application.
//!
//! pingora's general path joins two halves by channels, so that bodies can flow both ways, and
//! carries the spelling of every header name along. Most requests need neither, and pay for both
//! with a third of what they cost. A request that is not plain (a body, an upgrade, a hop-by-hop
//! header) goes pingora's way. Both ways must be one to the client and to the application;
//! `tests/it/direct.rs` holds them against each other.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use http::header::{self, HeaderName};
use http::{HeaderMap, Method, Request, StatusCode, Version};
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::http::v1::client::HttpSession as UpstreamSession;
use pingora::proxy::Session as Exchange;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType};

use super::pool::Pool;
use super::transform;
use super::upstream::ATTEMPTS;
use crate::proxy::context::Context;

/// Headers that Doorward adds to a request.
const ADDED: usize = 10;

/// The fast path to the application.
pub struct FastPath {
    pool: Pool,
}

impl FastPath {
    /// Returns the path, with a pool of the size that `server` says.
    pub fn new(server: &ServerConf) -> Self {
        Self { pool: Pool::new(server) }
    }

    /// Forwards a request for which [`is_plain`] holds, and its answer back.
    pub(in crate::proxy) async fn forward(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        peer: &Arc<HttpPeer>,
        draining: &AtomicBool,
    ) -> pingora::Result<()> {
        let mut attempt = 1;
        let mut upstream = loop {
            match self.ask(exchange, context, peer).await {
                Ok(upstream) => break upstream,
                Err(error) if error.retry() && attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        };
        answer(exchange, context, &mut upstream, draining).await?;
        self.pool.release(upstream, peer).await;
        Ok(())
    }

    // Says in the error whether the request may be sent again: if it never reached the application,
    // or went into a kept connection that the application was just closing.
    async fn ask(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        peer: &Arc<HttpPeer>,
    ) -> pingora::Result<UpstreamSession> {
        context.turned_to_upstream();
        let (mut upstream, reused) = unless_gone(exchange, self.pool.connect(peer)).await?;
        upstream.read_timeout = peer.options.read_timeout;
        upstream.write_timeout = peer.options.write_timeout;
        let mut head = plain_head(exchange.req_header());
        transform::prepare_request(exchange, &mut head, context)?;
        let idempotent = head.method.is_idempotent();
        let asked = async {
            upstream.write_request_header(Box::new(head)).await.map_err(Error::into_up)?;
            unless_gone(exchange, upstream.read_response()).await
        };
        match asked.await {
            Ok(_) => Ok(upstream),
            Err(mut error) => {
                error.retry.decide_reuse(reused && idempotent);
                Err(error)
            }
        }
    }
}

async fn answer(
    exchange: &mut Exchange,
    context: &mut Context,
    upstream: &mut UpstreamSession,
    draining: &AtomicBool,
) -> pingora::Result<()> {
    loop {
        let mut head = upstream
            .resp_header()
            .cloned()
            .map(Box::new)
            .ok_or_else(|| Error::explain(ErrorType::InternalError, "no response head"))?;
        let ended = upstream.is_body_done();
        frame(&mut head, &exchange.req_header().method, ended)?;
        transform::filter_response(exchange, &mut head, context, draining)?;
        let interim = head.status.is_informational();
        exchange.downstream_session.write_response_header(head).await.map_err(Error::into_down)?;
        if !interim {
            break;
        }
        unless_gone(exchange, upstream.read_response()).await?;
    }
    while !upstream.is_body_done() {
        let Some(piece) = unless_gone(exchange, upstream.read_body_bytes()).await? else { break };
        let written = exchange.downstream_session.write_response_body(piece, false).await;
        written.map_err(Error::into_down)?;
    }
    exchange.downstream_session.finish_body().await.map_err(Error::into_down)
}

/// Returns whether nothing about the request needs more than the fast path.
pub(in crate::proxy) fn is_plain(exchange: &mut Exchange) -> bool {
    let head_only = exchange.as_mut().is_body_empty();
    head_only
        && exchange.as_http1().is_some()
        && exchange.req_header().headers.iter().all(|(name, value)| match name.as_str() {
            "connection" => is_keep_alive(value.as_bytes()),
            "upgrade"
            | "expect"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "http2-settings" => false,
            _ => true,
        })
}

// What a client says of its own connection; it nominates no header.
fn is_keep_alive(connection: &[u8]) -> bool {
    connection.eq_ignore_ascii_case(b"keep-alive") || connection.eq_ignore_ascii_case(b"close")
}

fn plain_head(from: &RequestHeader) -> RequestHeader {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = from.method.clone();
    parts.uri = from.uri.clone();
    parts.version = Version::HTTP_11;
    parts.headers = HeaderMap::with_capacity(from.headers.len() + ADDED);
    for (name, value) in from.headers.iter().filter(|(name, _)| **name != header::CONNECTION) {
        parts.headers.append(name.clone(), value.clone());
    }
    parts.into()
}

// A body whose length is not known before its end is chunked, so that the connection outlives it.
fn frame(head: &mut ResponseHeader, method: &Method, ended: bool) -> pingora::Result<()> {
    const FRAMING: [HeaderName; 2] = [header::TRANSFER_ENCODING, header::CONTENT_LENGTH];
    let bodyless = *method == Method::HEAD
        || head.status.is_informational()
        || matches!(head.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodyless || ended || FRAMING.iter().any(|name| head.headers.contains_key(name)) {
        return Ok(());
    }
    head.set_version(Version::HTTP_11);
    head.insert_header(header::TRANSFER_ENCODING, "chunked")
}

// Waits for the application, unless the client leaves or its session ends, which shows in a read.
async fn unless_gone<T>(
    exchange: &mut Exchange,
    wanted: impl Future<Output = pingora::Result<T>>,
) -> pingora::Result<T> {
    tokio::select! {
        biased;
        got = wanted => got.map_err(Error::into_up),
        left = exchange.downstream_session.read_body_or_idle(true) => match left {
            Err(error) => Err(error.into_down()),
            Ok(_) => Err(Error::explain(ErrorType::ReadError, "data after the end of the request").into_down()),
        },
    }
}
