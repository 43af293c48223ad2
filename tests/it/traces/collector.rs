//! A collector that is slow, broken or gone, and how one is found.

use crate::support::collector::{Collector, Manner};
use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;
use crate::support::ports::free_port;
use crate::support::stage::Stage;
use crate::support::upstream::Upstream;

use super::{all, request_id};

const OPEN: &str = "routes: [{ path: '/**', auth: none }]";

async fn count(doorward: &Doorward, result: &str) -> u64 {
    let page = doorward.admin_get("/metrics").await.text();
    let name = format!("doorward_trace_spans_total{{result=\"{result}\"}} ");
    let value = page.lines().find_map(|line| line.strip_prefix(&name)).expect("the series is there from the start");
    value.parse().expect("a number")
}

async fn until_counted(doorward: &Doorward, result: &str) {
    let what = format!("spans to be counted as {result}");
    eventually(&what, async || (count(doorward, result).await > 0).then_some(())).await;
}

fn open(upstream: &Upstream) -> Builder {
    Doorward::builder().upstream(upstream.url()).config(OPEN)
}

#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_one_line() {
    let upstream = Upstream::start().await;
    let config = format!("telemetry: {{ traces: {{ endpoint: 'http://127.0.0.1:{}', sample: 1 }} }}", free_port());
    let mut doorward = open(&upstream).config(&config).start().await;
    let mut seen = 0;
    for _ in 0..3 {
        assert_eq!(doorward.client().get("/").send().await.status, 200);
        let more = eventually("spans to be dropped", async || {
            let dropped = count(&doorward, "unreachable").await;
            (dropped > seen).then_some(dropped)
        });
        seen = more.await;
    }
    doorward.signal("TERM");
    assert!(doorward.wait_exit().await.success());
    assert_eq!(doorward.logs().matches("does not take spans").count(), 1, "{}", doorward.logs());
}

#[tokio::test]
async fn a_collector_that_refuses_is_used_again_when_it_does_not() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    collector.becomes(Manner::Refuses);
    let doorward = open(&upstream).config(&all(&collector)).start().await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    until_counted(&doorward, "refused").await;
    doorward.wait_log("it answered 503").await;
    collector.becomes(Manner::Redirects);
    let asked = collector.asked_more_than(0).await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    assert_eq!(collector.asked_more_than(asked).await, asked + 1, "a redirect is not followed");
    // Two spans each time.
    eventually("both batches to be counted", async || (count(&doorward, "refused").await == 4).then_some(())).await;
    collector.becomes(Manner::TakesInPart);
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    until_counted(&doorward, "exported").await;
    assert_eq!(count(&doorward, "refused").await, 5, "one span was not wanted");
    doorward.wait_log("takes spans again").await;
}

#[tokio::test]
async fn a_silent_collector_holds_up_neither_requests_nor_the_end() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    collector.becomes(Manner::Silent);
    let mut doorward = open(&upstream).config(&all(&collector)).start().await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);
    collector.asked_more_than(0).await;
    for _ in 0..20 {
        assert_eq!(doorward.client().get("/").send().await.status, 200);
    }
    doorward.signal("TERM");
    assert!(doorward.wait_exit().await.success());
    assert!(doorward.logs().contains("the last spans are dropped"));
}

#[tokio::test]
async fn what_is_still_waiting_is_sent_at_the_end() {
    let collector = Collector::start().await;
    let mut stage = Stage::start(&all(&collector)).await;
    let id = request_id(&stage.doorward.client().get("/open/last").send().await);
    stage.doorward.signal("TERM");
    assert!(stage.doorward.wait_exit().await.success());
    assert!(collector.spans().iter().any(|span| span.is_of(&id)));
}

#[tokio::test]
async fn the_variables_of_open_telemetry_fill_in_what_the_files_leave_out() {
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    let doorward = open(&upstream)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("{}/prefix/", collector.url()))
        .env("OTEL_EXPORTER_OTLP_HEADERS", "x-key=from%20the%20environment,x-other=2")
        .env("OTEL_RESOURCE_ATTRIBUTES", "service.name=not-this,k8s.pod.name=web-1,team=a%2Cb")
        .env("OTEL_SERVICE_NAME", "door-of-web")
        .env("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
        .env("OTEL_TRACES_SAMPLER_ARG", "1.0")
        .config("telemetry: { traces: { headers: { x-other: mine } } }")
        .start()
        .await;
    let id = request_id(&doorward.client().get("/").send().await);
    collector.exchange(|span| span.is_of(&id)).await;
    let export = collector.exports().pop().expect("what it was in");
    assert_eq!(export.path, "/prefix/v1/traces");
    assert_eq!(export.headers["x-key"], "from the environment");
    assert_eq!(export.headers["x-other"], "mine", "the configuration wins");
    assert_eq!(export.headers["content-type"], "application/x-protobuf");
    let resource: Vec<(&str, &str)> =
        export.resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    assert_eq!(
        resource,
        [
            ("k8s.pod.name", "web-1"),
            ("service.name", "door-of-web"),
            ("service.version", env!("CARGO_PKG_VERSION")),
            ("team", "a,b"),
        ]
    );
}
