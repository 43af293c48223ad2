//! Logs: one line an event on standard output, as JSON or for people.
//!
//! Only Doorward's own events follow the configured level. Everything else is held at WARN, because
//! libraries print request headers, and so tokens, at DEBUG; `pingora_proxy` is silent, because its
//! errors quote the query and up to a whole response head of the application: the proxy reports
//! those exchanges itself, in [`access`]. Access and audit lines are written at every level, audit
//! lines to a file of their own where one is configured.

pub mod access;
pub mod audit;
mod file;
mod json;
pub mod names;
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
use crate::time::{Clock, Timestamp};

/// The level of a running process, which a reload may change.
#[derive(Clone)]
pub struct Verbosity {
    handle: reload::Handle<Targets, Registry>,
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The process logs already.
    #[error("logging was started before")]
    Started(#[source] TryInitError),
    /// The audit file cannot be opened.
    #[error("telemetry.audit_file: cannot open {0}")]
    AuditFile(PathBuf, #[source] io::Error),
}

/// The target of audit events.
const AUDIT: &str = "audit";

struct Timer(Arc<dyn Clock>);

/// Returns an error and everything behind it in one line.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |&error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

/// Starts logging for the whole process; refuses a second start.
pub fn start(config: &config::Telemetry, clock: Arc<dyn Clock>) -> Result<Verbosity, StartError> {
    let open =
        |path: &PathBuf| LineFile::open(path.clone()).map_err(|error| StartError::AuditFile(path.clone(), error));
    let audit = config.audit_file.as_ref().map(open).transpose()?;
    let (subscriber, verbosity) = subscriber(config, clock, io::stdout, audit);
    subscriber.try_init().map_err(StartError::Started)?;
    Ok(verbosity)
}

impl Verbosity {
    /// Sets the least severe level that is written; refused once logging has ended.
    pub fn set(&self, level: Level) -> Result<(), reload::Error> {
        self.handle.reload(filter(level))
    }
}

impl FormatTime for Timer {
    fn format_time(&self, writer: &mut Writer<'_>) -> std::fmt::Result {
        write!(writer, "{}", rfc3339(self.0.now()))
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
        Format::Json => lines.event_format(json::Lines::new(clock.clone())).boxed(),
        Format::Text => lines.with_timer(Timer(clock.clone())).boxed(),
    };
    // A file is for machines, whatever people read on standard output.
    let audit = audit.map(|file| {
        let lines = tracing_subscriber::fmt::layer().with_writer(Arc::new(file)).event_format(json::Lines::new(clock));
        lines.with_filter(filter_fn(|event| event.target() == AUDIT))
    });
    let lines = match &audit {
        Some(_) => lines.with_filter(filter_fn(|event| event.target() != AUDIT)).boxed(),
        None => lines,
    };
    (Registry::default().with(filter).with(lines).with(audit), Verbosity { handle })
}

// A list of what may speak, not of what must be quiet: the next dependency is quiet by default.
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

fn rfc3339(time: Timestamp) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_millis(std::time::UNIX_EPOCH + std::time::Duration::from_millis(time.0))
}

#[cfg(test)]
pub(crate) mod tests;
