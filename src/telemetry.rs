//! Logs: one line an event on standard output, as JSON or as text.
//!
//! Only Doorward's own events follow the configured level. Libraries are limited to WARN, because
//! they print request headers, and so tokens, at DEBUG. `pingora_proxy` is silenced, because its
//! errors quote the query and up to a whole response head of the application; the proxy reports
//! those exchanges itself, in [`access`]. Access and audit lines are written at every level, audit
//! lines to a file of their own where one is configured.

pub mod access;
pub mod audit;
mod file;
pub mod id_sequence;
mod json;
pub mod traces;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{Targets, filter_fn};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{Layer, Registry, reload};

use self::file::LineFile;
use crate::config;
use crate::config::telemetry::{Format, Level};
use crate::time::Clock;

/// The level of a running process, which a reload may change.
#[derive(Clone)]
pub struct Verbosity {
    handle: reload::Handle<Targets, Registry>,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// Logging was started in this process before.
    #[error("logging was started before")]
    Started(#[source] TryInitError),
    /// The audit file cannot be opened.
    #[error("telemetry.audit_file: cannot open {0}")]
    AuditFile(PathBuf, #[source] io::Error),
}

/// The target of audit events.
const AUDIT: &str = "audit";

struct LineTimer(Arc<dyn Clock>);

/// Returns an error and all of its sources in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Starts logging for the whole process; refuses a second start.
pub fn start(config: &config::Telemetry, clock: Arc<dyn Clock>) -> Result<Verbosity, LoggingError> {
    let open =
        |path: &PathBuf| LineFile::open(path.clone()).map_err(|error| LoggingError::AuditFile(path.clone(), error));
    let audit = config.audit_file.as_ref().map(open).transpose()?;
    let (subscriber, verbosity) = subscriber(config, clock, io::stdout, audit);
    subscriber.try_init().map_err(LoggingError::Started)?;
    Ok(verbosity)
}

impl Verbosity {
    /// Sets the least severe level that is written; refused once logging has ended.
    pub fn set(&self, level: Level) -> Result<(), reload::Error> {
        self.handle.reload(filter(level))
    }
}

impl FormatTime for LineTimer {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        writer.write_str(&self.0.now().rfc3339())
    }
}

fn subscriber<W>(
    config: &config::Telemetry,
    clock: Arc<dyn Clock>,
    writer: W,
    audit: Option<LineFile>,
) -> (impl Subscriber + Send + Sync, Verbosity)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(config.log_level));
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    let lines = match config.log_format {
        Format::Json => lines.event_format(json::JsonLines::new(clock.clone())).boxed(),
        Format::Text => lines.with_timer(LineTimer(clock.clone())).boxed(),
    };
    // The audit file is always JSON, also where standard output is text.
    let audit = audit.map(|file| {
        let lines =
            tracing_subscriber::fmt::layer().with_writer(Arc::new(file)).event_format(json::JsonLines::new(clock));
        lines.with_filter(filter_fn(|event| event.target() == AUDIT))
    });
    let lines = match &audit {
        Some(_) => lines.with_filter(filter_fn(|event| event.target() != AUDIT)).boxed(),
        None => lines,
    };
    (Registry::default().with(filter).with(lines).with(audit), Verbosity { handle })
}

// Targets above WARN are listed one by one, so that a new dependency is limited to WARN by default.
fn filter(level: Level) -> Targets {
    let level = match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    };
    Targets::new()
        .with_default(level.min(LevelFilter::WARN))
        .with_target("pingora_proxy", LevelFilter::OFF)
        .with_target("doorward", level)
        .with_target("access", LevelFilter::INFO)
        .with_target(AUDIT, LevelFilter::INFO)
}

#[cfg(test)]
pub(crate) mod tests;
