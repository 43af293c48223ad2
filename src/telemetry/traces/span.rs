//! One span, as it is made and as it is sent.
//!
//! A span holds names from closed sets and numbers: never a path, a query, a header, a user or a token.

use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span as ProtoSpan, Status, span::SpanKind, status::StatusCode};
use tokio::time::Instant;

use super::ids::{SpanId, TraceId};

/// The spans of an exchange that has ended.
pub(super) struct FinishedExchange {
    pub(super) trace: TraceId,
    pub(super) flags: u8,
    pub(super) spans: Vec<Span>,
    /// One instant, on the monotonic clock that the spans use.
    pub(super) ended: Instant,
    /// The same instant in nanoseconds since the Unix epoch.
    pub(super) unix_nanos: u64,
}

/// One timed step of an exchange.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its id within the trace.
    pub id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// Its name, from a closed set or the configuration.
    pub name: String,
    /// Which side of a call it shows.
    pub kind: SpanSide,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// Its attributes, by the names of the semantic conventions.
    pub attributes: Vec<(&'static str, AttributeValue)>,
    /// Whether it failed.
    pub failed: bool,
}

/// Which side of a call a span shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanSide {
    /// The callee's.
    Server,
    /// The caller's.
    Client,
    /// Neither: a step inside of the process.
    Internal,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// A name from a closed set.
    Name(&'static str),
    /// A name from the configuration, or an id.
    Text(String),
    /// A number.
    Number(i64),
}

/// It is known whether the parent is in another process; it is in one (opentelemetry.proto `SpanFlags`).
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// Returns the spans of an exchange as they are sent.
pub(super) fn messages(finished: FinishedExchange) -> Vec<ProtoSpan> {
    let FinishedExchange { trace, flags, spans, ended, unix_nanos } = finished;
    let trace = trace.0.to_be_bytes().to_vec();
    let at = |moment: Instant| {
        let ago = u64::try_from(ended.saturating_duration_since(moment).as_nanos()).unwrap_or(u64::MAX);
        unix_nanos.saturating_sub(ago)
    };
    let message = |span: Span| ProtoSpan {
        trace_id: trace.clone(),
        span_id: span.id.0.to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|SpanId(id)| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(flags) | REMOTE_KNOWN | if span.kind == SpanSide::Server { REMOTE } else { 0 },
        name: span.name,
        kind: match span.kind {
            SpanSide::Server => SpanKind::Server,
            SpanSide::Client => SpanKind::Client,
            SpanSide::Internal => SpanKind::Internal,
        }
        .into(),
        start_time_unix_nano: at(span.began),
        end_time_unix_nano: at(span.ended),
        attributes: span.attributes.into_iter().map(|(key, value)| attribute(key, value)).collect(),
        status: span.failed.then(|| Status { message: String::new(), code: StatusCode::Error.into() }),
        ..ProtoSpan::default()
    };
    spans.into_iter().map(message).collect()
}

/// Returns an attribute as it is sent.
pub(super) fn attribute(key: &str, value: AttributeValue) -> KeyValue {
    let value = match value {
        AttributeValue::Name(name) => ProtoValue::StringValue(name.to_owned()),
        AttributeValue::Text(text) => ProtoValue::StringValue(text),
        AttributeValue::Number(number) => ProtoValue::IntValue(number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
