//! The guarded request, phase by phase: pingora calls these methods in the order they stand in.
//!
//! `request_filter` decides once (route, guard) and leaves a [`Permit`];
//! `upstream_peer` and `upstream_request_filter` do nothing without one. What is forwarded was
//! stripped of identity headers before anything else looked at it.

pub mod direct;
pub mod edge;
pub mod exchange;
mod framing;
pub mod guard;
pub mod headers;
mod heads;
mod lent;
pub mod respond;
pub mod route;
pub mod series;
pub mod streams;
pub mod tally;
pub mod terminate;
pub mod upstream;
pub mod verify;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, header};
use ipnet::IpNet;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session as Exchange};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};
use tokio::time::Instant;

use self::direct::Direct;
use self::exchange::{Context, RequestIds};
use self::guard::{Permit, Rejection};
use self::route::{Route, RouteTable, Rule, Surface};
use self::streams::Streams;
use self::tally::Tallies;
use self::upstream::Upstream;
use crate::api::error::Kind;
use crate::api::{ClientAddr, Error as ApiError};
use crate::config::{Cookie, IdentityHeaders, Limits};
use crate::metrics::Metrics;
use crate::session::Sessions;
use crate::telemetry::traces::Tracer;

/// How long a single write to a client may block.
const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_mins(1);
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
    /// The endpoints under `/auth`, answered here.
    pub session_exchange: Arc<Router>,
    /// The endpoint for the provider's events, answered here.
    pub webhooks: Arc<Router>,
    /// Where requests are forwarded to.
    pub upstream: Arc<Upstream>,
    /// The short way there.
    pub direct: Direct,
    /// Exchanges that are under way.
    pub streams: Arc<Streams>,
    /// Sizes, counts and deadlines.
    pub limits: Limits,
    /// Set while the process drains: every response then ends its connection.
    pub draining: Arc<AtomicBool>,
    /// Names for exchanges.
    pub request_ids: Arc<RequestIds>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// What records exchanges, if they are traced at all.
    pub tracer: Option<Arc<Tracer>>,
    /// Handles of the metrics that every exchange touches.
    pub tallies: Arc<Tallies>,
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
    /// Whether other proxies may ask.
    pub forward_auth: bool,
    /// Which share of successful exchanges is logged.
    pub access_log_sample: f64,
}

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.settings.load_full(), self.request_ids.next(), self.tallies.clone())
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
        let misspelt = headers::strip(exchange.req_header_mut(), trusted, &self.metrics);
        if let Err(kind) = framing::check_framing(exchange).and_then(|()| framing::rewrite_path(exchange)) {
            if settings.forward_auth && route::question(exchange.req_header().uri.path()).is_some() {
                return Box::pin(self.refuse_question(exchange, context, kind)).await;
            }
            context.refuse_unread();
            return refuse(exchange, &kind.into(), context).await;
        }
        let (method, path) = (exchange.req_header().method.clone(), exchange.req_header().uri.path());
        let route = settings.routes.classify(&method, path);
        if !matches!(route, Route::Terminate(_)) && !self.upstream.exists() {
            return refuse(exchange, &Kind::NotFound.into(), context).await;
        }
        let answered = match route {
            Route::Terminate(Surface::Verify) => return Box::pin(self.verify(exchange, context, misspelt)).await,
            Route::Terminate(Surface::Reserved) => return refuse(exchange, &Kind::NotFound.into(), context).await,
            Route::Terminate(Surface::SessionExchange) => {
                return Box::pin(self.terminate(exchange, context, &self.session_exchange)).await;
            }
            Route::Terminate(Surface::Webhooks) => {
                return Box::pin(self.terminate(exchange, context, &self.webhooks)).await;
            }
            Route::Open(rule) => {
                context.allow(rule, Permit::open());
                false
            }
            Route::Guard(rule) => self.guard(exchange, context, &settings, rule).await?,
        };
        if answered {
            return Ok(true);
        }
        if self.announces_too_much(exchange) {
            return refuse(exchange, &Kind::TooLarge.into(), context).await;
        }
        match self.upstream.http1_peer().filter(|_| direct::is_plain(exchange)) {
            Some(peer) => Box::pin(self.forward(exchange, context, &peer)).await.map(|()| true),
            None => Ok(false),
        }
    }

    async fn upstream_peer(&self, _: &mut Exchange, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        if context.permit.is_none() {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        }
        context.trace_upstream();
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
        heads::prepare_request(exchange, request, context)?;
        headers::restore_te(request, exchange.req_header())
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
        self.filter_response(exchange, response, context)
    }

    async fn fail_to_proxy(&self, exchange: &mut Exchange, error: &Error, context: &mut Context) -> FailToProxy {
        let refusal = if let Some(refusal) = context.ended_by(&self.sessions) {
            context.verdict = Some(Rejection::Refused(refusal).verdict());
            Some(refusal.into())
        } else {
            context.upstream_error = respond::upstream_error(error);
            respond::answer_to(error)
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
        let lingers = context.ended_by(&self.sessions).is_none() && has_more_to_say(exchange, error);
        context.finish(exchange, error, &self.metrics);
        if lingers {
            // Closing with bytes unread resets the connection, and the client may lose the answer
            // that it has not read yet. A client that is gone or too slow has had its chance.
            exchange.set_keepalive(None);
            let _ = exchange.downstream_session.drain_request_body().await;
        }
        edge::mark_exchange(exchange, false);
    }

    // A client that hangs up is its own business; it is in the access log.
    fn suppress_error_log(&self, _: &Exchange, context: &Context, error: &Error) -> bool {
        *error.esource() == ErrorSource::Downstream || context.ended_by(&self.sessions).is_some()
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
        exchange.set_write_timeout(Some(CLIENT_WRITE_TIMEOUT));
        exchange.set_total_drain_timeout(Some(DRAIN_BODY));
    }

    async fn guard(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        settings: &Settings,
        rule: &Arc<Rule>,
    ) -> pingora::Result<bool> {
        let head = exchange.req_header();
        let generation = self.sessions.revocations().vouched_generation();
        let started = Instant::now();
        let asked = guard::authorize_and_extend(&self.sessions, &rule.policy, head, &settings.cookie);
        let (decided, calls) = asked.await;
        context.trace_store(calls);
        context.decided(&decided, started);
        match decided {
            Ok(permit) => {
                context.hold(&permit, generation);
                context.allow(rule, permit);
                // Only now is a revocation sure to be noticed by the sweep; look for one that came before.
                if let Some(refusal) = context.ended_by(&self.sessions) {
                    context.deny(rule, Rejection::Refused(refusal));
                    return refuse(exchange, &refusal.into(), context).await;
                }
                Ok(false)
            }
            Err(rejection) => {
                context.deny(rule, rejection);
                refuse(exchange, &rejection.error(), context).await
            }
        }
    }

    fn announces_too_much(&self, exchange: &Exchange) -> bool {
        let length = exchange.req_header().headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        self.limits.body_bytes_max > 0 && length.is_some_and(|length| length > self.limits.body_bytes_max)
    }

    async fn terminate(
        &self,
        exchange: &mut Exchange,
        context: &mut Context,
        router: &Arc<Router>,
    ) -> pingora::Result<bool> {
        context.handler = "auth";
        let (request_id, client) = (context.request_id(), context.client);
        let status = terminate::serve(exchange, router, |extensions| {
            extensions.insert(request_id);
            if let Some(client) = client {
                extensions.insert(ClientAddr(client));
            }
        });
        context.status = Some(status.await?);
        Ok(true)
    }
}

// Boxed: pingora moves the future of `request_filter` about, and one that held the writing of a
// response would be several times the size.
fn refuse<'a>(
    exchange: &'a mut Exchange,
    error: &'a ApiError,
    context: &mut Context,
) -> BoxFuture<'a, pingora::Result<bool>> {
    context.status = Some(error.kind.status());
    let request_id = context.request_id();
    Box::pin(async move {
        respond::refuse(exchange, error, request_id).await?;
        Ok(true)
    })
}

// HTTP/1 only: an HTTP/2 stream ends without harm to its connection. A client that waits for
// `100 Continue` has sent nothing, and one that failed us has nothing more to say.
fn has_more_to_say(exchange: &mut Exchange, error: Option<&Error>) -> bool {
    let failed = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream && !is_our_refusal(error));
    let waits = exchange.req_header().headers.contains_key(header::EXPECT) && exchange.body_bytes_read() == 0;
    let http1 = exchange.as_http1().is_some_and(|http1| !http1.was_upgraded());
    http1 && !failed && !waits && !exchange.as_mut().is_body_done()
}

fn is_our_refusal(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::HTTPStatus(_))
}

fn is_tls(exchange: &Exchange) -> bool {
    exchange.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

/// Returns the client's address as trusted proxies tell it.
fn client_of(head: &HeaderMap, peer: Option<std::net::IpAddr>, trusted: &[IpNet]) -> Option<std::net::IpAddr> {
    peer.map(|peer| headers::client_address(head, peer, trusted))
}
