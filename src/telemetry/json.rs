//! One event as one line of JSON: `@timestamp`, `log.level`, `log.logger`, `message`, fields.
//!
//! Field names are ECS names with dots, not nested objects. The JSON writer escapes every value, so
//! that none can forge a line. `tracing` spans are not written: each line is complete on its own.

use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::time::Clock;

/// Writes events as JSON lines.
pub(super) struct JsonLines {
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct LineFields(Map<String, Value>);

impl JsonLines {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }
}

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut fields = LineFields::default();
        event.record(&mut fields);
        let LineFields(mut line) = fields;
        let metadata = event.metadata();
        // A record of the `log` crate has its target in a field.
        let logger = line.remove("log.target").unwrap_or_else(|| metadata.target().into());
        line.retain(|name, _| !matches!(name.as_str(), "log.module_path" | "log.file" | "log.line"));
        line.insert("@timestamp".to_owned(), self.clock.now().rfc3339().into());
        line.insert("log.level".to_owned(), level_name(*metadata.level()).into());
        line.insert("log.logger".to_owned(), logger);
        writeln!(writer, "{}", Value::Object(line))
    }
}

impl LineFields {
    fn insert(&mut self, field: &Field, value: Value) {
        self.0.insert(field.name().to_owned(), value);
    }
}

impl Visit for LineFields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.insert(field, format!("{value:?}").into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.insert(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.insert(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.insert(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.insert(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.insert(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.insert(field, value.to_string().into());
    }
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::ERROR => "error",
        Level::WARN => "warn",
        Level::INFO => "info",
        Level::DEBUG => "debug",
        Level::TRACE => "trace",
    }
}
