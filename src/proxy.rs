//! The guarded request, phase by phase: pingora calls these methods in the order they stand in.
//!
//! `request_filter` decides once (route, guard) and leaves a permit in the [`Context`];
//! `upstream_peer` and `upstream_request_filter` do nothing without one. What is forwarded was
//! stripped of identity headers before anything else looked at it.

pub mod connection;
pub mod context;
pub mod forward;
pub mod forward_auth;
pub mod forwarded;
pub mod gateway;
pub mod guard;
pub mod identity_headers;
pub mod metrics;
pub mod path;
pub mod policy;
pub mod respond;
pub mod route;
pub mod settings;
pub mod state;
pub mod terminate;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use bytes::Bytes;
use http::header;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::modules::http::HttpModules;
use pingora::proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session as Exchange};
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorSource, ErrorType};

use self::context::Context;
use self::forward::{fast_path, framing, transform};
use self::gateway::Gateway;
use self::guard::Rejection;
use self::route::Route;
use crate::api::{ClientAddr, What};
use crate::model::surface::SurfaceId;

/// How long a single write to a client may block.
const CLIENT_WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// How long what is left of an unwanted request body may take to arrive.
const DRAIN_BODY: Duration = Duration::from_secs(5);

#[async_trait]
impl ProxyHttp for Gateway {
    type CTX = Context;

    fn new_ctx(&self) -> Context {
        Context::new(self.state.clone())
    }

    // Compression modules and the like would only cost: the application's bytes are not ours.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn early_request_filter(&self, exchange: &mut Exchange, context: &mut Context) -> pingora::Result<()> {
        connection::mark_exchange(exchange, true);
        context.begin(exchange);
        self.set_connection_rules(exchange);
        Ok(())
    }

    async fn request_filter(&self, exchange: &mut Exchange, context: &mut Context) -> pingora::Result<bool> {
        let (settings, metrics) = (context.settings().clone(), &self.state.handles.metrics);
        let non_canonical = identity_headers::strip(exchange.req_header_mut(), context.peer_is_trusted(), metrics);
        let readable = framing::check_framing(exchange).and_then(|()| framing::rewrite_path(exchange));
        let (method, path) = (exchange.req_header().method.clone(), exchange.req_header().uri.path());
        let route = readable.map(|()| settings.routes.classify(&method, path));
        let is_check = route.as_ref().map_or_else(|_| route::is_check(path), Route::is_check);
        context.begin_trace(exchange, is_check);
        let route = match route {
            Ok(route) => route,
            Err(_) if is_check && settings.forward_auth => {
                return Box::pin(forward_auth::endpoint::refuse_unreadable(exchange, context)).await;
            }
            Err(what) => {
                context.reject(Rejection::Unreadable);
                return respond::refuse(exchange, context, &what.into()).await;
            }
        };
        context.speak(route.dialect());
        let is_served = match route {
            Route::Guard(_) | Route::Open(_) => self.upstream.exists(),
            Route::Check => settings.forward_auth,
            Route::Terminate(_) => true,
        };
        if !is_served {
            let nothing_here = What::NoRoute { path: path.to_owned(), method };
            return respond::refuse(exchange, context, &nothing_here.into()).await;
        }
        match route {
            Route::Check => return Box::pin(forward_auth::endpoint::check(exchange, context, non_canonical)).await,
            Route::Terminate(surface) => {
                return Box::pin(terminate(exchange, context, surface, &self.surfaces)).await;
            }
            Route::Open(rule) => context.open(rule),
            Route::Guard(rule) => {
                if let Err(rejection) = context.guard(rule, exchange.req_header()).await {
                    return respond::refuse(exchange, context, &rejection.problem()).await;
                }
            }
        }
        if self.announces_too_much(exchange) {
            return respond::refuse(exchange, context, &What::TooLarge.into()).await;
        }
        match self.upstream.http1_peer().filter(|_| fast_path::is_plain(exchange)) {
            Some(peer) => {
                let forwarded = self.fast_path.forward(exchange, context, &peer, &self.draining);
                Box::pin(forwarded).await.map(|()| true)
            }
            None => Ok(false),
        }
    }

    async fn upstream_peer(&self, _: &mut Exchange, context: &mut Context) -> pingora::Result<Box<HttpPeer>> {
        if context.permitted().is_none() {
            return Error::e_explain(ErrorType::InternalError, "no permit");
        }
        context.turned_to_upstream();
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
        transform::prepare_request(exchange, request, context)?;
        transform::restore_te(request, exchange.req_header())
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
        let so_far = context.count_request_bytes(body.as_ref().map_or(0, Bytes::len));
        if self.limits.body_bytes_max > 0 && so_far > self.limits.body_bytes_max {
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
        transform::filter_response(exchange, response, context, &self.draining)
    }

    async fn fail_to_proxy(&self, exchange: &mut Exchange, error: &Error, context: &mut Context) -> FailToProxy {
        let answer = if let Some(refusal) = context.ended() {
            context.reject(Rejection::Refused(refusal));
            Some(refusal.into())
        } else {
            context.upstream_failed(respond::upstream_error(error));
            respond::answer_to(error)
        };
        let written = exchange.response_written().is_some();
        let error_code = match answer.filter(|_| !written) {
            Some(answer) => {
                exchange.set_keepalive(None);
                let response = context.refuse(&answer);
                let status = response.status();
                // The client may be gone already: then the answer reaches no one, which is fine.
                let _ = respond::write(exchange, response).await;
                status.as_u16()
            }
            None => 0,
        };
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(&self, exchange: &mut Exchange, error: Option<&Error>, context: &mut Context) {
        let lingers = context.ended().is_none() && has_more_to_send(exchange, error);
        context.end(exchange.response_written().map(|head| head.status));
        if lingers {
            // Closing with bytes unread resets the connection, and the client may lose the answer
            // that it has not read yet. A client that is gone or too slow has had its chance.
            exchange.set_keepalive(None);
            let _ = exchange.downstream_session.drain_request_body().await;
        }
        connection::mark_exchange(exchange, false);
    }

    // A client that hangs up is its own business; it is in the access log.
    fn suppress_error_log(&self, _: &Exchange, context: &Context, error: &Error) -> bool {
        *error.esource() == ErrorSource::Downstream || context.ended().is_some()
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
        error.set_retry(context.may_retry());
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

    fn announces_too_much(&self, exchange: &Exchange) -> bool {
        let length = exchange.req_header().headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        self.limits.body_bytes_max > 0 && length.is_some_and(|length| length > self.limits.body_bytes_max)
    }
}

async fn terminate(
    exchange: &mut Exchange,
    context: &mut Context,
    surface: SurfaceId,
    router: &Arc<Router>,
) -> pingora::Result<bool> {
    context.is_terminated(surface);
    let (request_id, client) = (context.request_id(), context.client());
    let status = terminate::serve(exchange, router, |extensions| {
        extensions.insert(request_id);
        if let Some(client) = client {
            extensions.insert(ClientAddr(client));
        }
    });
    context.answering(status.await?);
    Ok(true)
}

// HTTP/1 only: an HTTP/2 stream ends without harm to its connection. A client that waits for
// `100 Continue` has sent nothing, and one that failed us has nothing more to send.
fn has_more_to_send(exchange: &mut Exchange, error: Option<&Error>) -> bool {
    let failed = error.is_some_and(|error| *error.esource() == ErrorSource::Downstream && !is_our_refusal(error));
    let waits = exchange.req_header().headers.contains_key(header::EXPECT) && exchange.body_bytes_read() == 0;
    let http1 = exchange.as_http1().is_some_and(|http1| !http1.was_upgraded());
    http1 && !failed && !waits && !exchange.as_mut().is_body_done()
}

fn is_our_refusal(error: &Error) -> bool {
    matches!(error.etype(), ErrorType::HTTPStatus(_))
}
