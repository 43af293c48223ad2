//! Logs and traces.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use super::secret_digest::SecretDigest;
use crate::secret::Secret;

/// Logs and traces.
#[derive(Clone, Debug, PartialEq)]
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

impl FromKeys for Telemetry {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            log_level: keys.take("log_level"),
            log_format: keys.take("log_format"),
            access_log_sample: keys.take("access_log_sample"),
            audit_file: keys.take("audit_file"),
            traces: keys.take("traces"),
        }
    }
}

/// Where traces go, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Traces {
    /// Where OTLP over HTTP is taken; no traces are made while it is absent.
    pub endpoint: Option<String>,
    /// Which share of exchanges is traced, 0 to 1, unless a trusted peer has decided.
    pub sample: f64,
    /// Headers to send along, e.g. a collector's key.
    pub headers: BTreeMap<String, Secret>,
    /// PEM file with the authorities to trust for `https`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// The name of this service in traces.
    pub service_name: String,
    /// What else is said of this process: OpenTelemetry's resource attributes.
    pub resource: BTreeMap<String, String>,
}

impl FromKeys for Traces {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            endpoint: keys.take("endpoint"),
            sample: keys.take("sample"),
            headers: keys.take("headers"),
            ca: keys.take("ca"),
            service_name: keys.take("service_name"),
            resource: keys.take("resource"),
        }
    }
}

impl Traces {
    /// Returns the headers for the collector.
    pub(super) fn secrets(&self) -> SecretDigest {
        let Self { endpoint: _, sample: _, headers, ca: _, service_name: _, resource: _ } = self;
        let parts = headers.iter().flat_map(|(name, value)| [name.as_bytes(), value.expose().as_bytes()]);
        SecretDigest::of("telemetry.traces.headers", parts)
    }
}

/// Severity of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

impl FromTree for Level {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [
            ("error", Self::Error),
            ("warn", Self::Warn),
            ("info", Self::Info),
            ("debug", Self::Debug),
            ("trace", Self::Trace),
        ];
        place.one_of(notes, &words, Self::Error)
    }
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl FromTree for Format {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("json", Self::Json), ("text", Self::Text)];
        place.one_of(notes, &words, Self::Json)
    }
}
