//! Traces: where an exchange stands in one, whether it is recorded, and the way out.
//!
//! The trace of a caller is continued. Whether it is recorded is the word of a peer in
//! `trusted_proxies`, and otherwise decided here: a stranger must not be able to make us, or the
//! application behind us, record everything, nor to reach it with a `tracestate`. Spans wait in a
//! bounded queue and are dropped when it is full: no request ever waits for a collector.

mod export;
mod parent;
pub mod span;

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use self::export::{CollectorError, Exporter};
use self::export::{Finished, QUEUE};
use self::parent::Parent;
use self::span::Span;
use crate::config::telemetry::Traces;
use crate::metrics::Metrics;
use crate::secret::{NoEntropy, random_bytes};
use crate::telemetry::names::Names;
use crate::time::{Clock, Timestamp};

/// W3C Trace Context §3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context §3.3.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Begins traces and takes their spans.
pub struct Tracer {
    sample: f64,
    ids: Ids,
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<Finished>,
    dropped: IntCounter,
}

/// Where an exchange stands in its trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// The span of the exchange as the caller sees it.
    pub server: SpanId,
    /// The span of what is asked of the application.
    pub upstream: SpanId,
    /// Whether spans are recorded, here and by those who are asked.
    pub sampled: bool,
    /// Whether the caller said that its trace id is random (W3C Trace Context Level 2 §3.2.2.5.2).
    random: bool,
}

/// A trace's name, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(pub u128);

/// A span's name within its trace, never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(pub u64);

/// Names: they need not be secret, only never the same.
struct Ids {
    /// The two halves of a trace's name.
    traces: [Names; 2],
    spans: Names,
}

/// Returns the trace that a `traceparent` names, if it is exactly as the specification has it.
pub fn trace_in(traceparent: &HeaderValue) -> Option<TraceId> {
    parent::parse(traceparent.as_bytes()).map(|parent| parent.trace)
}

impl Tracer {
    /// Returns a tracer, and what must run to send its spans; `None` when no endpoint is configured.
    pub fn new(
        config: &Traces,
        clock: Arc<dyn Clock>,
        random: &dyn SecureRandom,
        metrics: &Metrics,
    ) -> Result<Option<(Arc<Self>, Exporter)>, CollectorError> {
        let dropped = export::create_series(metrics);
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let (queue, waiting) = mpsc::channel(QUEUE);
        let exporter = Exporter::new(config, endpoint, waiting, metrics)?;
        let ids = Ids::new(random).map_err(|_| CollectorError::NoEntropy)?;
        Ok(Some((Arc::new(Self { sample: config.sample, ids, clock, queue, dropped }), exporter)))
    }

    /// Returns where an exchange with this request head stands. `dice` is a number in [0, 1).
    pub fn begin(&self, head: &HeaderMap, peer_is_trusted: bool, dice: f64) -> Place {
        let parent = parent_in(head);
        let decided = parent.filter(|_| peer_is_trusted).map(|parent| parent.sampled);
        Place {
            trace: parent.map_or_else(|| self.ids.trace(), |parent| parent.trace),
            parent: parent.map(|parent| parent.span),
            server: self.ids.span(),
            upstream: self.ids.span(),
            sampled: decided.unwrap_or(dice < self.sample),
            random: parent.is_some_and(|parent| parent.random),
        }
    }

    /// Returns a name for one more span.
    pub fn span_id(&self) -> SpanId {
        self.ids.span()
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Hands over the spans of an exchange that has ended; never waits.
    pub fn submit(&self, place: &Place, spans: Vec<Span>) {
        let finished = Finished {
            trace: place.trace,
            flags: place.flags(),
            spans,
            ended: Instant::now(),
            unix_nanos: self.clock.unix_nanos(),
        };
        if let Err(error) = self.queue.try_send(finished) {
            self.dropped.inc_by(error.into_inner().spans.len() as u64);
        }
    }
}

impl Place {
    /// Returns the `traceparent` that the application gets.
    pub fn traceparent(&self) -> HeaderValue {
        parent::render(self.trace, self.upstream, self.flags())
    }

    fn flags(&self) -> u8 {
        u8::from(self.sampled) | u8::from(self.random) << 1
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:032x}", self.0)
    }
}

impl Ids {
    fn new(random: &dyn SecureRandom) -> Result<Self, NoEntropy> {
        let names = || random_bytes::<8>(random).map(|bytes| Names::new(u64::from_ne_bytes(*bytes)));
        Ok(Self { traces: [names()?, names()?], spans: names()? })
    }

    fn trace(&self) -> TraceId {
        let [high, low] = self.traces.each_ref().map(|half| u128::from(half.next()));
        TraceId((high << 64 | low).max(1))
    }

    fn span(&self) -> SpanId {
        SpanId(self.spans.next().max(1))
    }
}

/// Returns the span that a request head names as its parent, if it names one and names it well.
fn parent_in(head: &HeaderMap) -> Option<Parent> {
    let mut values = head.get_all(TRACEPARENT).iter();
    let parent = parent::parse(values.next()?.as_bytes())?;
    values.next().is_none().then_some(parent)
}

#[cfg(test)]
mod tests;
