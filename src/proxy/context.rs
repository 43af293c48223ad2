//! What is known about one exchange, from its head to its line in the access log.
//!
//! The decision about an exchange is fixed when the head of its answer is about to be sent, and
//! counted then; `Context::end` writes metrics, access line and trace from one value, once.

mod check;
mod record;
mod trace;

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use pingora::http::RequestHeader;
use pingora::proxy::Session as Exchange;
use tokio::time::Instant;

use self::record::{Completion, RequestLine};
use self::trace::{RequestMeta, Trace};
use super::connection::session_watch::Watch;
use super::forward::upstream::ATTEMPTS;
use super::forwarded::{Peer, is_tls, peer_of};
use super::guard::{self, Decision, Guarded, Permit, Rejection};
use super::metrics::PROXY;
use super::route::Rule;
use super::settings::Settings;
use super::state::GatewayState;
use crate::api::{Dialect, Problem, RequestId};
use crate::model::surface::SurfaceId;
use crate::session::Refusal;
use crate::telemetry::access::Outcome;
use crate::telemetry::traces::TRACEPARENT;

/// What is known about one exchange.
pub struct Context {
    state: Arc<GatewayState>,
    settings: Arc<Settings>,
    request_id: RequestId,
    /// How a refusal is told: the route's way, once the route is known.
    dialect: Dialect,
    started: Instant,
    handler: &'static str,
    peer: Option<Peer>,
    peer_is_trusted: bool,
    client: Option<IpAddr>,
    watch: Option<Arc<Watch>>,
    /// True on HTTP/2: the stream survives dropping this exchange, so the 401 can still be sent on it.
    survives_cut: bool,
    /// There from the request's head until the exchange has ended.
    line: Option<RequestLine>,
    trace: Option<Trace>,
    rule: Option<Arc<Rule>>,
    permit: Option<Permit>,
    decision: Option<Decision>,
    /// Whether the decision is counted: nothing changes it any more.
    settled: bool,
    status: Option<StatusCode>,
    request_bytes: u64,
    forwarded_at: Option<Instant>,
    upstream_error: Option<&'static str>,
    failed_attempts: usize,
    /// How long the connection was to be kept before an interim answer made pingora forget it.
    keepalive: Option<u64>,
}

/// From the head of a request to the guard's decision.
impl Context {
    /// Begins with nothing but a name.
    pub(super) fn new(state: Arc<GatewayState>) -> Self {
        Self {
            settings: state.settings.load_full(),
            request_id: RequestId::from(state.request_ids.next()),
            dialect: Dialect::default(),
            state,
            started: Instant::now(),
            handler: PROXY,
            peer: None,
            peer_is_trusted: false,
            client: None,
            watch: None,
            survives_cut: false,
            line: None,
            trace: None,
            rule: None,
            permit: None,
            decision: None,
            settled: false,
            status: None,
            request_bytes: 0,
            forwarded_at: None,
            upstream_error: None,
            failed_attempts: 0,
            keepalive: None,
        }
    }

    /// Records what the head of a request on the proxy port says about where it comes from.
    pub(super) fn begin(&mut self, exchange: &Exchange) {
        let head = exchange.req_header();
        self.watch = Watch::current();
        self.survives_cut = exchange.as_custom().is_some();
        let line = RequestLine {
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            traceparent: head.headers.get(TRACEPARENT).cloned(),
        };
        self.enter(peer_of(exchange), line);
        self.client = self.client_behind(&head.headers, self.peer.and_then(Peer::address));
    }

    fn enter(&mut self, peer: Option<Peer>, line: RequestLine) {
        self.peer = peer;
        self.peer_is_trusted = peer.is_some_and(|peer| self.settings.trusted_proxies.trusts(peer));
        self.line = Some(line);
        self.state.session_watch.exchange_began();
        self.state.handles.in_flight(self.handler).inc();
    }

    fn client_behind(&self, head: &HeaderMap, peer: Option<IpAddr>) -> Option<IpAddr> {
        peer.map(|peer| self.settings.trusted_proxies.client_address(head, peer))
    }

    /// Begins the trace of a request on the proxy port, once it is known whether it is a forward-auth check.
    pub(super) fn begin_trace(&mut self, exchange: &Exchange, is_check: bool) {
        let Some(tracer) = &self.state.tracer else { return };
        let head = exchange.req_header();
        let scheme = if is_tls(exchange) { "https" } else { "http" };
        let meta = RequestMeta::new(&head.method, scheme, head.version);
        // What a check says of a trace is mostly the client's word, which the proxy passes on.
        let believed = self.peer_is_trusted && !is_check;
        self.trace = Some(Trace::begin(tracer, &head.headers, meta, believed, self.request_id.sample_value()));
    }

    /// Records that one of Doorward's own surfaces answers.
    pub(super) fn is_terminated(&mut self, surface: SurfaceId) {
        self.handler = surface.label();
    }

    /// Lets a request through that needs no session.
    pub(super) fn open(&mut self, rule: &Arc<Rule>) {
        self.allow(rule, Permit::open());
    }

    /// Asks the guard about the exchange's own request, whose session is under watch from then on.
    pub(super) async fn guard(&mut self, rule: &Arc<Rule>, request: &Parts) -> Result<(), Rejection> {
        let watch = self.watch.as_deref();
        let asked = guard::decide(&self.state.sessions, &rule.policy, request, &self.settings.cookie, watch);
        let guarded = asked.await;
        self.guarded(rule, guarded)
    }

    fn guarded(&mut self, rule: &Arc<Rule>, guarded: Guarded) -> Result<(), Rejection> {
        let source = guarded.decided.as_ref().ok().and_then(Permit::source);
        self.state.handles.observe_decision(source, guarded.ended - guarded.began);
        if let Some(trace) = &mut self.trace {
            trace.guarded(&guarded, &self.state.handles.metrics);
        }
        match guarded.decided {
            Ok(permit) => {
                self.allow(rule, permit);
                Ok(())
            }
            Err(rejection) => {
                self.rule = Some(rule.clone());
                self.reject(rejection);
                Err(rejection)
            }
        }
    }

    fn allow(&mut self, rule: &Arc<Rule>, permit: Permit) {
        self.rule = Some(rule.clone());
        self.decision = Some(permit.decision());
        self.permit = Some(permit);
    }

    /// Records why the request is refused, unless an answer has begun.
    pub(super) fn reject(&mut self, rejection: Rejection) {
        if !self.settled {
            self.decision = Some(rejection.decision());
        }
    }
}

/// What other parts of the proxy ask about the exchange.
impl Context {
    pub(super) fn settings(&self) -> &Arc<Settings> {
        &self.settings
    }

    pub(super) fn state(&self) -> &GatewayState {
        &self.state
    }

    pub(super) fn request_id(&self) -> RequestId {
        self.request_id
    }

    pub(super) fn request_id_value(&self) -> HeaderValue {
        self.request_id.header_value()
    }

    pub(super) fn client(&self) -> Option<IpAddr> {
        self.client
    }

    pub(super) fn peer_is_trusted(&self) -> bool {
        self.peer_is_trusted
    }

    /// Returns the peer's address as a header value.
    pub(super) fn peer_value(&self) -> Option<HeaderValue> {
        let peer = self.peer.and_then(Peer::address)?;
        let render = || HeaderValue::try_from(peer.to_string()).expect("an address is visible ASCII");
        Some(self.watch.as_ref().map_or_else(render, |watch| watch.peer_text(render)))
    }

    /// Returns the permit to forward the request, and the rule it was given under.
    pub(super) fn permitted(&self) -> Option<(&Permit, &Rule)> {
        self.permit.as_ref().zip(self.rule.as_deref())
    }

    /// Returns why this exchange may not go on, if the session it was let through for is over or
    /// can no longer be vouched for.
    pub(super) fn ended(&self) -> Option<Refusal> {
        self.permit.as_ref()?.ended(&self.state.sessions, self.watch.as_deref())
    }
}

/// On the way to the application.
impl Context {
    /// Counts bytes of the request's body; returns how many there were so far.
    pub(super) fn count_request_bytes(&mut self, bytes: usize) -> u64 {
        self.request_bytes += bytes as u64;
        self.request_bytes
    }

    /// Records that the application is turned to, whether or not it can be reached.
    pub(super) fn turned_to_upstream(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.turned_to_upstream();
        }
    }

    /// Counts an attempt that never reached the application; returns whether another one may follow.
    pub(super) fn may_retry(&mut self) -> bool {
        self.failed_attempts += 1;
        self.failed_attempts < ATTEMPTS
    }

    /// Puts the exchange's span into what the application gets, and notes that it is sent now.
    pub(super) fn forwarded(&mut self, request: &mut RequestHeader) -> pingora::Result<()> {
        if let Some(trace) = &self.trace {
            trace.propagate(request)?;
        }
        self.forwarded_at = Some(Instant::now());
        Ok(())
    }

    /// Remembers how long the connection is to be kept, while pingora writes an interim answer.
    pub(super) fn remember_keepalive(&mut self, keepalive: Option<u64>) {
        self.keepalive = self.keepalive.or(keepalive);
    }

    /// Returns how long the connection is to be kept, if an interim answer made pingora forget it.
    pub(super) fn take_keepalive(&mut self) -> Option<u64> {
        self.keepalive.take()
    }

    /// Records what went wrong on the way to or from the application.
    pub(super) fn upstream_failed(&mut self, kind: Option<&'static str>) {
        self.upstream_error = kind;
    }
}

/// The answer, and the end.
impl Context {
    /// Notes that the head of the application's answer is about to be sent: from now on the decision
    /// stands, and a cut leaves nothing to say. To be preceded by [`ended`](Self::ended).
    pub(super) fn forwarding_answer(&mut self, status: StatusCode) {
        if let Some(watch) = &self.watch {
            watch.answering();
        }
        if let Some(trace) = &mut self.trace {
            trace.upstream_answered(status);
        }
        self.settle();
    }

    /// Notes that Doorward's own answer is about to be sent.
    pub(super) fn answering(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.settle();
    }

    /// Refuses in `dialect` from now on.
    pub(super) fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Returns the answer that tells the caller of `problem`, about to be sent.
    pub(super) fn refuse(&mut self, problem: &Problem) -> Response<Bytes> {
        let response = self.dialect.render(problem, self.request_id);
        self.answering(response.status());
        response
    }

    /// Ends the exchange: the only way to do so. `written` is the status that the caller got, if it
    /// is known here. Does nothing the second time.
    pub(super) fn end(&mut self, written: Option<StatusCode>) {
        let Some(line) = self.line.take() else { return };
        self.status = written.or(self.status);
        let cut = self.watch.as_ref().is_some_and(|watch| watch.ended_by().is_some());
        if !self.settled
            && let Some(refusal) = self.ended()
        {
            self.reject(Rejection::Refused(refusal));
            self.hand_over(refusal);
        }
        self.settle();
        if let Some(watch) = self.watch.take() {
            watch.release();
        }
        self.state.handles.in_flight(self.handler).dec();
        self.state.session_watch.exchange_finished();
        let trace = self.trace.take();
        // A caller who was refused instead was not cut.
        let refused = self.decision.is_some_and(Decision::is_refusal) && self.status.is_some();
        let completion = self.completion(cut && !refused);
        completion.count(&self.settings, &self.state.handles);
        completion.log(&line, self.settings.access_log_sample, trace.as_ref().map(Trace::id));
        if let Some(trace) = trace {
            trace.finish(&completion, &self.state.handles.metrics);
        }
    }

    // HTTP/2: hands the refusal to the stream's carrier, which sends it after this future is dropped.
    fn hand_over(&mut self, refusal: Refusal) {
        let Some(watch) = self.watch.as_ref().filter(|_| self.survives_cut && self.status.is_none()) else { return };
        if watch.ended_by().is_some() {
            watch.set_pending_refusal(refusal, self.dialect, self.request_id);
            self.status = Some(self.dialect.status(&Problem::from(refusal).what));
        }
    }

    // Fixes the decision and counts it, so that no later cut can make metric and access line differ.
    fn settle(&mut self) {
        if std::mem::replace(&mut self.settled, true) {
            return;
        }
        let Some(decision) = self.decision else { return };
        let caller = self.permit.as_ref().and_then(Permit::caller).filter(|_| decision.outcome == Outcome::Allow);
        self.state.handles.count_decision(decision, caller.map(|caller| caller.principal.kind));
    }

    fn completion(&self, cut: bool) -> Completion<'_> {
        Completion {
            request_id: self.request_id,
            handler: self.handler,
            rule: self.rule.as_deref(),
            client: self.client,
            permit: self.permit.as_ref(),
            decision: self.decision.unwrap_or(Decision { outcome: Outcome::Bypass, reason: "surface" }),
            status: self.status,
            began: self.started,
            forwarded_at: self.forwarded_at,
            ended: Instant::now(),
            upstream_error: self.upstream_error,
            cut,
        }
    }
}

// An exchange that is cut, or whose client is gone, never reaches `logging`.
impl Drop for Context {
    fn drop(&mut self) {
        self.end(None);
    }
}
