//! What an exchange leaves in its trace: the server's span, and in it the guard's and the
//! application's.
//!
//! Nothing but two numbers is made for an exchange that is not sampled, and nothing at all while
//! tracing is off. Spans hold names from closed sets and the configuration: what a caller sends
//! (path, query, headers) and who the caller is stay out.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::RequestHeader;
use pingora::proxy::Session as Exchange;
use tokio::time::Instant;

use super::{Context, verdict_of};
use crate::api::RequestId;
use crate::metrics::Metrics;
use crate::metrics::exemplars::{Exemplar, Measured};
use crate::proxy::guard::{Permit, Rejection, StoreCalls};
use crate::proxy::respond::Verdict;
use crate::proxy::route;
use crate::proxy::{Gateway, is_tls};
use crate::session::{Source, StoreCall};
use crate::telemetry::access::Outcome;
use crate::telemetry::traces::span::{AttributeValue as Value, Span, SpanSide as Kind};
use crate::telemetry::traces::{SpanContext as Place, SpanId, TRACEPARENT, TRACESTATE, TraceId, Tracer};

/// An exchange's place in a trace, and what is recorded of it.
pub(super) struct Trace {
    tracer: Arc<Tracer>,
    place: Place,
    /// Whether the caller's `tracestate` may go on.
    keeps_state: bool,
    recording: Option<Box<Recording>>,
}

/// What the guard did.
#[derive(Clone, Copy)]
struct Guarded {
    began: Instant,
    ended: Instant,
    verdict: Verdict,
    source: Option<&'static str>,
}

/// How an exchange ended.
struct Ending<'a> {
    began: Instant,
    ended: Instant,
    route: &'a str,
    request_id: RequestId,
    /// The status that the caller got, if any.
    status: Option<u16>,
    verdict: Verdict,
    source: Option<&'static str>,
    /// What went wrong on the way to or from the application.
    upstream_error: Option<&'static str>,
    /// Whether the session ended first.
    cut: bool,
}

/// How a request came.
#[derive(Clone, Copy)]
struct Came {
    method: &'static str,
    scheme: &'static str,
    version: &'static str,
}

/// What is recorded of a sampled exchange.
struct Recording {
    came: Came,
    guarded: Option<Guarded>,
    store: StoreCalls,
    /// When the application was first turned to, and how often it was.
    forwarded: Option<(Instant, i64)>,
    upstream_status: Option<u16>,
}

impl Context {
    pub(super) fn begin_trace(&mut self, exchange: &Exchange, gateway: &Gateway) {
        let Some(tracer) = &gateway.tracer else { return };
        let head = exchange.req_header();
        let scheme = if is_tls(exchange) { "https" } else { "http" };
        let came = Came { method: known(&head.method), scheme, version: version(head.version) };
        // What a question says of a trace is mostly the client's word, which the proxy passes on.
        let believed = self.peer_is_trusted() && route::question(head.uri.path()).is_none();
        self.trace = Some(Trace::begin(tracer, &head.headers, came, believed, self.request_id.dice()));
    }

    /// Begins the trace of a question that came otherwise than through the proxy port: in the trace of
    /// the request that it is about, whose `headers` these are. They do not decide whether it is sampled.
    pub(in crate::proxy) fn trace_question(&mut self, tracer: &Arc<Tracer>, method: &Method, headers: &HeaderMap) {
        let came = Came { method: known(method), scheme: "http", version: version(Version::HTTP_2) };
        self.trace = Some(Trace::begin(tracer, headers, came, false, self.request_id.dice()));
    }

    /// Takes down when the store was asked.
    pub(in crate::proxy) fn trace_store(&mut self, calls: StoreCalls) {
        if let Some(recording) = self.recording() {
            recording.store = calls;
        }
    }

    pub(super) fn trace_guard(&mut self, decided: &Result<Permit, Rejection>, began: Instant, ended: Instant) {
        let Some(trace) = &self.trace else { return };
        let verdict = decided.as_ref().map_or_else(|rejection| rejection.verdict(), verdict_of);
        let source = decided.as_ref().ok().and_then(Permit::source).map(Source::as_str);
        let seconds = (ended - began).as_secs_f64();
        trace.exemplify(&self.tallies.metrics, Measured::Decision, &[source.unwrap_or("none")], seconds);
        if let Some(recording) = self.recording() {
            recording.guarded = Some(Guarded { began, ended, verdict, source });
        }
    }

    /// Takes down that the application is turned to, whether or not it can be reached.
    pub(in crate::proxy) fn trace_upstream(&mut self) {
        if let Some(recording) = self.recording() {
            let (since, times) = recording.forwarded.unwrap_or_else(|| (Instant::now(), 0));
            recording.forwarded = Some((since, times + 1));
        }
    }

    /// Takes down what the application answered.
    pub(in crate::proxy) fn trace_answer(&mut self, status: StatusCode) {
        if let Some(recording) = self.recording() {
            recording.upstream_status = Some(status.as_u16());
        }
    }

    /// Puts the exchange's place in its trace into what the application gets.
    pub(in crate::proxy) fn propagate(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        self.trace.as_ref().map_or(Ok(()), |trace| trace.propagate(request))
    }

    pub(super) fn end_trace(&mut self, ended: Instant, cut: bool) {
        let Some(trace) = self.trace.take() else { return };
        let rule = self.rule.as_ref().map(|rule| rule.id.as_str());
        let labels = [self.handler, rule.unwrap_or("none")];
        trace.exemplify(&self.tallies.metrics, Measured::Exchange, &labels, (ended - self.started).as_secs_f64());
        trace.finish(&Ending {
            began: self.started,
            ended,
            route: rule.unwrap_or(self.handler),
            request_id: self.request_id,
            status: self.status.map(|status| status.as_u16()),
            verdict: self.verdict_or_surface(),
            source: self.source(),
            upstream_error: self.upstream_error,
            cut,
        });
    }

    fn recording(&mut self) -> Option<&mut Recording> {
        self.trace.as_mut()?.recording.as_deref_mut()
    }
}

impl Trace {
    /// Begins with the request's head.
    fn begin(tracer: &Arc<Tracer>, headers: &HeaderMap, came: Came, peer_is_trusted: bool, dice: f64) -> Self {
        let place = tracer.begin(headers, peer_is_trusted, dice);
        let recording = place.sampled.then(|| {
            Box::new(Recording {
                came,
                guarded: None,
                store: StoreCalls::default(),
                forwarded: None,
                upstream_status: None,
            })
        });
        Self { tracer: tracer.clone(), place, keeps_state: peer_is_trusted && place.parent.is_some(), recording }
    }

    pub(super) fn id(&self) -> TraceId {
        self.place.trace
    }

    /// Keeps a measurement of a sampled exchange as an exemplar. `labels` are in the order of their names.
    fn exemplify(&self, metrics: &Metrics, measured: Measured, labels: &[&str], seconds: f64) {
        if self.recording.is_some() {
            let exemplar = Exemplar { trace_id: self.id().to_string(), seconds, at: self.tracer.now() };
            metrics.exemplars.keep(measured, labels, exemplar);
        }
    }

    /// Tells the application which span asks it.
    fn propagate(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        if !self.keeps_state {
            request.remove_header(&TRACESTATE);
        }
        request.insert_header(TRACEPARENT, self.place.traceparent())
    }

    /// Hands the spans over.
    fn finish(self, ending: &Ending<'_>) {
        let Some(recording) = self.recording else { return };
        let mut spans = Vec::with_capacity(4);
        spans.push(server(&self.place, &recording, ending));
        spans.extend(recording.guarded.map(|guarded| guard(self.tracer.span_id(), self.place.server, &guarded)));
        let asking = spans.last().map(|span| span.id);
        for (operation, call) in [("find", recording.store.find), ("extend", recording.store.extend)] {
            spans.extend(call.map(|call| store(self.tracer.span_id(), asking, operation, call)));
        }
        spans.extend(recording.forwarded.map(|forwarded| upstream(&self.place, &recording, forwarded, ending)));
        self.tracer.submit(&self.place, spans);
    }
}

fn server(place: &Place, recording: &Recording, ending: &Ending<'_>) -> Span {
    let failed = ending.status.is_some_and(|status| status >= 500);
    let mut attributes = vec![
        ("http.request.method", Value::Name(recording.came.method)),
        ("url.scheme", Value::Name(recording.came.scheme)),
        ("network.protocol.version", Value::Name(recording.came.version)),
        ("doorward.route", Value::Text(ending.route.to_owned())),
        ("http.request.id", Value::Text(ending.request_id.to_string())),
    ];
    attributes.extend(verdict(ending.verdict, ending.source));
    attributes.extend(ending.status.map(|status| ("http.response.status_code", Value::Number(status.into()))));
    let error = match ending.upstream_error {
        _ if ending.cut => Some(Value::Name("session_cut")),
        Some(error) => Some(Value::Name(error)),
        None => ending.status.filter(|_| failed).map(|status| Value::Text(status.to_string())),
    };
    attributes.extend(error.map(|error| ("error.type", error)));
    Span {
        id: place.server,
        parent: place.parent,
        name: format!("{} {}", recording.came.method, ending.route),
        kind: Kind::Server,
        began: ending.began,
        ended: ending.ended,
        attributes,
        failed,
    }
}

fn guard(id: SpanId, parent: SpanId, guarded: &Guarded) -> Span {
    Span {
        id,
        parent: Some(parent),
        name: "guard".to_owned(),
        kind: Kind::Internal,
        began: guarded.began,
        ended: guarded.ended,
        attributes: verdict(guarded.verdict, guarded.source).collect(),
        failed: guarded.verdict.outcome == Outcome::Error,
    }
}

fn store(id: SpanId, parent: Option<SpanId>, operation: &'static str, call: StoreCall) -> Span {
    Span {
        id,
        parent,
        name: "store".to_owned(),
        kind: Kind::Client,
        began: call.began,
        ended: call.ended,
        attributes: vec![("db.operation.name", Value::Name(operation))],
        failed: !call.answered,
    }
}

fn upstream(place: &Place, recording: &Recording, (began, times): (Instant, i64), ending: &Ending<'_>) -> Span {
    let status = recording.upstream_status;
    let mut attributes = vec![("http.request.method", Value::Name(recording.came.method))];
    attributes.extend(status.map(|status| ("http.response.status_code", Value::Number(status.into()))));
    if times > 1 {
        attributes.push(("http.request.resend_count", Value::Number(times - 1)));
    }
    let refused = status.filter(|status| *status >= 400);
    let error = ending.upstream_error.map(Value::Name).or(refused.map(|status| Value::Text(status.to_string())));
    let failed = error.is_some();
    attributes.extend(error.map(|error| ("error.type", error)));
    Span {
        id: place.upstream,
        parent: Some(place.server),
        name: "upstream".to_owned(),
        kind: Kind::Client,
        began,
        ended: ending.ended,
        attributes,
        failed,
    }
}

fn verdict(verdict: Verdict, source: Option<&'static str>) -> impl Iterator<Item = (&'static str, Value)> {
    let decided = [("auth.outcome", verdict.outcome.as_str()), ("auth.reason", verdict.reason)];
    decided.into_iter().chain(source.map(|source| ("auth.source", source))).map(|(key, name)| (key, Value::Name(name)))
}

// What a caller makes up is not worth a name of its own (semantic conventions of HTTP).
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_11 => "1.1",
        _ => "1.0",
    }
}
