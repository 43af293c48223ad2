//! Traces as they are configured: by files, and by the variables that OpenTelemetry has for it.

use super::Sources;
use crate::config::telemetry::Traces;

/// Returns what a set of variables amounts to, with `yaml` as the only file.
#[track_caller]
fn traces(variables: &[(&str, &str)], yaml: &str) -> Traces {
    let sources = Sources::new().file("a.yaml", yaml);
    let sources = variables.iter().fold(sources, |sources, (name, value)| sources.variable(name, value));
    sources.loaded().config.telemetry.traces
}

#[test]
fn an_endpoint_for_all_signals_is_where_the_paths_begin() {
    for (variables, endpoint) in [
        (&[][..], None),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318")], Some("http://a:4318/v1/traces")),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a:4318/otlp/")], Some("http://a:4318/otlp/v1/traces")),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://b/x")],
            Some("http://b/x"),
        ),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], None),
        (
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")],
            Some("http://a/v1/traces"),
        ),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_SDK_DISABLED", "true")], None),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"), ("OTEL_TRACES_EXPORTER", "none")], None),
    ] {
        assert_eq!(traces(variables, "").endpoint.as_deref(), endpoint, "{variables:?}");
    }
}

#[test]
fn the_share_is_that_of_the_sampler_or_else_the_default() {
    for (sampler, argument, share) in [
        ("", "", 0.01),
        ("", "0.5", 0.5),
        ("always_on", "0.5", 1.0),
        ("parentbased_always_off", "", 0.0),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("traceidratio", "2", 0.01),
        ("jaeger_remote", "endpoint=http://a", 0.01),
    ] {
        let variables = [("OTEL_TRACES_SAMPLER", sampler), ("OTEL_TRACES_SAMPLER_ARG", argument)];
        let found = traces(&variables, "").sample;
        assert!((found - share).abs() < f64::EPSILON, "{sampler} {argument} is {found}");
    }
}

#[test]
fn files_and_own_variables_win_over_those_of_open_telemetry() {
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://a"),
        ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
        ("OTEL_SERVICE_NAME", "theirs"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-a=1, x-b = 2%3D2,broken"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=neither,a=b%"),
        ("DOORWARD__TELEMETRY__TRACES__SAMPLE", "0.25"),
    ];
    let file = "telemetry: { traces: { endpoint: null, service_name: ours, headers: { x-a: mine } } }";
    let found = traces(&variables, file);
    assert_eq!((found.endpoint, found.service_name.as_str()), (None, "ours"));
    assert!((found.sample - 0.25).abs() < f64::EPSILON);
    let headers: Vec<_> = found.headers.iter().map(|(name, value)| (name.as_str(), value.expose())).collect();
    assert_eq!(headers, [("x-a", "mine"), ("x-b", "2=2")]);
    assert_eq!(found.resource["a"], "b%");
    assert_eq!(traces(&variables[4..5], "").service_name, "neither");
}

#[test]
fn what_cannot_be_sent_is_refused_by_name_and_shows_no_secret() {
    let problems = Sources::new()
        .file("a.yaml", "telemetry: { audit_file: audit.log, traces: { sample: 1.5, ca: /nowhere, resource: { service.name: x }, headers: { 'x y': canary, b: \"c\\nanary\" } } }")
        .variable("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318")
        .problems();
    assert_eq!(
        problems,
        [
            r#"telemetry.audit_file: "audit.log" must be the absolute path of a file (from a.yaml)"#,
            "telemetry.traces.sample: 1.5 must be from 0 to 1 (from a.yaml)",
            r#"telemetry.traces.endpoint: "collector:4318" must be an http or https URL without credentials, e.g. "http://collector:4318" (from OTEL_EXPORTER_OTLP_TRACES_ENDPOINT)"#,
            r#"telemetry.traces.headers.b: "[redacted]" is not a header value: visible ASCII on one line (from a.yaml)"#,
            r#"telemetry.traces.headers.x y: "[redacted]" is not a header name (from a.yaml)"#,
            r#"telemetry.traces.ca: "/nowhere" needs a telemetry.traces.endpoint that begins with https:// (from a.yaml)"#,
            r#"telemetry.traces.ca: "/nowhere" is not a readable file: No such file or directory (os error 2) (from a.yaml)"#,
            r#"telemetry.traces.resource.service.name: "x" belongs into telemetry.traces.service_name (from a.yaml)"#,
        ]
    );
}

#[test]
fn collector_headers_are_not_shown() {
    let loaded = Sources::new()
        .file("a.yaml", "telemetry: { traces: { headers: { a: canary } } }")
        .variable("OTEL_EXPORTER_OTLP_HEADERS", "b=canary")
        .loaded();
    assert!(!loaded.effective.contains("canary"), "{}", loaded.effective);
    assert!(!format!("{:?}", loaded.config).contains("canary"));
}
