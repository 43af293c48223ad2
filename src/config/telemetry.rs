//! Logs.

use serde::Deserialize;

/// Logs.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The least severe level that is written.
    pub log_level: Level,
    /// The form of a log line.
    pub log_format: Format,
    /// Which share of successful exchanges is logged, 0 to 1; denials and failures always are.
    pub access_log_sample: f64,
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something failed that an operator should see.
    Error,
    /// Something is wrong or risky.
    Warn,
    /// What happened.
    Info,
    /// Why it happened.
    Debug,
    /// Every step.
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}
