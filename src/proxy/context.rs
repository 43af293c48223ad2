//! What is known about one exchange, from its head to its line in the access log.

mod ids;
mod trace;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use pingora::proxy::Session as Exchange;
use prometheus::IntGauge;
use tokio::time::Instant;

pub use self::ids::RequestIds;
use self::trace::Trace;
use super::connection::session_watch::{SessionWatch, Watch};
use super::guard::{Permit, Rejection};
use super::metrics::{MetricHandles, PROXY, VERIFY, status_label};
use super::respond::Verdict;
use super::route::Rule;
use super::settings::Settings;
use super::{Gateway, client_of, connection};
use crate::api::{Dialect, Problem, RequestId};
use crate::metrics::Metrics;
use crate::session::{Refusal, Sessions, Source};
use crate::telemetry::access::{self, Outcome};
use crate::telemetry::traces::{TRACEPARENT, trace_in};

/// What is known about one exchange.
pub struct Context {
    pub(super) settings: Arc<Settings>,
    pub(super) peer: Option<IpAddr>,
    pub(super) client: Option<IpAddr>,
    pub(super) permit: Option<Permit>,
    pub(super) rule: Option<Arc<Rule>>,
    pub(super) verdict: Option<Verdict>,
    pub(super) status: Option<StatusCode>,
    pub(super) handler: &'static str,
    pub(super) request_bytes: u64,
    pub(super) upstream_error: Option<&'static str>,
    pub(super) retried: bool,
    /// How long the connection was to be kept before an interim answer made pingora forget it.
    pub(super) keepalive: Option<u64>,
    request_id: RequestId,
    /// How a refusal is told: the route's way, once the route is known.
    dialect: Dialect,
    started: Instant,
    forwarded_at: Option<Instant>,
    watch: Option<Arc<Watch>>,
    /// Whether what carries it outlives a cut and can say what it could not.
    outlived: bool,
    line: Option<Line>,
    trace: Option<Trace>,
    under_way: Option<UnderWay>,
    handles: Arc<MetricHandles>,
}

/// What the access log needs of the request head, kept for exchanges that are cut.
///
/// Parts of the head, not texts made from them: most lines are never written.
struct Line {
    method: Method,
    target: Option<PathAndQuery>,
    traceparent: Option<HeaderValue>,
}

/// Counts an exchange in, and out again however it ends.
struct UnderWay {
    streams: Arc<SessionWatch>,
    /// Which exchanges it is one of.
    gauge: IntGauge,
}

impl Context {
    pub(super) fn new(settings: Arc<Settings>, request_id: RequestId, handles: Arc<MetricHandles>) -> Self {
        Self {
            settings,
            peer: None,
            client: None,
            permit: None,
            rule: None,
            verdict: None,
            status: None,
            handler: PROXY,
            request_bytes: 0,
            upstream_error: None,
            retried: false,
            keepalive: None,
            request_id,
            dialect: Dialect::default(),
            started: Instant::now(),
            forwarded_at: None,
            watch: None,
            outlived: false,
            line: None,
            trace: None,
            under_way: None,
            handles,
        }
    }

    /// Takes down what the request head says about where it comes from.
    pub(super) fn begin(&mut self, exchange: &Exchange, gateway: &Gateway) {
        let head = exchange.req_header();
        self.peer = exchange.client_addr().and_then(|address| address.as_inet()).map(|peer| peer.ip().to_canonical());
        self.client = client_of(&head.headers, self.peer, &self.settings.trusted_proxies);
        self.watch = connection::current_slot();
        self.outlived = exchange.as_custom().is_some();
        let line = Line {
            method: head.method.clone(),
            target: head.uri.path_and_query().cloned(),
            traceparent: head.headers.get(TRACEPARENT).cloned(),
        };
        self.begin_trace(exchange, gateway);
        self.enter(line, &gateway.streams);
    }

    /// Takes down a question that came otherwise than through the proxy port.
    pub(super) fn begin_question(&mut self, peer: Option<IpAddr>, target: PathAndQuery, streams: &Arc<SessionWatch>) {
        self.peer = peer;
        self.client = peer;
        self.enter(Line { method: Method::POST, target: Some(target), traceparent: None }, streams);
        self.answers_a_proxy();
    }

    fn enter(&mut self, line: Line, streams: &Arc<SessionWatch>) {
        self.line = Some(line);
        self.under_way = Some(UnderWay::begin(streams.clone(), self.handles.in_flight.clone()));
    }

    pub(super) fn peer_is_trusted(&self) -> bool {
        self.peer.is_some_and(|peer| self.settings.trusted_proxies.iter().any(|network| network.contains(&peer)))
    }

    /// Returns the peer's address as a header value.
    pub(super) fn peer_value(&self) -> Option<HeaderValue> {
        let peer = self.peer?;
        let render = || HeaderValue::try_from(peer.to_string()).expect("an address is visible ASCII");
        Some(self.watch.as_ref().map_or_else(render, |watch| watch.peer_text(render)))
    }

    pub(super) fn request_id(&self) -> RequestId {
        self.request_id
    }

    /// Refuses in `dialect` from now on.
    pub(super) fn speak(&mut self, dialect: Dialect) {
        self.dialect = dialect;
    }

    /// Returns the answer that tells the caller of `problem`.
    pub(super) fn render(&self, problem: &Problem) -> Response<Bytes> {
        self.dialect.render(problem, self.request_id)
    }

    pub(super) fn request_id_value(&self) -> HeaderValue {
        self.request_id.header_value()
    }

    /// Puts the session that was let through under watch.
    pub(super) fn hold(&self, permit: &Permit, generation: u64) {
        if let (Some(watch), Some(session)) = (&self.watch, permit.session()) {
            watch.hold(session.clone(), generation);
        }
    }

    pub(super) fn allow(&mut self, rule: &Arc<Rule>, permit: Permit) {
        let verdict = verdict_of(&permit);
        if permit.session().is_none() {
            self.handles.bypassed.inc();
        }
        self.rule = Some(rule.clone());
        self.permit = Some(permit);
        self.verdict = Some(verdict);
    }

    /// Takes down that the exchange asks about another one.
    pub(super) fn answers_a_proxy(&mut self) {
        self.handler = VERIFY;
        if let Some(under_way) = &mut self.under_way {
            under_way.count_as(self.handles.questions.clone());
        }
    }

    /// Takes down which request is asked about.
    pub(super) fn note_original(&mut self, method: &Method, target: &PathAndQuery) {
        if let Some(line) = &mut self.line {
            line.method = method.clone();
            line.target = Some(target.clone());
        }
    }

    /// Takes down where the request that is asked about comes from: its `source`, and its head.
    pub(super) fn note_origin(&mut self, source: Option<IpAddr>, head: &HeaderMap) {
        if let Some(source) = source {
            self.client = client_of(head, Some(source), &self.settings.trusted_proxies);
        }
        if let Some(line) = &mut self.line {
            line.traceparent = head.get(TRACEPARENT).cloned();
        }
    }

    /// Returns whether the application may see the credentials.
    pub(super) fn keeps_credentials(&self) -> bool {
        self.rule.as_ref().is_some_and(|rule| rule.policy.keep_credentials)
    }

    /// Takes down why the request is refused before any rule is asked; returns the answer.
    pub(super) fn turn_away(&mut self, rejection: Rejection) -> Problem {
        let verdict = rejection.verdict();
        self.count(verdict, "none");
        self.verdict = Some(verdict);
        rejection.problem()
    }

    /// Takes down that the request cannot be read in one way only, so that no rule was asked.
    pub(super) fn refuse_unread(&mut self) {
        let verdict = Verdict { outcome: Outcome::Deny, reason: "bad_request" };
        self.count(verdict, "none");
        self.verdict = Some(verdict);
    }

    pub(super) fn deny(&mut self, rule: &Arc<Rule>, rejection: Rejection) {
        self.rule = Some(rule.clone());
        self.permit = None;
        self.verdict = Some(rejection.verdict());
    }

    /// Counts what the guard decided, and how long it took since `started`.
    pub(super) fn decided(&mut self, decided: &Result<Permit, Rejection>, started: Instant) {
        let source = decided.as_ref().ok().and_then(Permit::source);
        let ended = Instant::now();
        let took = (ended - started).as_secs_f64();
        self.trace_guard(decided, started, ended);
        if source == Some(Source::Cache) {
            self.handles.cached_decision.observe(took);
        } else {
            let labels = [source.map_or("none", Source::as_str)];
            self.handles.metrics.auth_decision_duration.with_label_values(&labels).observe(took);
        }
        match decided {
            Ok(permit) => match permit.session() {
                Some(session) if source == Some(Source::Stale) => {
                    self.count(verdict_of(permit), session.principal.kind.as_str());
                }
                Some(session) => self.handles.allowed(session.principal.kind).inc(),
                // Counted by `allow`: nobody was asked for.
                None => {}
            },
            Err(rejection) => self.count(rejection.verdict(), "none"),
        }
    }

    fn count(&self, verdict: Verdict, principal: &str) {
        let labels = [verdict.outcome.as_str(), verdict.reason, principal];
        self.handles.metrics.auth_decisions.with_label_values(&labels).inc();
    }

    pub(super) fn forwarded(&mut self) {
        self.forwarded_at = Some(Instant::now());
    }

    /// Notes that the head of the answer is about to be sent.
    pub(super) fn answering(&self) {
        if let Some(watch) = &self.watch {
            watch.answering();
        }
    }

    /// Returns why this exchange may not go on, if the session it was let through for is over or
    /// can no longer be vouched for.
    pub(super) fn ended_by(&self, sessions: &Sessions) -> Option<Refusal> {
        let session = self.permit.as_ref().and_then(Permit::session)?;
        let revoked = || sessions.is_revoked(session).then_some(Refusal::Revoked);
        self.watch.as_ref().and_then(|watch| watch.ended_by()).or_else(revoked)
    }

    /// Takes down how the exchange ended.
    pub(super) fn finish(&mut self, exchange: &Exchange, error: Option<&pingora::Error>, metrics: &Metrics) {
        let written = exchange.response_written().map(|head| head.status);
        self.status = written.or(self.status);
        if let Some(kind) = self.upstream_error.filter(|_| error.is_some()) {
            metrics.upstream_errors.with_label_values(&[kind]).inc();
        }
        let cut = |watch: &Arc<Watch>| watch.is_answered() && watch.ended_by().is_some();
        let cut = self.watch.as_ref().is_some_and(cut);
        self.close(cut);
    }

    fn close(&mut self, cut: bool) {
        let Some(line) = self.line.take() else { return };
        let cut = cut && !self.set_pending_refusal();
        if let Some(watch) = self.watch.take() {
            watch.release();
        }
        self.under_way = None;
        let metrics = &self.handles.metrics;
        let route = self.rule.as_ref().map_or("none", |rule| rule.id.as_str());
        let code = self.status.map_or(499, |status| status.as_u16());
        let now = Instant::now();
        let took = now - self.started;
        if let Some(rule) = self.rule.as_ref().filter(|_| self.handler != VERIFY) {
            rule.handles(metrics).count(route, code, took, metrics);
        } else {
            metrics.http_requests.with_label_values(&[self.handler, route, &status_label(code)]).inc();
            metrics.http_request_duration.with_label_values(&[self.handler, route]).observe(took.as_secs_f64());
        }
        if let Some(forwarded_at) = self.forwarded_at {
            metrics.upstream_request_duration.observe((now - forwarded_at).as_secs_f64());
        }
        self.write_line(&line, route, code, took, cut);
        self.end_trace(now, cut);
    }

    fn verdict_or_surface(&self) -> Verdict {
        self.verdict.unwrap_or(Verdict { outcome: Outcome::Bypass, reason: "surface" })
    }

    fn source(&self) -> Option<&'static str> {
        self.permit.as_ref().and_then(Permit::source).map(Source::as_str)
    }

    // On HTTP/2 an exchange that was cut before its answer is not the one that gives it.
    fn set_pending_refusal(&mut self) -> bool {
        let unanswered = |watch: &&Arc<Watch>| self.outlived && self.status.is_none() && !watch.is_answered();
        let Some(watch) = self.watch.as_ref().filter(unanswered) else { return false };
        let Some(refusal) = watch.ended_by() else { return false };
        watch.set_pending_refusal(refusal, self.dialect, self.request_id);
        self.verdict = Some(Rejection::Refused(refusal).verdict());
        self.status = Some(self.dialect.status(&Problem::from(refusal).what));
        true
    }

    fn write_line(&self, line: &Line, route: &str, code: u16, took: Duration, cut: bool) {
        let verdict = self.verdict_or_surface();
        if !access::should_log(code, verdict.outcome, self.settings.access_log_sample, self.request_id.sample_value()) {
            return;
        }
        let session = self.permit.as_ref().and_then(Permit::session);
        let named = || line.traceparent.as_ref().and_then(trace_in);
        let trace = self.trace.as_ref().map(Trace::id).or_else(named).map(|trace| trace.to_string());
        access::write(&access::Record {
            request_id: &self.request_id.to_string(),
            trace_id: trace.as_deref(),
            method: line.method.as_str(),
            handler: self.handler,
            path: line.target.as_ref().map_or("", PathAndQuery::path),
            route,
            status: code,
            duration: took,
            client_ip: self.client,
            user_id: session.map(|session| session.principal.id.as_str()),
            organization_id: session.map(|session| session.principal.tenant.as_str()),
            outcome: verdict.outcome,
            reason: verdict.reason,
            source: self.source(),
            error_type: if cut { Some("session_cut") } else { self.upstream_error },
        });
    }
}

// An exchange that is cut never reaches `logging`.
impl Drop for Context {
    fn drop(&mut self) {
        // Nor does one whose client is gone.
        let cut = self.watch.as_ref().is_some_and(|watch| watch.ended_by().is_some());
        self.close(cut);
    }
}

impl UnderWay {
    fn begin(streams: Arc<SessionWatch>, gauge: IntGauge) -> Self {
        streams.exchange_began();
        gauge.inc();
        Self { streams, gauge }
    }

    fn count_as(&mut self, gauge: IntGauge) {
        gauge.inc();
        std::mem::replace(&mut self.gauge, gauge).dec();
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.gauge.dec();
        self.streams.exchange_finished();
    }
}

fn verdict_of(permit: &Permit) -> Verdict {
    match (permit.session(), permit.source()) {
        (None, _) => Verdict { outcome: Outcome::Bypass, reason: "public_path" },
        (Some(_), Some(Source::Stale)) => Verdict { outcome: Outcome::Allow, reason: "stale_allowed" },
        (Some(_), _) => Verdict { outcome: Outcome::Allow, reason: "ok" },
    }
}
