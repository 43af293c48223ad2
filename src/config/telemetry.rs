//! Logs and traces.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer};

use super::sessions::secret;
use crate::secret::Secret;

/// Logs and traces.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The least severe level that is written.
    pub log_level: Level,
    /// The form of a log line.
    pub log_format: Format,
    /// Which share of successful exchanges is logged, 0 to 1; denials and failures always are.
    pub access_log_sample: f64,
    /// The file that session and security events are appended to; standard output when absent.
    pub audit_file: Option<PathBuf>,
    /// Where traces go.
    pub traces: Traces,
}

/// Where traces go, and how many.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traces {
    /// Where OTLP over HTTP is taken; no traces are made while it is absent.
    pub endpoint: Option<String>,
    /// Which share of exchanges is traced, 0 to 1, unless a trusted peer has decided.
    pub sample: f64,
    /// Headers to send along, e.g. a collector's key.
    #[serde(deserialize_with = "secrets")]
    pub headers: BTreeMap<String, Secret>,
    /// PEM file with the authorities to trust for `https`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// The name of this service in traces.
    pub service_name: String,
    /// What else is said of this process: OpenTelemetry's resource attributes.
    pub resource: BTreeMap<String, String>,
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

fn secrets<'de, D: Deserializer<'de>>(input: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "secret")] Secret);
    let wrapped = BTreeMap::<String, Wrapped>::deserialize(input)?;
    Ok(wrapped.into_iter().map(|(name, Wrapped(secret))| (name, secret)).collect())
}
