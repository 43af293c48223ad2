//! What Prometheus sees: one struct, one registry, every label from a closed set.
//!
//! Never a user, tenant, path, token, address or raw error as a label. Every reachable combination
//! exists from the start, so that `rate()` has a zero to begin from.

use prometheus::{
    Gauge, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

type Result<T> = std::result::Result<T, prometheus::Error>;

const DECISION_SECONDS: &[f64] = &[
    0.000_005, 0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05,
    0.1, 0.25, 1.0,
];
const HTTP_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
const STORE_SECONDS: &[f64] =
    &[0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0];
const LAG_SECONDS: &[f64] = &[0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0, 60.0];

/// Every metric of the process.
pub struct Metrics {
    registry: Registry,
    /// Exchanges answered. `handler` is proxy, auth or admin; `route` a rule's id; `code` the status.
    pub http_requests: IntCounterVec,
    /// Time from request head to end of response.
    pub http_request_duration: HistogramVec,
    /// Exchanges under way.
    pub http_requests_in_flight: IntGaugeVec,
    /// Client connections open.
    pub downstream_connections: IntGauge,
    /// Time from forwarding a request to the end of its response.
    pub upstream_request_duration: Histogram,
    /// Failures of the application side, by kind.
    pub upstream_errors: IntCounterVec,
    /// What the guard decided and why.
    pub auth_decisions: IntCounterVec,
    /// How long the guard took, by where the answer came from.
    pub auth_decision_duration: HistogramVec,
    /// Identity headers that callers sent and Doorward removed.
    pub identity_headers_stripped: IntCounterVec,
    /// Session cache look-ups by result.
    pub session_cache_requests: IntCounterVec,
    /// Sessions in the cache.
    pub session_cache_entries: IntGauge,
    /// Entries that the cache dropped, by cause.
    pub session_cache_evictions: IntCounterVec,
    /// From a revocation's publication to its effect on this replica.
    pub invalidation_lag: Histogram,
    /// Whether this replica hears of revocations.
    pub invalidation_stream_connected: IntGauge,
    /// When this replica last proved that it hears, in Unix seconds.
    pub invalidation_last_event_timestamp: Gauge,
    /// Generations of the cache that ended, by reason.
    pub invalidation_resyncs: IntCounterVec,
    /// Revocations that a fail-over had undone and a reconnect applied again.
    pub invalidation_resurrected: IntCounter,
    /// Revocations this replica holds in memory.
    pub tombstones: IntGauge,
    /// Revocations that the store has not confirmed yet.
    pub revocation_journal_depth: IntGauge,
    /// Store operations by result.
    pub redis_commands: IntCounterVec,
    /// Time of store operations.
    pub redis_command_duration: HistogramVec,
    /// Whether the store can be reached.
    pub redis_up: IntGauge,
    /// Connections to the store that were made again.
    pub redis_reconnects: IntCounter,
    /// Sessions started, by kind of principal and method.
    pub sessions_created: IntCounterVec,
    /// Sessions ended before their time, by reason.
    pub sessions_revoked: IntCounterVec,
    /// Open exchanges cut because their session ended.
    pub streams_cut: IntCounterVec,
    /// Sign-ins by method and outcome.
    pub login_attempts: IntCounterVec,
    /// Requests refused by a rate limit.
    pub rate_limited: IntCounterVec,
    /// When a provider's keys were last fetched, in Unix seconds.
    pub jwks_last_success_timestamp: prometheus::GaugeVec,
    /// Key fetches by provider and result.
    pub jwks_refreshes: IntCounterVec,
    /// Keys held, by provider.
    pub jwks_keys: IntGaugeVec,
    /// Tokens naming a key that the provider does not publish.
    pub jwks_unknown_kid: IntCounterVec,
    /// The build: always 1.
    pub build_info: IntGaugeVec,
    /// The configuration in force, by hash: always 1.
    pub config_info: IntGaugeVec,
    /// Whether the last reload was accepted.
    pub config_last_reload_successful: IntGauge,
    /// When a reload was last accepted, in Unix seconds.
    pub config_last_reload_success_timestamp: Gauge,
    /// When the certificate in use ends, in Unix seconds.
    pub tls_certificate_not_after_timestamp: prometheus::GaugeVec,
    /// Readiness, by check.
    pub ready: IntGaugeVec,
    /// Whether the process is draining.
    pub draining: IntGauge,
    /// Panics caught.
    pub panics: IntCounter,
}

impl Metrics {
    /// Returns all metrics, registered and at zero.
    #[expect(clippy::too_many_lines, reason = "a flat list with one entry per metric")]
    pub fn new() -> Result<Self> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            http_requests: counters(r, "http_requests_total", "Exchanges answered", &["handler", "route", "code"])?,
            http_request_duration: histograms(
                r,
                "http_request_duration_seconds",
                "Request head to end of response",
                &["handler", "route"],
                HTTP_SECONDS,
            )?,
            http_requests_in_flight: gauges(r, "http_requests_in_flight", "Exchanges under way", &["handler"])?,
            downstream_connections: gauge(r, "downstream_connections", "Client connections open")?,
            upstream_request_duration: histogram(
                r,
                "upstream_request_duration_seconds",
                "Request forwarded to end of its response",
                HTTP_SECONDS,
            )?,
            upstream_errors: counters(r, "upstream_errors_total", "Failures of the application side", &["kind"])?,
            auth_decisions: counters(
                r,
                "auth_decisions_total",
                "What the guard decided and why",
                &["outcome", "reason", "principal"],
            )?,
            auth_decision_duration: histograms(
                r,
                "auth_decision_duration_seconds",
                "How long the guard took",
                &["source"],
                DECISION_SECONDS,
            )?,
            identity_headers_stripped: counters(
                r,
                "identity_headers_stripped_total",
                "Identity headers that callers sent",
                &["header"],
            )?,
            session_cache_requests: counters(r, "session_cache_requests_total", "Session cache look-ups", &["result"])?,
            session_cache_entries: gauge(r, "session_cache_entries", "Sessions in the cache")?,
            session_cache_evictions: counters(
                r,
                "session_cache_evictions_total",
                "Entries the cache dropped",
                &["cause"],
            )?,
            invalidation_lag: histogram(
                r,
                "invalidation_lag_seconds",
                "Publication of a revocation to its effect here",
                LAG_SECONDS,
            )?,
            invalidation_stream_connected: gauge(
                r,
                "invalidation_stream_connected",
                "Whether this replica hears of revocations",
            )?,
            invalidation_last_event_timestamp: float_gauge(
                r,
                "invalidation_last_event_timestamp_seconds",
                "When this replica last proved that it hears",
            )?,
            invalidation_resyncs: counters(
                r,
                "invalidation_resyncs_total",
                "Generations of the cache that ended",
                &["reason"],
            )?,
            invalidation_resurrected: counter(
                r,
                "invalidation_resurrected_total",
                "Revocations undone by a fail-over and applied again",
            )?,
            tombstones: gauge(r, "tombstones", "Revocations held in memory")?,
            revocation_journal_depth: gauge(
                r,
                "revocation_journal_depth",
                "Revocations that the store has not confirmed yet",
            )?,
            redis_commands: counters(r, "redis_commands_total", "Store operations", &["op", "result"])?,
            redis_command_duration: histograms(
                r,
                "redis_command_duration_seconds",
                "Time of store operations",
                &["op"],
                STORE_SECONDS,
            )?,
            redis_up: gauge(r, "redis_up", "Whether the store can be reached")?,
            redis_reconnects: counter(r, "redis_reconnects_total", "Connections to the store made again")?,
            sessions_created: counters(r, "sessions_created_total", "Sessions started", &["kind", "method"])?,
            sessions_revoked: counters(r, "sessions_revoked_total", "Sessions ended before their time", &["reason"])?,
            streams_cut: counters(
                r,
                "streams_cut_total",
                "Open exchanges cut because their session ended",
                &["reason"],
            )?,
            login_attempts: counters(r, "login_attempts_total", "Sign-ins", &["method", "outcome"])?,
            rate_limited: counters(r, "rate_limited_total", "Requests refused by a rate limit", &["limit"])?,
            jwks_last_success_timestamp: float_gauges(
                r,
                "jwks_last_success_timestamp_seconds",
                "When keys were last fetched",
                &["provider"],
            )?,
            jwks_refreshes: counters(r, "jwks_refreshes_total", "Key fetches", &["provider", "result"])?,
            jwks_keys: gauges(r, "jwks_keys", "Keys held", &["provider"])?,
            jwks_unknown_kid: counters(
                r,
                "jwks_unknown_kid_total",
                "Tokens naming a key the provider does not publish",
                &["provider"],
            )?,
            build_info: gauges(r, "build_info", "The build", &["version", "revision"])?,
            config_info: gauges(r, "config_info", "The configuration in force", &["hash"])?,
            config_last_reload_successful: gauge(
                r,
                "config_last_reload_successful",
                "Whether the last reload was accepted",
            )?,
            config_last_reload_success_timestamp: float_gauge(
                r,
                "config_last_reload_success_timestamp_seconds",
                "When a reload was last accepted",
            )?,
            tls_certificate_not_after_timestamp: float_gauges(
                r,
                "tls_certificate_not_after_timestamp_seconds",
                "When the certificate in use ends",
                &["name"],
            )?,
            ready: gauges(r, "ready", "Readiness", &["check"])?,
            draining: gauge(r, "draining", "Whether the process is draining")?,
            panics: counter(r, "panics_total", "Panics caught")?,
            registry: registry.clone(),
        };
        #[cfg(target_os = "linux")]
        registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
        Ok(metrics)
    }

    /// Returns the exposition in the text format, version 0.0.4.
    pub fn render(&self) -> Result<String> {
        prometheus::TextEncoder::new().encode_to_string(&self.registry.gather())
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
