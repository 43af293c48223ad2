//! Rules about logs and traces.

use super::{file_exists, is_token, web_host};
use crate::config::Telemetry;
use crate::config::problem::{Finding, KeyPath};
use crate::config::telemetry::Traces;

pub(super) fn check(telemetry: &Telemetry, found: &mut Vec<Finding>) {
    share("telemetry.access_log_sample", telemetry.access_log_sample, found);
    if telemetry.audit_file.as_ref().is_some_and(|path| !path.is_absolute() || path.file_name().is_none()) {
        found.push(Finding::new(KeyPath::of("telemetry.audit_file"), "must be the absolute path of a file"));
    }
    traces(&telemetry.traces, found);
}

fn traces(traces: &Traces, found: &mut Vec<Finding>) {
    share("telemetry.traces.sample", traces.sample, found);
    let endpoint = traces.endpoint.as_deref();
    if endpoint.is_some_and(|url| web_host(url).is_none() || url.contains('#')) {
        let message = "must be an http or https URL without credentials, e.g. \"http://collector:4318\"";
        found.push(Finding::new(KeyPath::of("telemetry.traces.endpoint"), message));
    }
    for (name, value) in &traces.headers {
        let key = || KeyPath::of("telemetry.traces.headers").key(name);
        if !is_token(name) {
            found.push(Finding::new(key(), "is not a header name"));
        }
        if http::HeaderValue::from_str(value.expose()).is_err() {
            found.push(Finding::new(key(), "is not a header value: visible ASCII on one line"));
        }
    }
    if traces.ca.is_some() && endpoint.is_some_and(|url| !url.starts_with("https://")) {
        let message = "needs a telemetry.traces.endpoint that begins with https://";
        let finding = Finding::new(KeyPath::of("telemetry.traces.ca"), message);
        found.push(finding.resting_on("telemetry.traces.endpoint"));
    }
    file_exists(KeyPath::of("telemetry.traces.ca"), traces.ca.as_deref(), found);
    if traces.resource.contains_key("service.name") {
        let key = KeyPath::of("telemetry.traces.resource").key("service.name");
        found.push(Finding::new(key, "belongs into telemetry.traces.service_name"));
    }
    if traces.service_name.is_empty() {
        found.push(Finding::new(KeyPath::of("telemetry.traces.service_name"), "must not be empty"));
    }
}

fn share(key: &str, value: f64, found: &mut Vec<Finding>) {
    if !(0.0..=1.0).contains(&value) {
        found.push(Finding::new(KeyPath::of(key), "must be from 0 to 1"));
    }
}
