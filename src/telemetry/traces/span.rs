//! One span, as it is made and as it is sent.
//!
//! A span holds names from closed sets and numbers: never a path, a query, a header, a user or a token.

use opentelemetry_proto::tonic::common::v1::any_value::Value as ProtoValue;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::{Span as ProtoSpan, Status, span::SpanKind, status::StatusCode};
use tokio::time::Instant;

use super::SpanId;
use super::export::Finished;

/// What took place between two moments of an exchange.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its name within the trace.
    pub id: SpanId,
    /// The span that it is part of.
    pub parent: Option<SpanId>,
    /// What it is called.
    pub name: String,
    /// Which side of a call it shows.
    pub kind: Kind,
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// What is known of it, by the names of the semantic conventions.
    pub attributes: Vec<(&'static str, Value)>,
    /// Whether it failed.
    pub failed: bool,
}

/// Which side of a call a span shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// That of the called one.
    Server,
    /// That of the caller.
    Client,
    /// None.
    Internal,
}

/// What may be known of a span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A name from a closed set.
    Name(&'static str),
    /// A name from the configuration, or an id.
    Text(String),
    /// A number.
    Number(i64),
}

/// The parent is in another process, or not; and that this is known (opentelemetry.proto `SpanFlags`).
const REMOTE_KNOWN: u32 = 0x100;
const REMOTE: u32 = 0x200;

/// Returns the spans of an exchange as they are sent.
pub(super) fn messages(finished: Finished) -> Vec<ProtoSpan> {
    let Finished { trace, flags, spans, ended, unix_nanos } = finished;
    let trace = trace.0.to_be_bytes().to_vec();
    let at = |moment: Instant| {
        let ago = u64::try_from(ended.saturating_duration_since(moment).as_nanos()).unwrap_or(u64::MAX);
        unix_nanos.saturating_sub(ago)
    };
    let message = |span: Span| ProtoSpan {
        trace_id: trace.clone(),
        span_id: span.id.0.to_be_bytes().to_vec(),
        parent_span_id: span.parent.map(|SpanId(id)| id.to_be_bytes().to_vec()).unwrap_or_default(),
        flags: u32::from(flags) | REMOTE_KNOWN | if span.kind == Kind::Server { REMOTE } else { 0 },
        name: span.name,
        kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
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
pub(super) fn attribute(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Name(name) => ProtoValue::StringValue(name.to_owned()),
        Value::Text(text) => ProtoValue::StringValue(text),
        Value::Number(number) => ProtoValue::IntValue(number),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}
