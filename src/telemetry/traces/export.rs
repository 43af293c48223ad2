//! Sends spans to a collector: OTLP over HTTP, protobuf.
//!
//! One deadline for all of it. A batch that the collector does not take is counted and dropped; that
//! it does not is said once, and once more when it does again. Its headers and its answers are in no
//! log.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span as ProtoSpan};
use prometheus::IntCounter;
use prost::Message;
use reqwest::{Client, Response, Url};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::TraceId;
use super::span::{self, Span, Value};
use crate::config::telemetry::Traces;
use crate::metrics::Metrics;
use crate::outgoing::{self, ClientError};
use crate::telemetry::with_causes;

/// Exchanges whose spans may wait: with five spans each, a few megabytes.
pub(super) const QUEUE: usize = 2048;

/// Exchanges in one request.
const BATCH: usize = 256;
/// How long the first of a batch waits for company.
const LINGER: Duration = Duration::from_secs(1);
const DEADLINE: Duration = Duration::from_secs(10);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an answer is read: then the connection is given up instead.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The spans of an exchange that has ended.
pub(super) struct Finished {
    pub(super) trace: TraceId,
    pub(super) flags: u8,
    pub(super) spans: Vec<Span>,
    /// A moment, and the wall-clock time of it.
    pub(super) ended: Instant,
    pub(super) unix_nanos: u64,
}

/// Sends spans until it is told to stop.
pub struct Exporter {
    client: Client,
    url: Url,
    headers: HeaderMap,
    resource: Resource,
    waiting: mpsc::Receiver<Finished>,
    counters: Counters,
    reachable: bool,
}

/// Why no span can be sent at all: a mistake in the configuration, or something that this process lacks.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The address is none.
    #[error("telemetry.traces.endpoint must be an http or https URL without credentials")]
    Url,
    /// A header cannot be sent.
    #[error("telemetry.traces.headers holds one that cannot be sent")]
    Header,
    /// The system gives no random numbers.
    #[error("the system's random number generator failed")]
    NoEntropy,
    /// There is no client to send them.
    #[error("telemetry.traces cannot be used")]
    Client(#[from] ClientError),
}

struct Counters {
    exported: IntCounter,
    refused: IntCounter,
    unreachable: IntCounter,
}

/// Why a batch was not taken.
enum Failure {
    Refused(StatusCode),
    Unanswered(String),
}

impl Exporter {
    pub(super) fn new(
        config: &Traces,
        endpoint: &str,
        waiting: mpsc::Receiver<Finished>,
        metrics: &Metrics,
    ) -> Result<Self, CollectorError> {
        let mut url = Url::parse(endpoint).map_err(|_| CollectorError::Url)?;
        if url.path() == "/" {
            url.set_path("/v1/traces");
        }
        let counter = |result| metrics.trace_spans.with_label_values(&[result]);
        Ok(Self {
            client: client(config, url.scheme() != "http")?,
            url,
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

    /// Sends batches until `stop` holds true, and then what is still waiting.
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

    // Returns false when it is time to end; what was taken by then is in `batch` all the same.
    async fn fill(&mut self, batch: &mut Vec<Finished>, stop: &mut watch::Receiver<bool>) -> bool {
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

    async fn send(&mut self, batch: Vec<Finished>) {
        let spans: Vec<ProtoSpan> = batch.into_iter().flat_map(span::messages).collect();
        let count = spans.len() as u64;
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let answer = request.header(CONTENT_TYPE, "application/x-protobuf").body(self.message(spans)).send().await;
        let taken = match answer {
            Ok(response) => read(response).await,
            Err(error) => Err(unanswered(error)),
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
                    Failure::Refused(status) => (&self.counters.refused, format!("it answered {status}")),
                    Failure::Unanswered(cause) => (&self.counters.unreachable, cause),
                };
                counter.inc_by(count);
                // Once: the counter says how it goes on.
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

/// Puts what becomes of spans at zero; returns the counter of those that found the queue full.
pub(super) fn create_series(metrics: &Metrics) -> IntCounter {
    for result in ["exported", "refused", "unreachable"] {
        metrics.trace_spans.with_label_values(&[result]);
    }
    metrics.trace_spans.with_label_values(&["queue_full"])
}

fn client(config: &Traces, tls: bool) -> Result<Client, ClientError> {
    outgoing::builder(config.ca.as_deref(), tls)?
        .timeout(DEADLINE)
        .pool_max_idle_per_host(1)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .build()
        .map_err(ClientError::Client)
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
    let attributes = attributes.into_iter().map(|(key, text)| span::attribute(&key, Value::Text(text)));
    Resource { attributes: attributes.collect(), ..Resource::default() }
}

/// Returns how many spans the collector did not want although it took the batch.
async fn read(mut response: Response) -> Result<u64, Failure> {
    let status = response.status();
    if !status.is_success() {
        return Err(Failure::Refused(status));
    }
    let mut body = Vec::new();
    while body.len() <= ANSWER_BYTES_MAX {
        match response.chunk().await {
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => break,
            Err(error) => return Err(unanswered(error)),
        }
    }
    // An answer in another form is still one to a batch that was taken.
    let partial = ExportTraceServiceResponse::decode(body.as_slice()).unwrap_or_default().partial_success;
    Ok(partial.map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0)))
}

// The address may carry a key in its query.
fn unanswered(error: reqwest::Error) -> Failure {
    Failure::Unanswered(with_causes(&error.without_url()))
}
