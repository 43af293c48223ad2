//! OpenTelemetry's own environment variables, as a layer between the defaults and the files.
//!
//! A pod often has them for every container. What Doorward cannot follow (gRPC, a sampler it does
//! not know, a number that is none) is left out, as OpenTelemetry asks; everything else is
//! checked like any configuration and named in problems by its variable.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::problem::KeyPath;

type OtelVariables = BTreeMap<String, String>;

/// Returns what the variables say: the key, its value and the variable's name.
pub(super) fn layer(environment: &OtelVariables) -> Vec<(KeyPath, Value, &'static str)> {
    let mut layer = Vec::new();
    let mut lay = |key: &str, found: Option<(Value, &'static str)>| {
        layer.extend(found.map(|(value, origin)| (KeyPath::of("telemetry.traces").key(key), value, origin)));
    };
    lay("endpoint", endpoint(environment));
    lay("sample", sample(environment));
    let headers = ["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"];
    lay("headers", first(environment, headers).map(|(text, origin)| (pairs(text), origin)));
    let authorities = ["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"];
    lay("ca", first(environment, authorities).map(|(text, origin)| (Value::from(text), origin)));
    let mut resource = first(environment, ["OTEL_RESOURCE_ATTRIBUTES"]).map(|(text, origin)| (pairs(text), origin));
    let named =
        resource.as_mut().and_then(|(pairs, origin)| Some((pairs.as_object_mut()?.remove("service.name")?, *origin)));
    lay("resource", resource);
    let name = first(environment, ["OTEL_SERVICE_NAME"]).map(|(text, origin)| (Value::from(text), origin));
    lay("service_name", name.or(named));
    layer
}

fn endpoint(environment: &OtelVariables) -> Option<(Value, &'static str)> {
    let protocol = first(environment, ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"]);
    let other_protocol = protocol.is_some_and(|(protocol, _)| protocol != "http/protobuf");
    let disabled = set(environment, "OTEL_SDK_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true"));
    if disabled || other_protocol || set(environment, "OTEL_TRACES_EXPORTER") == Some("none") {
        return None;
    }
    if let Some((url, origin)) = first(environment, ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]) {
        return Some((Value::from(url), origin));
    }
    // The one for all signals is where the paths of each begin.
    let (url, origin) = first(environment, ["OTEL_EXPORTER_OTLP_ENDPOINT"])?;
    Some((Value::from(format!("{}/v1/traces", url.trim_end_matches('/'))), origin))
}

fn sample(environment: &OtelVariables) -> Option<(Value, &'static str)> {
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    match set(environment, SAMPLER) {
        Some("always_on" | "parentbased_always_on") => Some((Value::from(1.0), SAMPLER)),
        Some("always_off" | "parentbased_always_off") => Some((Value::from(0.0), SAMPLER)),
        None | Some("traceidratio" | "parentbased_traceidratio") => {
            let share = set(environment, ARGUMENT)?.parse::<f64>().ok()?;
            (0.0..=1.0).contains(&share).then(|| (Value::from(share), ARGUMENT))
        }
        Some(_) => None,
    }
}

fn first<'a, const N: usize>(
    environment: &'a OtelVariables,
    names: [&'static str; N],
) -> Option<(&'a str, &'static str)> {
    names.into_iter().find_map(|name| Some((set(environment, name)?, name)))
}

// OpenTelemetry: an empty variable is one that is not set.
fn set<'a>(environment: &'a OtelVariables, name: &str) -> Option<&'a str> {
    environment.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
}

// W3C Baggage without its properties: `key=value,key=value`, values percent-encoded.
fn pairs(text: &str) -> Value {
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| (key.trim().to_owned(), Value::from(percent_decoded(value.trim()))));
    Value::Object(pairs.filter(|(key, _)| !key.is_empty()).collect::<Map<_, _>>())
}

fn percent_decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        match part.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend(part.bytes().skip(2));
            }
            None => bytes.extend([b"%", part.as_bytes()].concat()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
