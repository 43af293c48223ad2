//! The operators' port: probes and metrics. Never reachable through the proxy port.
//!
//! Liveness depends on nothing outside the process. Readiness is latched: an outage of the store
//! or of a provider must not empty a whole Service at once, so once ready, only draining ends it,
//! and an exposed application where the operator asked for that.
//! A client of this port learns whether the process works, and nothing about callers.

mod accept;
mod health;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, StatusCode};

use self::accept::MetricsFormat;
pub use self::health::{Check, Health};

use crate::metrics::Metrics;

const METRICS_TYPE: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
const OPENMETRICS_TYPE: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
const PLAIN: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");

/// The paths that exist, and the status codes that each can have.
const ROUTES: [(&str, &[&str]); 6] = [
    ("startupz", &["200", "503"]),
    ("livez", &["200", "503"]),
    ("healthz", &["200", "503"]),
    ("readyz", &["200", "503"]),
    ("metrics", &["200"]),
    ("unmatched", &["404"]),
];

#[derive(Clone)]
struct Admin {
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// Returns the admin endpoints: `/startupz`, `/livez` (also `/healthz`), `/readyz` and `/metrics`.
pub fn router(health: Arc<Health>, metrics: Arc<Metrics>) -> Router {
    for (route, codes) in ROUTES {
        for code in codes {
            metrics.http_requests.with_label_values(&["admin", route, code]);
        }
    }
    let admin = Admin { health, metrics };
    Router::new()
        .route("/startupz", get(startup))
        .route("/livez", get(live))
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(scrape))
        .layer(from_fn_with_state(Arc::clone(&admin.metrics), count))
        .with_state(admin)
}

async fn startup(State(admin): State<Admin>, request: Request) -> Response {
    probe(&request, &admin.health.startup())
}

async fn live(State(admin): State<Admin>, request: Request) -> Response {
    probe(&request, &admin.health.liveness())
}

async fn ready(State(admin): State<Admin>, request: Request) -> Response {
    probe(&request, &admin.health.readiness())
}

async fn scrape(State(admin): State<Admin>, headers: HeaderMap) -> Response {
    for check in admin.health.readiness() {
        admin.metrics.ready.with_label_values(&[&check.name]).set(check.passed.into());
    }
    admin.metrics.draining.set(admin.health.is_draining().into());
    if accept::format(&headers) == MetricsFormat::OpenMetrics {
        return ([(CONTENT_TYPE, OPENMETRICS_TYPE)], admin.metrics.render_openmetrics()).into_response();
    }
    match admin.metrics.render() {
        Ok(text) => ([(CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(error.cause = %error, "metrics cannot be rendered");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn count(State(metrics): State<Arc<Metrics>>, request: Request, next: Next) -> Response {
    let path = request.uri().path().trim_start_matches('/');
    let route = ROUTES.iter().map(|(route, _)| *route).find(|route| *route == path).unwrap_or("unmatched");
    let mut response = next.run(request).await;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    metrics.http_requests.with_label_values(&["admin", route, response.status().as_str()]).inc();
    response
}

fn probe(request: &Request, checks: &[Check]) -> Response {
    let passed = checks.iter().all(|check| check.passed);
    let status = if passed { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verdict = if passed { "ok\n" } else { "failed\n" };
    let verbose = request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "verbose"));
    let text =
        if verbose { checks.iter().map(Check::to_string).collect::<String>() + verdict } else { verdict.to_owned() };
    (status, [(CONTENT_TYPE, PLAIN)], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;
    use crate::time::{Clock, ManualClock, Timestamp};

    struct Port {
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        clock: Arc<ManualClock>,
    }

    impl Port {
        fn new() -> Self {
            let clock = Arc::new(ManualClock::at(Timestamp(0)));
            let health = Arc::new(Health::new(Arc::clone(&clock) as Arc<dyn Clock>, &["proxy", "background"]));
            Self { health, metrics: Arc::new(Metrics::new().unwrap()), clock }
        }

        async fn request(&self, method: &str, path: &str) -> (u16, HeaderMap, String) {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            let router = router(Arc::clone(&self.health), Arc::clone(&self.metrics));
            let (head, body) = router.oneshot(request).await.unwrap().into_parts();
            let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
            (head.status.as_u16(), head.headers, text)
        }

        async fn status(&self, path: &str) -> u16 {
            self.request("GET", path).await.0
        }
    }

    #[tokio::test]
    async fn startup_waits_for_the_listeners_only() {
        let port = Port::new();
        assert_eq!(port.status("/startupz").await, 503);
        port.health.mark_started();
        assert_eq!(port.status("/startupz").await, 200);
    }

    #[tokio::test]
    async fn readiness_waits_for_start_store_and_keys_and_then_stays() {
        let port = Port::new();
        let marks: [fn(&Health); 3] = [Health::mark_started, Health::mark_store_ready, Health::mark_keys_ready];
        for mark in marks {
            assert_eq!(port.status("/readyz").await, 503);
            mark(&port.health);
        }
        assert_eq!(port.status("/readyz").await, 200);
        port.clock.advance(Duration::from_hours(1));
        assert_eq!(port.status("/readyz").await, 200, "readiness does not depend on liveness");
    }

    #[tokio::test]
    async fn draining_ends_readiness_and_not_liveness() {
        let port = Port::new();
        port.health.mark_started();
        port.health.mark_store_ready();
        port.health.mark_keys_ready();
        port.health.mark_draining();
        assert_eq!(port.status("/readyz").await, 503);
        assert_eq!(port.status("/livez").await, 200);
        assert_eq!(port.status("/startupz").await, 200);
    }

    #[tokio::test]
    async fn an_exposed_application_ends_readiness_where_that_is_asked_for() {
        let mut port = Port::new();
        let clock = Arc::clone(&port.clock) as Arc<dyn Clock>;
        port.health = Arc::new(Health::new(clock, &[]).minding_exposure(true));
        port.health.mark_started();
        port.health.mark_store_ready();
        port.health.mark_keys_ready();
        let verbose = async || port.request("GET", "/readyz?verbose").await.2;
        assert!(verbose().await.ends_with("unexposed: failed\nfailed\n"), "not looked at yet");
        port.health.mark_unexposed(true);
        assert!(verbose().await.ends_with("unexposed: ok\nok\n"));
        port.health.mark_unexposed(false);
        assert_eq!(port.status("/readyz").await, 503);
        assert_eq!(port.status("/livez").await, 200);
    }

    #[tokio::test]
    async fn one_silent_runtime_is_a_dead_process() {
        let port = Port::new();
        port.clock.advance(Duration::from_millis(9_999));
        assert_eq!(port.status("/livez").await, 200);
        port.health.beat(0);
        port.clock.advance(Duration::from_millis(1));
        assert_eq!(port.status("/livez").await, 503);
        assert_eq!(port.status("/healthz").await, 503);
        port.health.beat(1);
        assert_eq!(port.status("/livez").await, 200);
        assert_eq!(port.status("/healthz").await, 200);
    }

    #[tokio::test]
    async fn verbose_lists_the_checks() {
        let port = Port::new();
        port.health.mark_store_ready();
        let (status, headers, text) = port.request("GET", "/readyz?verbose").await;
        assert_eq!((status, text.as_str()), (503, "started: failed\nserving: ok\nstore: ok\nkeys: failed\nfailed\n"));
        assert_eq!(headers[CONTENT_TYPE], "text/plain; charset=utf-8");
        assert_eq!(port.request("GET", "/livez?verbose").await.2, "runtime proxy: ok\nruntime background: ok\nok\n");
        assert_eq!(port.request("GET", "/livez").await.2, "ok\n");
    }

    #[tokio::test]
    async fn head_has_no_body_and_nothing_is_cached() {
        let (status, headers, text) = Port::new().request("HEAD", "/livez").await;
        assert_eq!((status, text.as_str()), (200, ""));
        assert_eq!(headers[CACHE_CONTROL], "no-store");
    }

    #[tokio::test]
    async fn everything_else_is_absent() {
        let port = Port::new();
        for path in ["/", "/livez/", "/auth/session", "/drain", "/debug/pprof", "/metrics/x"] {
            assert_eq!(port.status(path).await, 404, "{path}");
        }
        assert_eq!(port.request("POST", "/readyz").await.0, 405);
        let unmatched = port.metrics.http_requests.with_label_values(&["admin", "unmatched", "404"]).get();
        assert_eq!(unmatched, 6);
    }

    #[tokio::test]
    async fn metrics_have_the_exact_type_and_show_readiness() {
        let port = Port::new();
        port.health.mark_store_ready();
        port.health.mark_draining();
        let (status, headers, text) = port.request("GET", "/metrics").await;
        assert_eq!(status, 200);
        assert_eq!(headers[CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
        for line in [
            "doorward_ready{check=\"store\"} 1",
            "doorward_ready{check=\"keys\"} 0",
            "doorward_draining 1",
            "doorward_http_requests_total{code=\"200\",handler=\"admin\",route=\"readyz\"} 0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}");
        }
    }
}
