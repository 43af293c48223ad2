//! The metrics: one struct, one registry, every label from a closed set.
//!
//! A label is never a user, tenant, path, token, address or raw error. Every reachable combination
//! exists from the start, so that `rate()` has a zero to begin from.

pub mod exemplars;
mod openmetrics;

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    Result,
};

use self::exemplars::Exemplars;

const DECISION_SECONDS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 1.0,
];
const HTTP_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const STORE_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const LAG_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// Declares the struct and its constructor; a field's doc comment is also its help text.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $make:ident($name:literal $(, $more:expr)*);)*) => {
        /// Every metric of the process.
        pub struct Metrics {
            registry: Registry,
            /// Sampled exchanges, for two of the histograms.
            pub exemplars: Exemplars,
            $($(#[doc = $help])+ pub $field: $kind,)*
        }

        impl Metrics {
            /// Returns all metrics, registered and at zero.
            pub fn new() -> Result<Self> {
                let registry = Registry::new();
                $(let $field = $make(&registry, $name, concat!($($help),+).trim() $(, $more)*)?;)*
                #[cfg(target_os = "linux")]
                registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
                Ok(Self { registry, exemplars: Exemplars::default(), $($field,)* })
            }
        }
    };
}

metrics! {
    /// Exchanges answered. `handler` is proxy, verify, admin or a surface; `route` a rule's id; `code` the status.
    http_requests: IntCounterVec = counters("http_requests_total", &["handler", "route", "code"]);
    /// Time from request head to end of response.
    http_request_duration: HistogramVec = histograms("http_request_duration_seconds", &["handler", "route"], HTTP_SECONDS);
    /// Requests that the surfaces answered, by surface, operation (`none` for an unknown path or method) and status.
    auth_requests: IntCounterVec = counters("auth_requests_total", &["surface", "op", "status"]);
    /// Time from a request to a surface to its answer, by surface and operation.
    auth_request_duration: HistogramVec = histograms("auth_request_duration_seconds", &["surface", "op"], HTTP_SECONDS);
    /// Exchanges under way.
    http_requests_in_flight: IntGaugeVec = gauges("http_requests_in_flight", &["handler"]);
    /// Client connections open.
    downstream_connections: IntGauge = gauge("downstream_connections");
    /// Time from forwarding a request to the end of its response.
    upstream_request_duration: Histogram = histogram("upstream_request_duration_seconds", HTTP_SECONDS);
    /// Whether the application also listens beyond loopback, where callers reach it without Doorward.
    upstream_exposed: IntGauge = gauge("upstream_exposed");
    /// Failures of the application side, by kind.
    upstream_errors: IntCounterVec = counters("upstream_errors_total", &["kind"]);
    /// What the guard decided and why.
    auth_decisions: IntCounterVec = counters("auth_decisions_total", &["outcome", "reason", "principal"]);
    /// How long the guard took, by where the answer came from.
    auth_decision_duration: HistogramVec = histograms("auth_decision_duration_seconds", &["source"], DECISION_SECONDS);
    /// Identity headers that callers sent and Doorward removed.
    identity_headers_stripped: IntCounterVec = counters("identity_headers_stripped_total", &["header"]);
    /// Session cache look-ups by result.
    session_cache_requests: IntCounterVec = counters("session_cache_requests_total", &["result"]);
    /// Sessions in the cache.
    session_cache_entries: IntGauge = gauge("session_cache_entries");
    /// Entries that the cache dropped, by cause.
    session_cache_evictions: IntCounterVec = counters("session_cache_evictions_total", &["cause"]);
    /// From a revocation's publication to its effect on this replica.
    invalidation_lag: Histogram = histogram("invalidation_lag_seconds", LAG_SECONDS);
    /// Whether this replica receives revocations.
    invalidation_stream_connected: IntGauge = gauge("invalidation_stream_connected");
    /// When this replica last received a message of the revocation stream, in Unix seconds.
    invalidation_last_event_timestamp: Gauge = float_gauge("invalidation_last_event_timestamp_seconds");
    /// Generations of the cache that ended, by reason.
    invalidation_resyncs: IntCounterVec = counters("invalidation_resyncs_total", &["reason"]);
    /// Revocations that a fail-over had undone and a reconnect applied again.
    invalidation_resurrected: IntCounter = counter("invalidation_resurrected_total");
    /// Revocations this replica holds in memory.
    tombstones: IntGauge = gauge("tombstones");
    /// Revocations that the store has not confirmed yet.
    revocation_journal_depth: IntGauge = gauge("revocation_journal_depth");
    /// Operations of the session store, by result. `backend` is redis or sqlite.
    store_operations: IntCounterVec = counters("store_operations_total", &["backend", "op", "result"]);
    /// Time of operations of the session store.
    store_operation_duration: HistogramVec = histograms("store_operation_duration_seconds", &["backend", "op"], STORE_SECONDS);
    /// Whether the session store can be used.
    store_up: IntGaugeVec = gauges("store_up", &["backend"]);
    /// How often the session store could be used again after it could not.
    store_reconnects: IntCounterVec = counters("store_reconnects_total", &["backend"]);
    /// Sessions started, by kind of principal and method.
    sessions_created: IntCounterVec = counters("sessions_created_total", &["kind", "method"]);
    /// Sessions ended before their time, by reason.
    sessions_revoked: IntCounterVec = counters("sessions_revoked_total", &["reason"]);
    /// Refresh tokens used. `result` is next, repeated, ahead or reused.
    refresh_tokens: IntCounterVec = counters("refresh_tokens_total", &["result"]);
    /// Guests to be made users, by outcome.
    rebinds: IntCounterVec = counters("rebinds_total", &["outcome"]);
    /// Rows of the application that changed hands in rebinds.
    rebound_rows: IntCounter = counter("rebound_rows_total");
    /// Open exchanges cut because their session ended.
    streams_cut: IntCounterVec = counters("streams_cut_total", &["reason"]);
    /// Sign-ins by method and outcome.
    login_attempts: IntCounterVec = counters("login_attempts_total", &["method", "outcome"]);
    /// Sections of bootstrap by outcome.
    bootstrap_sections: IntCounterVec = counters("bootstrap_sections_total", &["section", "outcome"]);
    /// How long the source of a section of bootstrap took.
    bootstrap_section_duration: HistogramVec = histograms("bootstrap_section_duration_seconds", &["section"], HTTP_SECONDS);
    /// Requests refused by a rate limit.
    rate_limited: IntCounterVec = counters("rate_limited_total", &["limit"]);
    /// Webhook deliveries by type of event and outcome.
    webhooks: IntCounterVec = counters("webhooks_total", &["type", "outcome"]);
    /// When a provider's keys were last fetched, in Unix seconds.
    jwks_last_success_timestamp: prometheus::GaugeVec = float_gauges("jwks_last_success_timestamp_seconds", &["provider"]);
    /// Key fetches by provider and result.
    jwks_refreshes: IntCounterVec = counters("jwks_refreshes_total", &["provider", "result"]);
    /// Keys held, by provider.
    jwks_keys: IntGaugeVec = gauges("jwks_keys", &["provider"]);
    /// Tokens naming a key that the provider does not publish.
    jwks_unknown_kid: IntCounterVec = counters("jwks_unknown_kid_total", &["provider"]);
    /// Requests to a provider by operation and result.
    idp_requests: IntCounterVec = counters("idp_requests_total", &["provider", "operation", "result"]);
    /// How long a provider took to answer, by operation.
    idp_request_duration: HistogramVec = histograms("idp_request_duration_seconds", &["provider", "operation"], HTTP_SECONDS);
    /// Events of the outbox, by kind and state: pending or dead. Each replica reports the whole outbox.
    outbox_depth: IntGaugeVec = gauges("outbox_depth", &["kind", "state"]);
    /// Age of the oldest pending event, in seconds; 0 without one. Each replica reports the whole outbox.
    outbox_oldest_age: prometheus::GaugeVec = float_gauges("outbox_oldest_age_seconds", &["kind"]);
    /// Attempts of this replica to deliver an event, by outcome: delivered, retried (later) or dead.
    outbox_deliveries: IntCounterVec = counters("outbox_deliveries_total", &["kind", "outcome"]);
    /// Spans of sampled exchanges by what became of them: exported, refused, unreachable, or the queue was full.
    trace_spans: IntCounterVec = counters("trace_spans_total", &["result"]);
    /// The build: always 1.
    build_info: IntGaugeVec = gauges("build_info", &["version", "revision"]);
    /// The configuration in force, by hash: always 1.
    config_info: IntGaugeVec = gauges("config_info", &["hash"]);
    /// Whether the last reload was accepted.
    config_last_reload_successful: IntGauge = gauge("config_last_reload_successful");
    /// When a reload was last accepted, in Unix seconds.
    config_last_reload_success_timestamp: Gauge = float_gauge("config_last_reload_success_timestamp_seconds");
    /// When the value in force of a secret was taken up, in Unix seconds, by its key in the configuration.
    secret_last_reload_success_timestamp: prometheus::GaugeVec = float_gauges("secret_last_reload_success_timestamp_seconds", &["name"]);
    /// When the certificate in use ends, in Unix seconds.
    tls_certificate_not_after_timestamp: prometheus::GaugeVec = float_gauges("tls_certificate_not_after_timestamp_seconds", &["name"]);
    /// Readiness, by check.
    ready: IntGaugeVec = gauges("ready", &["check"]);
    /// Whether the process is draining.
    draining: IntGauge = gauge("draining");
    /// Panics caught.
    panics: IntCounter = counter("panics_total");
}

impl Metrics {
    /// Returns the exposition in the text format, version 0.0.4.
    pub fn render(&self) -> Result<String> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    /// Returns the exposition in the `OpenMetrics` text format, version 1.0.0, with exemplars.
    pub fn render_openmetrics(&self) -> String {
        openmetrics::page(&self.registry.gather(), &self.exemplars)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("doorward_{name}"), help)
}

fn counter(registry: &Registry, name: &str, help: &str) -> Result<IntCounter> {
    let metric = IntCounter::with_opts(opts(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntCounterVec> {
    let metric = IntCounterVec::new(opts(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> Result<IntGauge> {
    let metric = IntGauge::with_opts(opts(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<IntGaugeVec> {
    let metric = IntGaugeVec::new(opts(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn float_gauge(registry: &Registry, name: &str, help: &str) -> Result<Gauge> {
    let metric = Gauge::with_opts(opts(name, help))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn float_gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> Result<prometheus::GaugeVec> {
    let metric = prometheus::GaugeVec::new(opts(name, help), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Result<Histogram> {
    let metric = Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()))?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histograms(registry: &Registry, name: &str, help: &str, labels: &[&str], buckets: &[f64]) -> Result<HistogramVec> {
    let metric = HistogramVec::new(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()), labels)?;
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}
