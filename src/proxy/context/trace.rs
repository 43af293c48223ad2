//! What an exchange leaves in its trace: the server's span, and in it the guard's and the
//! application's.
//!
//! Nothing but two numbers is made for an exchange that is not sampled, and nothing at all while
//! tracing is off. Spans hold names from closed sets and the configuration: what a caller sends
//! (path, query, headers) and who the caller is stay out.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode, Version};
use pingora::http::RequestHeader;
use tokio::time::Instant;

use super::record::Completion;
use crate::metrics::Metrics;
use crate::metrics::exemplars::{Exemplar, Measured};
use crate::proxy::guard::{self, Decision, Permit, StoreCalls};
use crate::session::{Source, StoreCall};
use crate::telemetry::access::Outcome;
use crate::telemetry::traces::span::{AttributeValue, Span, SpanSide};
use crate::telemetry::traces::{SpanContext, SpanId, TRACEPARENT, TRACESTATE, TraceId, Tracer};

/// An exchange's span context, and what is recorded of it.
pub(super) struct Trace {
    tracer: Arc<Tracer>,
    span_context: SpanContext,
    /// Whether the caller's `tracestate` may go on.
    keeps_state: bool,
    recording: Option<Box<Recording>>,
}

/// What the guard did.
#[derive(Clone, Copy)]
struct GuardSpan {
    began: Instant,
    ended: Instant,
    decision: Decision,
    source: Option<&'static str>,
}

/// How a request came: names from closed sets.
#[derive(Clone, Copy)]
pub(super) struct RequestMeta {
    method: &'static str,
    scheme: &'static str,
    version: &'static str,
}

/// What is recorded of a sampled exchange.
struct Recording {
    meta: RequestMeta,
    guarded: Option<GuardSpan>,
    store: StoreCalls,
    /// When the application was first turned to, and how often it was.
    forwarded: Option<(Instant, i64)>,
    upstream_status: Option<u16>,
}

impl RequestMeta {
    /// Returns what is recorded of how a request came.
    pub(super) fn new(method: &Method, scheme: &'static str, version: Version) -> Self {
        Self { method: method_name(method), scheme, version: version_name(version) }
    }
}

impl Trace {
    /// Begins with the request's head. `believed` says whether its trace headers decide; `sample_value`
    /// is a number in [0, 1) that depends on nothing but the exchange's id.
    pub(super) fn begin(
        tracer: &Arc<Tracer>,
        headers: &HeaderMap,
        meta: RequestMeta,
        believed: bool,
        sample_value: f64,
    ) -> Self {
        let span_context = tracer.begin(headers, believed, sample_value);
        let recording = span_context.sampled.then(|| {
            Box::new(Recording {
                meta,
                guarded: None,
                store: StoreCalls::default(),
                forwarded: None,
                upstream_status: None,
            })
        });
        Self { tracer: tracer.clone(), span_context, keeps_state: believed && span_context.parent.is_some(), recording }
    }

    pub(super) fn id(&self) -> TraceId {
        self.span_context.trace
    }

    /// Records what the guard did and when the store was asked.
    pub(super) fn guarded(&mut self, guarded: &guard::Guarded, metrics: &Metrics) {
        if self.recording.is_none() {
            return;
        }
        let decided = &guarded.decided;
        let decision = decided.as_ref().map_or_else(|rejection| rejection.decision(), Permit::decision);
        let source = decided.as_ref().ok().and_then(Permit::source).map(Source::as_str);
        let (began, ended) = (guarded.began, guarded.ended);
        self.exemplify(metrics, Measured::Decision, &[source.unwrap_or("none")], (ended - began).as_secs_f64());
        if let Some(recording) = &mut self.recording {
            recording.store = guarded.calls;
            recording.guarded = Some(GuardSpan { began, ended, decision, source });
        }
    }

    /// Records that the application is turned to, whether or not it can be reached.
    pub(super) fn turned_to_upstream(&mut self) {
        if let Some(recording) = &mut self.recording {
            let (since, times) = recording.forwarded.unwrap_or_else(|| (Instant::now(), 0));
            recording.forwarded = Some((since, times + 1));
        }
    }

    /// Records what the application answered.
    pub(super) fn upstream_answered(&mut self, status: StatusCode) {
        if let Some(recording) = &mut self.recording {
            recording.upstream_status = Some(status.as_u16());
        }
    }

    /// Keeps a measurement of a sampled exchange as an exemplar. `labels` are in the order of their names.
    fn exemplify(&self, metrics: &Metrics, measured: Measured, labels: &[&str], seconds: f64) {
        if self.recording.is_some() {
            let exemplar = Exemplar { trace_id: self.id().to_string(), seconds, at: self.tracer.now() };
            metrics.exemplars.keep(measured, labels, exemplar);
        }
    }

    /// Tells the application which span asks it.
    pub(super) fn propagate(&self, request: &mut RequestHeader) -> pingora::Result<()> {
        if !self.keeps_state {
            request.remove_header(&TRACESTATE);
        }
        request.insert_header(TRACEPARENT, self.span_context.traceparent())
    }

    /// Hands the spans over.
    pub(super) fn finish(self, completion: &Completion<'_>, metrics: &Metrics) {
        let rule = completion.rule.map(|rule| rule.id.as_str());
        let took = (completion.ended - completion.began).as_secs_f64();
        self.exemplify(metrics, Measured::Exchange, &[completion.handler, rule.unwrap_or("none")], took);
        let Some(recording) = self.recording else { return };
        let mut spans = Vec::with_capacity(4);
        spans.push(server(&self.span_context, &recording, completion));
        spans.extend(recording.guarded.map(|guarded| guard(self.tracer.span_id(), self.span_context.server, &guarded)));
        let asking = spans.last().map(|span| span.id);
        for (operation, call) in [("find", recording.store.find), ("extend", recording.store.extend)] {
            spans.extend(call.map(|call| store(self.tracer.span_id(), asking, operation, call)));
        }
        spans.extend(
            recording.forwarded.map(|forwarded| upstream(&self.span_context, &recording, forwarded, completion)),
        );
        self.tracer.submit(&self.span_context, spans);
    }
}

fn server(span_context: &SpanContext, recording: &Recording, completion: &Completion<'_>) -> Span {
    let status = completion.status.map(|status| status.as_u16());
    let failed = status.is_some_and(|status| status >= 500);
    let route = completion.rule.map_or(completion.handler, |rule| rule.id.as_str());
    let mut attributes = vec![
        ("http.request.method", AttributeValue::Name(recording.meta.method)),
        ("url.scheme", AttributeValue::Name(recording.meta.scheme)),
        ("network.protocol.version", AttributeValue::Name(recording.meta.version)),
        ("doorward.route", AttributeValue::Text(route.to_owned())),
        ("http.request.id", AttributeValue::Text(completion.request_id.to_string())),
    ];
    attributes.extend(decided(completion.decision, completion.source()));
    attributes.extend(status.map(|status| ("http.response.status_code", AttributeValue::Number(status.into()))));
    let error = match completion.upstream_error {
        _ if completion.cut => Some(AttributeValue::Name("session_cut")),
        Some(error) => Some(AttributeValue::Name(error)),
        None => status.filter(|_| failed).map(|status| AttributeValue::Text(status.to_string())),
    };
    attributes.extend(error.map(|error| ("error.type", error)));
    Span {
        id: span_context.server,
        parent: span_context.parent,
        name: format!("{} {route}", recording.meta.method),
        kind: SpanSide::Server,
        began: completion.began,
        ended: completion.ended,
        attributes,
        failed,
    }
}

fn guard(id: SpanId, parent: SpanId, guarded: &GuardSpan) -> Span {
    Span {
        id,
        parent: Some(parent),
        name: "guard".to_owned(),
        kind: SpanSide::Internal,
        began: guarded.began,
        ended: guarded.ended,
        attributes: decided(guarded.decision, guarded.source).collect(),
        failed: guarded.decision.outcome == Outcome::Error,
    }
}

fn store(id: SpanId, parent: Option<SpanId>, operation: &'static str, call: StoreCall) -> Span {
    Span {
        id,
        parent,
        name: "store".to_owned(),
        kind: SpanSide::Client,
        began: call.began,
        ended: call.ended,
        attributes: vec![("db.operation.name", AttributeValue::Name(operation))],
        failed: !call.answered,
    }
}

fn upstream(
    span_context: &SpanContext,
    recording: &Recording,
    (began, times): (Instant, i64),
    completion: &Completion<'_>,
) -> Span {
    let status = recording.upstream_status;
    let mut attributes = vec![("http.request.method", AttributeValue::Name(recording.meta.method))];
    attributes.extend(status.map(|status| ("http.response.status_code", AttributeValue::Number(status.into()))));
    if times > 1 {
        attributes.push(("http.request.resend_count", AttributeValue::Number(times - 1)));
    }
    let refused = status.filter(|status| *status >= 400);
    let error = completion
        .upstream_error
        .map(AttributeValue::Name)
        .or(refused.map(|status| AttributeValue::Text(status.to_string())));
    let failed = error.is_some();
    attributes.extend(error.map(|error| ("error.type", error)));
    Span {
        id: span_context.upstream,
        parent: Some(span_context.server),
        name: "upstream".to_owned(),
        kind: SpanSide::Client,
        began,
        ended: completion.ended,
        attributes,
        failed,
    }
}

fn decided(decision: Decision, source: Option<&'static str>) -> impl Iterator<Item = (&'static str, AttributeValue)> {
    let names = [("auth.outcome", decision.outcome.as_str()), ("auth.reason", decision.reason)];
    names
        .into_iter()
        .chain(source.map(|source| ("auth.source", source)))
        .map(|(key, name)| (key, AttributeValue::Name(name)))
}

// What a caller makes up is not worth a name of its own (semantic conventions of HTTP).
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] = ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|known| *known == method.as_str()).unwrap_or("_OTHER")
}

fn version_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_2 => "2",
        Version::HTTP_11 => "1.1",
        _ => "1.0",
    }
}
