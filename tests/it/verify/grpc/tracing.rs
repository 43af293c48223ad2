//! A question is part of the trace of the request that it is about.

use super::Asked;
use crate::support::collector::Collector;
use crate::traces::{all, assert_within};

const PARENT: &str = "00f067aa0ba902b7";

#[tokio::test]
async fn a_question_is_a_span_of_the_trace_of_its_request() {
    let collector = Collector::start().await;
    let Asked { stage, envoy, .. } = Asked::start(&all(&collector)).await;
    let token = format!("Bearer {}", stage.user);
    // The first one has to ask the store.
    for (trace, source, children) in [
        ("4bf92f3577b34da6a3ce929d0e0e4736", "store", vec!["guard", "store"]),
        ("0af7651916cd43dd8448eb211c80319c", "cache", vec!["guard"]),
    ] {
        let traceparent = format!("00-{trace}-{PARENT}-01");
        let sent = [("authorization", token.as_str()), ("traceparent", traceparent.as_str())];
        assert_eq!(envoy.ask("GET", "/app", &sent).await.0, 200);
        let (server, spans) = collector.exchange(|span| span.trace == trace).await;
        assert_eq!((server.parent.as_str(), server.name.as_str(), server.failed), (PARENT, "GET route-7", false));
        assert_eq!(server.attribute("auth.source"), source);
        assert_eq!(spans.keys().collect::<Vec<_>>(), children);
        assert_within(&spans["guard"], &server);
        if let Some(store) = spans.get("store") {
            assert_within(store, &spans["guard"]);
        }
    }
    assert_eq!(stage.upstream.count(), 0);
}
