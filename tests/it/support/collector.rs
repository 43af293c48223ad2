//! A stand-in for an OpenTelemetry collector: it takes OTLP over HTTP and keeps what it was sent.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as SpanStatus};
use prost::Message;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::within;

/// A running collector; it ends on drop.
pub struct Collector {
    url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// One request that it took.
#[derive(Clone, Debug)]
pub struct Export {
    /// The request's path.
    pub path: String,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body's bytes.
    pub body: Bytes,
    /// Attributes of the process that sent it.
    pub resource: BTreeMap<String, String>,
    spans: Vec<Seen>,
}

/// A span as it arrived.
#[derive(Clone, Debug, PartialEq)]
pub struct Seen {
    /// In hex.
    pub trace: String,
    /// In hex.
    pub id: String,
    /// In hex; empty without one.
    pub parent: String,
    /// What it is called.
    pub name: String,
    /// As in `SpanKind`: 1 internal, 2 server, 3 client.
    pub kind: i32,
    /// Nanoseconds.
    pub began: u64,
    /// Nanoseconds.
    pub ended: u64,
    /// Attributes as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub failed: bool,
}

/// What it does with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Takes it.
    Takes,
    /// Takes it without its first span.
    TakesInPart,
    /// Answers 503.
    Refuses,
    /// Says nothing at all.
    Silent,
    /// Sends the sender elsewhere.
    Redirects,
}

struct Shared {
    taken: watch::Sender<Vec<Export>>,
    manner: watch::Sender<Manner>,
    asked: watch::Sender<u64>,
}

impl Collector {
    /// Starts one on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = listener.local_addr().expect("a bound socket has an address");
        let shared = Arc::new(Shared {
            taken: watch::Sender::default(),
            manner: watch::Sender::new(Manner::Takes),
            asked: watch::Sender::default(),
        });
        let router = Router::new().fallback(take).with_state(shared.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move { axum::serve(listener, router).await.expect("a listener goes on") });
        Self { url: format!("http://{address}"), shared, _tasks: tasks }
    }

    /// Returns its address, without a path.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes what it does with requests from now on.
    pub fn becomes(&self, manner: Manner) {
        self.shared.manner.send_replace(manner);
    }

    /// Returns every request that it took.
    pub fn exports(&self) -> Vec<Export> {
        self.shared.taken.borrow().clone()
    }

    /// Returns every span that it took.
    pub fn spans(&self) -> Vec<Seen> {
        self.exports().into_iter().flat_map(|export| export.spans).collect()
    }

    /// Waits until it was asked, whatever it answered, more than `count` times; returns how often.
    pub async fn asked_more_than(&self, count: u64) -> u64 {
        let mut asked = self.shared.asked.subscribe();
        *within("a request at the collector", asked.wait_for(|asked| *asked > count)).await.expect("it goes on")
    }

    /// Waits for the span of an exchange that `wanted` accepts; returns it and the rest of what was
    /// recorded with it, by name.
    pub async fn exchange(&self, wanted: impl Fn(&Seen) -> bool) -> (Seen, BTreeMap<String, Seen>) {
        let mut taken = self.shared.taken.subscribe();
        let found = |taken: &Vec<Export>| {
            let spans = taken.iter().flat_map(|export| &export.spans);
            spans.clone().find(|span| span.kind == 2 && wanted(span)).map(|server| {
                let same = |span: &&Seen| span.trace == server.trace && span.id != server.id && span.kind != 2;
                (server.clone(), spans.filter(same).map(|span| (span.name.clone(), span.clone())).collect())
            })
        };
        let seen = within("a trace at the collector", taken.wait_for(|taken| found(taken).is_some())).await;
        let seen = seen.expect("the collector outlives the wait");
        found(&seen).expect("it was there a moment ago")
    }
}

impl Seen {
    /// Returns an attribute, empty when there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Returns whether it is about the exchange that was answered with this `X-Request-ID`.
    pub fn is_of(&self, request_id: &str) -> bool {
        self.attribute("http.request.id") == request_id
    }

    fn from(span: Span) -> Self {
        let hex = |bytes: &[u8]| bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
        Self {
            trace: hex(&span.trace_id),
            id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            name: span.name,
            kind: span.kind,
            began: span.start_time_unix_nano,
            ended: span.end_time_unix_nano,
            attributes: texts(&span.attributes),
            failed: span.status.is_some_and(|status| status.code() == SpanStatus::Error),
        }
    }
}

async fn take(State(shared): State<Arc<Shared>>, request: axum::extract::Request) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.expect("a whole body");
    let manner = *shared.manner.borrow();
    shared.asked.send_modify(|asked| *asked += 1);
    match manner {
        Manner::Takes | Manner::TakesInPart => {}
        Manner::Refuses => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Manner::Silent => std::future::pending().await,
        Manner::Redirects => {
            return (StatusCode::TEMPORARY_REDIRECT, [("location", "/elsewhere")]).into_response();
        }
    }
    let message = ExportTraceServiceRequest::decode(body.clone()).expect("a message of OTLP");
    let mut answer = ExportTraceServiceResponse::default();
    for sent in message.resource_spans {
        let resource = texts(&sent.resource.unwrap_or_default().attributes);
        let spans = sent.scope_spans.into_iter().flat_map(|scope| scope.spans).map(Seen::from);
        let (path, headers) = (head.uri.path().to_owned(), head.headers.clone());
        let mut export = Export { path, headers, body: body.clone(), resource, spans: spans.collect() };
        if manner == Manner::TakesInPart {
            export.spans.remove(0);
            answer.partial_success =
                Some(ExportTracePartialSuccess { rejected_spans: 1, error_message: "one too many".to_owned() });
        }
        shared.taken.send_modify(|taken| taken.push(export));
    }
    ([("content-type", "application/x-protobuf")], answer.encode_to_vec()).into_response()
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let text = |value: &Value| match value {
        Value::StringValue(text) => text.clone(),
        Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    };
    let value = |pair: &KeyValue| pair.value.as_ref().and_then(|value| value.value.as_ref()).map(text);
    attributes.iter().map(|pair| (pair.key.clone(), value(pair).unwrap_or_default())).collect()
}
