//! The guarded request, phase by phase: pingora calls these methods in the order they stand in.
//!
//! `request_filter` decides once (route, guard) and leaves a [`Permit`](guard::Permit);
//! `upstream_peer` and `upstream_request_filter` do nothing without one. What is forwarded was
//! stripped of identity headers before anything else looked at it.

pub mod edge;
pub mod exchange;
pub mod guard;
pub mod headers;
pub mod respond;
pub mod route;
pub mod series;
pub mod streams;
pub mod terminate;
pub mod upstream;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use http::{HeaderMap, Version, header};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session as Exchange};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use tokio::time::Instant;

use self::exchange::{Context, RequestIds};
use self::guard::{Permit, Rejection};
use self::route::{Route, RouteTable, Rule};
use self::streams::Streams;
use self::upstream::Upstream;
use crate::api::error::Kind;
use crate::api::{ClientAddr, Error as ApiError};
use crate::config::{Cookie, IdentityHeaders, Limits};
use crate::metrics::Metrics;
use crate::session::{Refusal, Sessions};
use crate::time::Clock;

/// How long what is left of an unwanted request body may take to arrive.
const DRAIN_BODY: Duration = Duration::from_secs(5);
/// pingora counts attempts, and a request that was sent may not be sent again.
pub(crate) const ATTEMPTS: usize = 2;

/// The proxy's application.
pub struct Gateway {
    /// What a reload replaces.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The sessions service.
    pub sessions: Arc<Sessions>,
    /// The endpoints answered here.
    pub surfaces: Arc<Router>,
    /// Where requests are forwarded to.
    pub upstream: Arc<Upstream>,
    /// Exchanges that are under way.
    pub streams: Arc<Streams>,
    /// Sizes, counts and deadlines.
    pub limits: Limits,
    /// Set while the process drains: every response then ends its connection.
    pub draining: Arc<AtomicBool>,
    /// Names for exchanges.
    pub request_ids: RequestIds,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// What a reload replaces.
#[derive(Debug)]
pub struct Settings {
    /// What a path needs.
    pub routes: RouteTable,
    /// Which identity headers go upstream.
    pub identity_headers: IdentityHeaders,
    /// The cookie that may carry a token.
    pub cookie: Cookie,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Which share of successful exchanges is logged.
    pub access_log_sample: f64,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self)
    }

    // Compression modules and the like would only cost: the application's bytes are not ours.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, exchange: &mut Exchange, context: &mut Context) -> pingora::Result<()> {
        edge::mark_exchange(exchange, true);
        context.begin(exchange, self);
        self.set_connection_rules(exchange);
        Ok(())
    }

    async fn request_filter(&self, exchange: &mut Exchange, context: &mut Context) -> pingora::Result<bool> {
        let settings = context.settings.clone();
        let trusted = context.peer_is_trusted();
        headers::strip(exchange.req_header_mut(), trusted, &self.metrics);
        if let Err(kind) = check_framing(exchange).and_then(|()| rewrite_path(exchange)) {
            context.refuse_unread();
            return self.refuse(exchange, &kind.into(), context).await;
        }
        let (method, path) = (exchange.req_header().method.clone(), exchange.req_header().uri.path());
        match settings.routes.classify(&method, path) {
            Route::Terminate(_) => Box::pin(self.terminate(exchange, context)).await,
            Route::Open(rule) => {
                context.allow(rule, Permit::open());
                Ok(false)
            }
            Route::Guard(rule) => self.guard(exchange, context, rule).await,
        }
    }

    async fn upstream_peer(&self, _: &mut Exchange, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        if context.permit.is_none() {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        }
        self.upstream
            .peer()
            .ok_or_else(|| Error::explain(ErrorType::ConnectNoRoute, "upstream host does not resolve").into_up())
    }

    async fn upstream_request_filter(
        &self,
        exchange: &mut Exchange,
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
        headers::forward(request, context.peer, is_tls(exchange))?;
        request.insert_header(headers::X_REQUEST_ID, context.request_id_value())?;
        context.forwarded();
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _: &mut Exchange,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        context: &mut Context,
    ) -> pingora::Result<()> {
        // An empty last chunk from HTTP/2 would end an HTTP/1 upstream's chunked body twice, and
        // the second end would begin the next caller's response (cloudflare/pingora#935).
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        context.request_bytes += body.as_ref().map_or(0, |bytes| bytes.len() as u64);
        if self.limits.body_bytes_max > 0 && context.request_bytes > self.limits.body_bytes_max {
            return Err(Error::explain(ErrorType::HTTPStatus(413), "request body too large").into_down());
        }
        Ok(())
    }

    async fn response_filter(
        &self,
        exchange: &mut Exchange,
        response: &mut ResponseHeader,
        context: &mut Context,
    ) -> pingora::Result<()> {
        // Revoked while the application was thinking: the answer is no longer this caller's.
        if context.session_has_ended(&self.sessions) {
            return Error::e_explain(ErrorType::HTTPStatus(401), "session ended");
        }
        for name in [headers::X_USER_ID, headers::X_CLIENT_ID] {
            if response.headers.contains_key(&name) {
                response.remove_header(&name);
            }
        }
        response.insert_header(headers::X_REQUEST_ID, context.request_id_value())?;
        if self.draining.load(Ordering::Relaxed) && response.status.as_u16() >= 200 {
            exchange.set_keepalive(None);
        }
        Ok(())
    }

    async fn fail_to_proxy(&self, exchange: &mut Exchange, error: &Error, context: &mut Context) -> FailToProxy {
        let refusal = if context.session_has_ended(&self.sessions) {
            context.verdict = Some(Rejection::Refused(Refusal::Revoked).verdict());
            Some(Refusal::Revoked.into())
        } else {
            context.upstream_error = upstream_error(error);
            answer_to(error)
        };
        let written = exchange.response_written().is_some();
        let error_code = match refusal.filter(|_| !written) {
            Some(refusal) => {
                exchange.set_keepalive(None);
                context.status = Some(refusal.kind.status());
                // The client may be gone already; there is nobody left to tell.
                let _ = respond::refuse(exchange, &refusal, context.request_id()).await;
                refusal.kind.status().as_u16()
            }
            None => 0,
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, exchange: &mut Exchange, error: Option<&Error>, context: &mut Context) {
        context.finish(exchange, error, &self.metrics);
        edge::mark_exchange(exchange, false);
    }

    // A client that hangs up is its own business; it is in the access log.
    fn suppress_error_log(&self, _: &Exchange, context: &Context, error: &Error) -> bool {
        *error.esource() == ErrorSource::Downstream || context.session_has_ended(&self.sessions)
    }

    fn suppress_proxy_warn_log(&self, _: &Exchange, _: &Context, _: &Error, _: ProxyWarnLogContext) -> bool {
        true
    }

    // pingora's own summary would put the query string into the error log.
    fn request_summary(&self, exchange: &Exchange, context: &Context) -> String {
        let head = exchange.req_header();
        format!("{} {}, request {}", head.method, head.uri.path(), context.request_id())
    }

    fn fail_to_connect(
        &self,
        _: &mut Exchange,
        _: &HttpPeer,
        context: &mut Context,
        mut error: Box<Error>,
    ) -> Box<Error> {
        // Nothing was sent, so a second attempt cannot do anything twice.
        error.set_retry(!std::mem::replace(&mut context.retried, true));
        error
    }
}

impl Gateway {
    fn set_connection_rules(&self, exchange: &mut Exchange) {
        // `None` here is the parser's word that this connection must close (CL+TE, HTTP/1.0,
        // `Connection: close`): never overrule it.
        if exchange.get_keepalive().is_some() {
            let keepalive = (!self.draining.load(Ordering::Relaxed)).then_some(self.limits.keepalive.as_secs());
            exchange.set_keepalive(keepalive);
        }
        exchange.set_read_timeout(Some(self.limits.body_read_timeout));
        exchange.set_write_timeout(Some(self.limits.write_timeout));
        exchange.set_total_drain_timeout(Some(DRAIN_BODY));
    }

    async fn guard(&self, exchange: &mut Exchange, context: &mut Context, rule: &Arc<Rule>) -> pingora::Result<bool> {
        let head = exchange.req_header();
        let generation = self.sessions.revocations().generation();
        let started = Instant::now();
        let settings = context.settings.clone();
        let decided =
            guard::authorize(&self.sessions, &rule.policy, &head.method, &head.headers, &settings.cookie).await;
        let decided = match decided {
            Ok(permit) if rule.policy.stream => self.extend(permit).await,
            other => other,
        };
        context.decided(&decided, started);
        match decided {
            Ok(permit) => {
                context.hold(&permit, generation);
                context.allow(rule, permit);
                // Only now is a revocation sure to be noticed by the sweep; look for one that came before.
                if context.session_has_ended(&self.sessions) {
                    context.deny(rule, Rejection::Refused(Refusal::Revoked));
                    return self.refuse(exchange, &Refusal::Revoked.into(), context).await;
                }
                Ok(false)
            }
            Err(rejection) => {
                context.deny(rule, rejection);
                self.refuse(exchange, &rejection.error(), context).await
            }
        }
    }

    async fn extend(&self, permit: Permit) -> Result<Permit, Rejection> {
        let Some(session) = permit.session() else { return Ok(permit) };
        let extended = self.sessions.extend(session).await.map_err(Rejection::Refused)?;
        Ok(permit.extended(extended))
    }

    async fn terminate(&self, exchange: &mut Exchange, context: &mut Context) -> pingora::Result<bool> {
        context.handler = "auth";
        let (request_id, client) = (context.request_id(), context.client);
        let status = terminate::serve(exchange, &self.surfaces, |extensions| {
            extensions.insert(request_id);
            if let Some(client) = client {
                extensions.insert(ClientAddr(client));
            }
        });
        context.status = Some(status.await?);
        Ok(true)
    }

    async fn refuse(&self, exchange: &mut Exchange, error: &ApiError, context: &mut Context) -> pingora::Result<bool> {
        context.status = Some(error.kind.status());
        respond::refuse(exchange, error, context.request_id()).await?;
        Ok(true)
    }
}

// RFC 9112 §6.3 would let Transfer-Encoding win over Content-Length; whoever sends both is trying
// to make two servers disagree. pingora has removed the Content-Length by now: the bytes have it.
fn check_framing(exchange: &Exchange) -> Result<(), Kind> {
    let head = exchange.req_header();
    let hosts = head.headers.get_all(header::HOST).iter().count();
    let needs_host = head.version == Version::HTTP_11;
    if hosts > 1 || (needs_host && hosts == 0) {
        return Err(Kind::BadRequest);
    }
    let Some(http1) = exchange.as_http1() else { return check_http2(head) };
    if !head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut encodings = head.headers.get_all(header::TRANSFER_ENCODING).iter();
    let chunked_only = encodings.next().is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"chunked"));
    let sane = chunked_only && encodings.next().is_none() && head.version == Version::HTTP_11;
    if sane && !names_content_length(&http1.get_headers_raw_bytes()) { Ok(()) } else { Err(Kind::BadRequest) }
}

// RFC 9113 §8.2.2 and §8.3.1.
fn check_http2(head: &RequestHeader) -> Result<(), Kind> {
    let connection_specific = [header::CONNECTION, header::TRANSFER_ENCODING, header::UPGRADE];
    let host_agrees = match (head.headers.get(header::HOST), head.uri.authority()) {
        (Some(host), Some(authority)) => host.as_bytes().eq_ignore_ascii_case(authority.as_str().as_bytes()),
        _ => true,
    };
    let clean = !connection_specific.iter().any(|name| head.headers.contains_key(name));
    if host_agrees && clean { Ok(()) } else { Err(Kind::BadRequest) }
}

fn names_content_length(head: &[u8]) -> bool {
    const NAME: &[u8] = b"content-length";
    head.split(|byte| *byte == b'\n').any(|line| {
        let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
        name.trim_ascii().eq_ignore_ascii_case(NAME)
    })
}

// From here on there is one path: the one that the rules see is the one that is forwarded.
fn rewrite_path(exchange: &mut Exchange) -> Result<(), Kind> {
    let head = exchange.req_header();
    let raw = head.raw_path();
    if !head.raw_path_is_utf8() || raw.contains(&b'#') {
        return Err(Kind::BadRequest);
    }
    let absolute_form = !raw.starts_with(b"/");
    if absolute_form && exchange.as_http1().is_some() && !authority_is_host(head) {
        return Err(Kind::BadRequest);
    }
    let path = head.uri.path();
    let normal = route::normalise(path).map_err(|_| Kind::BadRequest)?;
    if !absolute_form && normal == path {
        return Ok(());
    }
    let target = match head.uri.query() {
        Some(query) => format!("{normal}?{query}"),
        None => normal.into_owned(),
    };
    let mut parts = head.uri.clone().into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| Kind::BadRequest)?);
    if exchange.as_http1().is_some() {
        (parts.scheme, parts.authority) = (None, None);
    }
    let uri = http::Uri::from_parts(parts).map_err(|_| Kind::BadRequest)?;
    exchange.req_header_mut().set_uri(uri);
    Ok(())
}

fn authority_is_host(head: &RequestHeader) -> bool {
    let authority = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    let host = head.headers.get(header::HOST).map(http::HeaderValue::as_bytes);
    matches!((authority, host), (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host))
}

fn is_tls(exchange: &Exchange) -> bool {
    exchange.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

// `None`: the client is gone and cannot be answered.
fn answer_to(error: &Error) -> Option<ApiError> {
    let kind = match (error.etype(), error.esource()) {
        (ErrorType::HTTPStatus(413), _) => Kind::TooLarge,
        (ErrorType::HTTPStatus(401), _) => return Some(Refusal::Revoked.into()),
        (ErrorType::ReadError | ErrorType::WriteError | ErrorType::ConnectionClosed, ErrorSource::Downstream) => {
            return None;
        }
        (_, ErrorSource::Downstream) => Kind::BadRequest,
        (ErrorType::ReadTimedout | ErrorType::WriteTimedout, ErrorSource::Upstream) => Kind::GatewayTimeout,
        (_, ErrorSource::Upstream) => Kind::BadGateway,
        _ => Kind::Internal,
    };
    Some(kind.into())
}

fn upstream_error(error: &Error) -> Option<&'static str> {
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

/// Returns the client's address as trusted proxies tell it.
fn client_of(head: &HeaderMap, peer: Option<std::net::IpAddr>, trusted: &[IpNet]) -> Option<std::net::IpAddr> {
    peer.map(|peer| headers::client_address(head, peer, trusted))
}
