//! Sends spans to a collector: OTLP over HTTP, protobuf.
//!
//! One deadline bounds each request. A batch that the collector does not accept is counted and
//! dropped. The first failure is logged, and the first success after it. The collector's headers and
//! answers are never logged.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan};
use prometheus::IntCounter;
use prost::Message;
use tokio::sync::{mpsc, watch};

use super::span::{self, AttributeValue, FinishedExchange};
use crate::config::telemetry::Traces;
use crate::metrics::Metrics;
use crate::outgoing::{Client, ClientError, ClientSettings, OutgoingError, Reply};
use crate::telemetry::with_causes;

/// How many exchanges' spans may wait: with five spans each, a few megabytes.
pub(super) const QUEUE: usize = 2048;

/// How many exchanges go into one request.
const BATCH: usize = 256;
/// Maximum batching delay.
const LINGER: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest answer that is read, in bytes; the connection is closed on a larger one.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Sends batches of spans to the collector until it is stopped.
pub struct Exporter {
    client: Client,
    headers: HeaderMap,
    resource: Resource,
    waiting: mpsc::Receiver<FinishedExchange>,
    counters: Counters,
    reachable: bool,
}

/// Why no span can be sent at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// A header cannot be sent.
    #[error("telemetry.traces.headers holds one that cannot be sent")]
    Header,
    /// The system's random number generator failed.
    #[error("the system's random number generator failed")]
    NoEntropy,
    /// The endpoint or its ca cannot be used.
    #[error("telemetry.traces cannot be used")]
    Client(#[from] ClientError),
}

struct Counters {
    exported: IntCounter,
    refused: IntCounter,
    unreachable: IntCounter,
}

/// Why a batch was not accepted.
enum ExportError {
    Refused(StatusCode),
    Unanswered(String),
}

impl Exporter {
    pub(super) fn new(
        config: &Traces,
        endpoint: &str,
        waiting: mpsc::Receiver<FinishedExchange>,
        metrics: &Metrics,
    ) -> Result<Self, CollectorError> {
        let settings = ClientSettings {
            deadline: Some(DEADLINE),
            idle_connections: 1,
            idle_timeout: IDLE_TIMEOUT,
            ..ClientSettings::default()
        };
        let client = Client::to_url(endpoint, config.ca.as_deref(), &settings)?;
        let counter = |result| metrics.trace_spans.with_label_values(&[result]);
        Ok(Self {
            client: client.with_default_path("/v1/traces"),
            headers: headers(config)?,
            resource: resource(config),
            waiting,
            counters: Counters {
                exported: counter("exported"),
                refused: counter("refused"),
                unreachable: counter("unreachable"),
            },
            reachable: true,
        })
    }

    /// Sends batches until `stop` holds true, and then the spans that are still queued.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut batch = Vec::new();
        while self.fill(&mut batch, &mut stop).await {
            self.send(std::mem::take(&mut batch)).await;
        }
        self.waiting.close();
        loop {
            self.waiting.recv_many(&mut batch, BATCH).await;
            if batch.is_empty() {
                return;
            }
            self.send(std::mem::take(&mut batch)).await;
        }
    }

    // Returns false once `stop` holds true; what was received by then is in `batch` all the same.
    async fn fill(&mut self, batch: &mut Vec<FinishedExchange>, stop: &mut watch::Receiver<bool>) -> bool {
        let stopped = async { stop.wait_for(|stop| *stop).await.is_ok() };
        let filled = async {
            let taken = self.waiting.recv_many(batch, BATCH).await;
            let lingered = tokio::time::sleep(LINGER);
            tokio::pin!(lingered);
            while batch.len() < BATCH {
                let room = BATCH - batch.len();
                tokio::select! {
                    more = self.waiting.recv_many(batch, room) => if more == 0 { break },
                    () = &mut lingered => break,
                }
            }
            taken > 0
        };
        tokio::select! {
            filled = filled => filled,
            _ = stopped => false,
        }
    }

    async fn send(&mut self, batch: Vec<FinishedExchange>) {
        let spans: Vec<ProtoSpan> = batch.into_iter().flat_map(span::messages).collect();
        let count = spans.len() as u64;
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let taken = match self.client.send(Method::POST, headers, Some(self.message(spans))).await {
            Ok(reply) => read(reply).await,
            Err(error) => Err(unanswered(&error)),
        };
        match taken {
            Ok(rejected) => {
                let rejected = rejected.min(count);
                self.counters.exported.inc_by(count - rejected);
                self.counters.refused.inc_by(rejected);
                if !std::mem::replace(&mut self.reachable, true) {
                    tracing::info!("The collector takes spans again");
                }
            }
            Err(failure) => {
                let (counter, cause) = match failure {
                    ExportError::Refused(status) => (&self.counters.refused, format!("it answered {status}")),
                    ExportError::Unanswered(cause) => (&self.counters.unreachable, cause),
                };
                counter.inc_by(count);
                // Once: the counter shows the rest.
                if std::mem::replace(&mut self.reachable, false) {
                    tracing::warn!(error = cause, "The collector does not take spans; they are dropped");
                }
            }
        }
    }

    fn message(&self, spans: Vec<ProtoSpan>) -> Vec<u8> {
        let scope = InstrumentationScope {
            name: "doorward".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let spans = ScopeSpans { scope: Some(scope), spans, ..ScopeSpans::default() };
        let spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![spans],
            ..ResourceSpans::default()
        };
        ExportTraceServiceRequest { resource_spans: vec![spans] }.encode_to_vec()
    }
}

/// Creates the series of `trace_spans` at zero; returns the counter of spans dropped at a full queue.
pub(super) fn create_series(metrics: &Metrics) -> IntCounter {
    for result in ["exported", "refused", "unreachable"] {
        metrics.trace_spans.with_label_values(&[result]);
    }
    metrics.trace_spans.with_label_values(&["queue_full"])
}

fn headers(config: &Traces) -> Result<HeaderMap, CollectorError> {
    let mut headers = HeaderMap::new();
    for (name, secret) in &config.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| CollectorError::Header)?;
        let mut value = HeaderValue::from_str(secret.expose()).map_err(|_| CollectorError::Header)?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(headers)
}

fn resource(config: &Traces) -> Resource {
    let mut attributes = config.resource.clone();
    attributes.insert("service.name".to_owned(), config.service_name.clone());
    attributes.entry("service.version".to_owned()).or_insert_with(|| env!("CARGO_PKG_VERSION").to_owned());
    let attributes = attributes.into_iter().map(|(key, text)| span::attribute(&key, AttributeValue::Text(text)));
    Resource { attributes: attributes.collect(), ..Resource::default() }
}

/// Returns how many spans of an accepted batch the collector rejected.
async fn read(reply: Reply) -> Result<u64, ExportError> {
    let status = reply.status();
    if !status.is_success() {
        return Err(ExportError::Refused(status));
    }
    // A success status with an unreadable or oversized body still means that the batch was accepted.
    let body = match reply.body(ANSWER_BYTES_MAX).await {
        Ok(body) => body,
        Err(OutgoingError::TooLarge(_)) => return Ok(0),
        Err(error) => return Err(unanswered(&error)),
    };
    let partial = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default().partial_success;
    Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
}

fn unanswered(error: &OutgoingError) -> ExportError {
    ExportError::Unanswered(with_causes(error))
}
