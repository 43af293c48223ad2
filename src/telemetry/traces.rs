//! Traces: the span context of each exchange, whether it is recorded, and the export of its spans.
//!
//! The trace of a caller is continued. A peer in `trusted_proxies` decides whether it is recorded;
//! for every other peer the sampling rate does, because an untrusted caller must not be able to make
//! Doorward or the application record everything, nor send the application a `tracestate`. Spans wait
//! in a bounded queue and are dropped when it is full: no request ever waits for a collector.

mod export;
mod ids;
mod parent;
pub mod span;

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use http::{HeaderMap, HeaderName, HeaderValue};
use prometheus::IntCounter;
use tokio::sync::mpsc;
use tokio::time::Instant;

use self::export::QUEUE;
pub use self::export::{CollectorError, Exporter};
use self::ids::TraceIds;
pub use self::ids::{SpanId, TraceId};
use self::parent::Parent;
use self::span::{FinishedExchange, Span};
use crate::config::telemetry::Traces;
use crate::metrics::Metrics;
use crate::time::{Clock, Timestamp};

/// W3C Trace Context §3.2.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// W3C Trace Context §3.3.
pub const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Makes span contexts and queues finished spans for the exporter.
pub struct Tracer {
    sample: f64,
    ids: TraceIds,
    clock: Arc<dyn Clock>,
    queue: mpsc::Sender<FinishedExchange>,
    dropped: IntCounter,
}

/// The spans of one exchange within its trace, and whether they are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanContext {
    /// The trace.
    pub trace: TraceId,
    /// The caller's span.
    pub parent: Option<SpanId>,
    /// The span of the exchange as the caller sees it.
    pub server: SpanId,
    /// The span of the request to the application.
    pub upstream: SpanId,
    /// Whether spans are recorded, by Doorward and by the application.
    pub sampled: bool,
    /// Whether the caller said that its trace id is random (W3C Trace Context Level 2 §3.2.2.5.2).
    random: bool,
}

/// Returns the trace that a `traceparent` names; `None` unless the value follows the specification exactly.
pub fn trace_in(traceparent: &HeaderValue) -> Option<TraceId> {
    parent::parse(traceparent.as_bytes()).map(|parent| parent.trace)
}

impl Tracer {
    /// Returns a tracer, and the exporter that must run to send its spans; `None` when no endpoint is configured.
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
        let ids = TraceIds::new(random).map_err(|_| CollectorError::NoEntropy)?;
        Ok(Some((Arc::new(Self { sample: config.sample, ids, clock, queue, dropped }), exporter)))
    }

    /// Returns the span context of an exchange with this request head. `sample_value` is a number
    /// in [0, 1): the exchange is recorded if it lies below the sampling rate.
    pub fn begin(&self, head: &HeaderMap, peer_is_trusted: bool, sample_value: f64) -> SpanContext {
        let parent = parent_in(head);
        let decided = parent.filter(|_| peer_is_trusted).map(|parent| parent.sampled);
        SpanContext {
            trace: parent.map_or_else(|| self.ids.trace(), |parent| parent.trace),
            parent: parent.map(|parent| parent.span),
            server: self.ids.span(),
            upstream: self.ids.span(),
            sampled: decided.unwrap_or(sample_value < self.sample),
            random: parent.is_some_and(|parent| parent.random),
        }
    }

    /// Returns the id of one more span.
    pub fn span_id(&self) -> SpanId {
        self.ids.span()
    }

    /// Returns the wall-clock time.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Queues the spans of an exchange that has ended; drops and counts them when the queue is full.
    pub fn submit(&self, context: &SpanContext, spans: Vec<Span>) {
        let finished = FinishedExchange {
            trace: context.trace,
            flags: context.flags(),
            spans,
            ended: Instant::now(),
            unix_nanos: self.clock.unix_nanos(),
        };
        if let Err(error) = self.queue.try_send(finished) {
            self.dropped.inc_by(error.into_inner().spans.len() as u64);
        }
    }
}

impl SpanContext {
    /// Returns the `traceparent` that is sent to the application.
    pub fn traceparent(&self) -> HeaderValue {
        parent::render(self.trace, self.upstream, self.flags())
    }

    fn flags(&self) -> u8 {
        u8::from(self.sampled) | u8::from(self.random) << 1
    }
}

/// Returns the span that a request head names as its parent, if it has exactly one valid `traceparent`.
fn parent_in(head: &HeaderMap) -> Option<Parent> {
    let mut values = head.get_all(TRACEPARENT).iter();
    let parent = parent::parse(values.next()?.as_bytes())?;
    values.next().is_none().then_some(parent)
}

#[cfg(test)]
mod tests;
