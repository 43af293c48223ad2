//! What becomes of an exchange in a trace: at a collector, and at the application.

mod collector;
mod decision;

use http::Method;

use crate::support::client::{Response, sign_in_guest};
use crate::support::collector::{Collector, Seen};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::h2_client::H2Client;
use crate::support::redis::Redis;
use crate::support::stage::{Stage, USER};
use crate::support::upstream::{Recorded, Upstream};

const DESCRIBED: &str = include_str!("../../docs/observability.md");

/// Traces every exchange.
pub(crate) fn all(collector: &Collector) -> String {
    format!("telemetry: {{ traces: {{ endpoint: '{}', sample: 1 }} }}", collector.url())
}

fn request_id(response: &Response) -> String {
    response.header("x-request-id").expect("every answer has one").to_owned()
}

/// Fails the test unless `child` is part of `parent`, and took place within it.
#[track_caller]
pub(crate) fn assert_within(child: &Seen, parent: &Seen) {
    assert_eq!((&child.trace, &child.parent), (&parent.trace, &parent.id), "{child:?} {parent:?}");
    let ordered = [parent.began, child.began, child.ended, parent.ended];
    assert!(ordered.is_sorted(), "{child:?} {parent:?}");
}

/// Fails the test unless the application was told of the span that asked it.
#[track_caller]
fn assert_told(seen: &Recorded, upstream: &Seen) {
    let expected = format!("00-{}-{}-01", upstream.trace, upstream.id);
    assert_eq!(seen.headers.all("traceparent"), [expected]);
}

#[track_caller]
fn assert_attributes(span: &Seen, expected: &[(&str, &str)]) {
    for name in span.attributes.keys() {
        assert!(DESCRIBED.contains(&format!("`{name}`")), "docs/observability.md says nothing of {name}");
    }
    let found: Vec<(&str, &str)> = span
        .attributes
        .iter()
        .filter(|(name, _)| *name != "http.request.id")
        .map(|(n, v)| (n.as_str(), v.as_str()))
        .collect();
    assert_eq!(found, expected, "{span:?}");
}

#[tokio::test]
async fn a_first_request_asks_store_and_application_and_the_next_only_the_application() {
    let collector = Collector::start().await;
    let stage = Stage::start(&all(&collector)).await;
    for (round, source) in ["store", "cache"].into_iter().enumerate() {
        let asked = stage.request("GET /orders?page=2", &[stage.user_field()]).await;
        let seen = asked.forwarded().clone();
        let id = request_id(asked.response.as_ref().expect("an answer"));
        let (server, spans) = collector.exchange(|span| span.is_of(&id)).await;
        let names: Vec<&str> = spans.keys().map(String::as_str).collect();
        let expected: &[&str] = if round == 0 { &["guard", "store", "upstream"] } else { &["guard", "upstream"] };
        assert_eq!(names, expected);
        assert_eq!((server.name.as_str(), server.kind, server.parent.as_str()), ("GET route-7", 2, ""));
        assert!(!server.failed);
        assert_attributes(
            &server,
            &[
                ("auth.outcome", "allow"),
                ("auth.reason", "ok"),
                ("auth.source", source),
                ("doorward.route", "route-7"),
                ("http.request.method", "GET"),
                ("http.response.status_code", "200"),
                ("network.protocol.version", "1.1"),
                ("url.scheme", "http"),
            ],
        );
        assert_within(&spans["guard"], &server);
        assert_attributes(
            &spans["guard"],
            &[("auth.outcome", "allow"), ("auth.reason", "ok"), ("auth.source", source)],
        );
        assert_within(&spans["upstream"], &server);
        assert_attributes(&spans["upstream"], &[("http.request.method", "GET"), ("http.response.status_code", "200")]);
        assert_eq!((spans["guard"].kind, spans["upstream"].kind), (1, 3));
        assert_told(&seen, &spans["upstream"]);
        if let Some(store) = spans.get("store") {
            assert_within(store, &spans["guard"]);
            assert_attributes(store, &[("db.operation.name", "find")]);
        }
        stage.doorward.wait_log(&format!("\"trace.id\":\"{}\"", server.trace)).await;
    }
}

#[tokio::test]
async fn every_way_to_the_application_is_traced_alike() {
    let collector = Collector::start().await;
    let stage = Stage::start(&all(&collector)).await;
    let client = stage.doorward.client();
    let posted = client.post("/a").bearer(&stage.user).body("{}").send().await;
    let h2 = H2Client::connect(stage.doorward.proxy_addr()).await;
    let authorization = format!("Bearer {}", stage.user);
    let h2 = h2.ask(Method::PUT, "/b", &[("authorization", authorization.as_str())], "{}").await;
    let made_up = stage.request("BREW /c", &[stage.user_field()]).await;
    for (answer, path, name, version) in [
        (&posted, "/a", "POST route-7", "1.1"),
        (&h2, "/b", "PUT route-7", "2"),
        (made_up.response.as_ref().expect("an answer"), "/c", "_OTHER route-7", "1.1"),
    ] {
        assert_eq!(answer.status, 200, "{path}");
        let id = request_id(answer);
        let (server, spans) = collector.exchange(|span| span.is_of(&id)).await;
        assert_eq!((server.name.as_str(), server.attribute("network.protocol.version")), (name, version));
        assert_within(&spans["upstream"], &server);
        assert_told(&stage.upstream.wait_for(|request| request.target == path).await, &spans["upstream"]);
    }
}

#[tokio::test]
async fn what_is_refused_or_answered_here_never_reaches_the_application() {
    let collector = Collector::start().await;
    let stage = Stage::start(&all(&collector)).await;
    let client = stage.doorward.client();
    let guest = sign_in_guest(&stage.doorward, "another device").await;
    for (answer, reason, route, spans) in [
        (client.get("/x").send().await, "missing_token", "route-7", vec!["guard"]),
        (client.get("/x").bearer("dw_nonsense").send().await, "malformed", "route-7", vec!["guard"]),
        (client.get("/users/x").bearer(&guest).send().await, "anonymous", "route-3", vec!["guard", "store"]),
        (client.get("/a//b").send().await, "bad_request", "proxy", vec![]),
        (client.get("/auth/nothing").send().await, "surface", "session_exchange", vec![]),
    ] {
        let id = request_id(&answer);
        let (server, found) = collector.exchange(|span| span.is_of(&id)).await;
        assert_eq!(server.attribute("auth.reason"), reason);
        assert_eq!(server.name, format!("GET {route}"));
        assert_eq!(server.attribute("http.response.status_code"), answer.status.to_string());
        assert_eq!(found.keys().collect::<Vec<_>>(), spans, "{reason}");
        assert!(!server.failed && found.values().all(|span| !span.failed), "a refusal is no failure");
    }
}

#[tokio::test]
async fn failures_of_store_and_application_are_failed_spans() {
    let (collector, upstream, mut redis) = (Collector::start().await, Upstream::start().await, Redis::start().await);
    let doorward = Doorward::builder().upstream(upstream.url()).store(&redis.url()).config(&all(&collector)).start();
    let doorward = doorward.await;
    let guest = sign_in_guest(&doorward, "a device").await;
    let client = doorward.client();
    upstream.respond("/nonsense", "this is not HTTP\r\n\r\n");
    let broken = request_id(&client.get("/nonsense").bearer(&guest).send().await);
    let own = client.get("/status/503").bearer(&guest).send().await;
    let (own, status) = (request_id(&own), own.status);
    drop(upstream);
    let gone = request_id(&client.get("/gone").bearer(&guest).send().await);
    assert_eq!(status, 503);
    for (id, status, error, server_error) in
        [(broken, "502", "protocol", "protocol"), (own, "503", "503", "503"), (gone, "502", "connect", "connect")]
    {
        let (server, spans) = collector.exchange(|span| span.is_of(&id)).await;
        assert_eq!(server.attribute("http.response.status_code"), status);
        assert_eq!((server.attribute("error.type"), server.failed), (server_error, true));
        let upstream = &spans["upstream"];
        assert_within(upstream, &server);
        assert_eq!((upstream.attribute("error.type"), upstream.failed), (error, true));
        assert_eq!(upstream.attribute("http.response.status_code"), if error == "503" { "503" } else { "" });
    }

    let unknown = sign_in_guest(&doorward, "a device that this replica has not seen since").await;
    redis.pause();
    let answer = client.get("/x").bearer(&unknown).send().await;
    let (id, status) = (request_id(&answer), answer.status);
    redis.resume();
    assert_eq!(status, 503);
    let (server, spans) = collector.exchange(|span| span.is_of(&id)).await;
    assert_eq!((server.attribute("auth.reason"), server.failed), ("store_unavailable", true));
    assert!(spans["guard"].failed);
    assert_within(&spans["store"], &spans["guard"]);
    assert!(spans["store"].failed && !spans.contains_key("upstream"));
    redis.kill();
}

#[tokio::test]
async fn a_stream_is_one_span_until_it_ends_and_says_when_it_was_cut() {
    let collector = Collector::start().await;
    let stage = Stage::start(&all(&collector)).await;
    let client = stage.doorward.client();
    let mut events = client.get("/sse").bearer(&stage.user).stream().await;
    assert!(events.next().await.is_some());
    let id = events.headers.first("x-request-id").expect("every answer has one").to_owned();
    assert_eq!(client.delete("/auth/session").bearer(&stage.user).send().await.status, 200);
    assert!(!events.ended().await, "the stream is cut");
    let (server, spans) = collector.exchange(|span| span.is_of(&id)).await;
    assert_eq!(server.attribute("error.type"), "session_cut");
    assert_within(&spans["upstream"], &server);
}

#[tokio::test]
async fn nothing_that_a_caller_sends_is_in_what_is_exported() {
    let collector = Collector::start().await;
    let key = "canary-collector-key-0123456789";
    let config = format!(
        "telemetry: {{ log_level: trace, traces: {{ endpoint: '{}', sample: 1, headers: {{ api-key: {key} }} }} }}",
        collector.url()
    );
    let stage = Stage::start(&config).await;
    let client = stage.doorward.client();
    let ask = |path: &'static str| {
        let request = client.get(path).bearer(&stage.user).header("x-secret", "canary-header");
        request.header("tracestate", "canary=state").cookie("app", "canary-cookie")
    };
    let answers = [
        ask("/canary-path?q=canary-query").send().await,
        ask("/status/500?canary").send().await,
        client.post("/x").bearer(&stage.user).body("canary-body").send().await,
    ];
    assert_eq!(answers.each_ref().map(|answer| answer.status), [200, 500, 200]);
    for id in answers.each_ref().map(request_id) {
        collector.exchange(|span| span.is_of(&id)).await;
    }
    let exports = collector.exports();
    for export in &exports {
        assert_eq!(export.headers.get("api-key").map(http::HeaderValue::as_bytes), Some(key.as_bytes()));
        let text = String::from_utf8_lossy(&export.body);
        for secret in ["canary", USER, stage.user.as_str(), stage.guest.as_str(), "device", "127.0.0.1"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    let page = stage.doorward.admin_get("/metrics").await.text();
    assert!(!page.contains("canary"));
    assert!(!stage.doorward.logs().contains(key));
}

#[tokio::test]
async fn spans_are_counted_by_what_became_of_them() {
    let collector = Collector::start().await;
    let stage = Stage::start(&all(&collector)).await;
    eventually("spans to be counted", async || {
        let page = stage.doorward.admin_get("/metrics").await.text();
        let exported = format!("doorward_trace_spans_total{{result=\"exported\"}} {}\n", collector.spans().len());
        (page.contains(&exported) && !collector.spans().is_empty()).then_some(())
    })
    .await;
}
