//! Who decides what is recorded, and what the application is told.

use crate::support::collector::{Collector, Seen};
use crate::support::eventually;
use crate::support::stage::{Asked, Stage};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const STATE: &str = "tracestate: vendor=keep";

/// What is no `traceparent`, however much it looks like one.
const HOSTILE: [&[&str]; 9] = [
    &["traceparent: "],
    &["traceparent: 00"],
    &["traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01"],
    &["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01"],
    &["traceparent: ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"],
    &["traceparent: 00-4BF92F3577B34DA6A3CE929D0E0E4736-00F067AA0BA902B7-01"],
    &["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more"],
    &["traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01, 00"],
    &[SAMPLED, UNSAMPLED],
];

fn config(collector: &Collector, sample: u8, trusted: bool) -> String {
    let proxies = if trusted { "['127.0.0.0/8']" } else { "[]" };
    let traces = format!("{{ endpoint: '{}', sample: {sample} }}", collector.url());
    format!("trusted_proxies: {proxies}\ntelemetry: {{ traces: {traces} }}")
}

/// Returns the trace, the parent and the flags that the application got.
fn told(asked: &Asked) -> (String, String, String) {
    let fields = asked.forwarded().headers.all("traceparent");
    let [text] = fields.as_slice() else { panic!("one traceparent, not {fields:?}") };
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, parent, flags] = parts.as_slice() else { panic!("four parts, not {text}") };
    assert_eq!((*version, trace.len(), parent.len(), flags.len()), ("00", 32, 16, 2), "{text}");
    ((*trace).to_owned(), (*parent).to_owned(), (*flags).to_owned())
}

// At the end whatever is waiting is sent.
async fn drained(mut stage: Stage) {
    stage.doorward.signal("TERM");
    assert!(stage.doorward.wait_exit().await.success());
}

fn state(asked: &Asked) -> Vec<&str> {
    asked.forwarded().headers.all("tracestate")
}

// The fast path, and the general way.
const WAYS: [&[&str]; 2] = [&[], &["keep-alive: timeout=5"]];

#[tokio::test]
async fn a_stranger_continues_its_trace_and_decides_nothing() {
    let collector = Collector::start().await;
    for (sample, flags) in [(0, "00"), (1, "01")] {
        let stage = Stage::start(&config(&collector, sample, false)).await;
        for way in WAYS {
            for traceparent in [SAMPLED, UNSAMPLED] {
                let asked = stage.request("GET /open/x", &[&[traceparent, STATE], way].concat()).await;
                let (trace, parent, told) = told(&asked);
                assert_eq!((trace.as_str(), told.as_str()), (TRACE, flags), "{sample} {traceparent}");
                assert_ne!(parent, "00f067aa0ba902b7");
                assert_eq!(state(&asked), Vec::<&str>::new(), "a state may ask to be recorded");
            }
        }
        drained(stage).await;
    }
    let ours = |span: &Seen| span.trace == TRACE && span.kind == 2;
    collector.exchange(ours).await;
    assert!(collector.spans().iter().filter(|span| ours(span)).all(|span| span.parent == "00f067aa0ba902b7"));
}

#[tokio::test]
async fn a_trusted_peer_decides_and_its_state_goes_on() {
    let collector = Collector::start().await;
    for sample in [0, 1] {
        let stage = Stage::start(&config(&collector, sample, true)).await;
        for way in WAYS {
            for (traceparent, flags) in [(SAMPLED, "01"), (UNSAMPLED, "00")] {
                let asked = stage.request("GET /open/x", &[&[traceparent, STATE], way].concat()).await;
                let (trace, _, told) = told(&asked);
                assert_eq!((trace.as_str(), told.as_str()), (TRACE, flags), "{sample}");
                assert_eq!(state(&asked), ["vendor=keep"]);
            }
            let asked = stage.request("GET /open/x", &[&[STATE], way].concat()).await;
            assert_eq!(told(&asked).2, format!("0{sample}"), "nobody has decided");
            assert_eq!(state(&asked), Vec::<&str>::new(), "a state without a trace is none");
        }
    }
}

#[tokio::test]
async fn hostile_values_begin_a_trace_of_their_own() {
    let collector = Collector::start().await;
    for trusted in [false, true] {
        let stage = Stage::start(&config(&collector, 0, trusted)).await;
        for (fields, way) in HOSTILE.iter().flat_map(|fields| WAYS.map(|way| (fields, way))) {
            let asked = stage.request("GET /open/x", &[fields, way].concat()).await;
            let (trace, _, flags) = told(&asked);
            assert_ne!(trace, TRACE, "{fields:?}");
            assert_eq!(flags, "00", "{fields:?}");
        }
        drained(stage).await;
    }
    assert_eq!(collector.spans(), []);
}

#[tokio::test]
async fn without_tracing_what_a_caller_says_goes_through_as_it_is() {
    let stage = Stage::start("").await;
    for way in WAYS {
        for fields in HOSTILE.iter().chain([&[SAMPLED, STATE].as_slice(), &[].as_slice()]) {
            let asked = stage.request("GET /open/x", &[fields, way].concat()).await;
            let given = fields.iter().filter_map(|field| field.strip_prefix("traceparent: ").map(str::trim));
            assert_eq!(asked.forwarded().headers.all("traceparent"), given.collect::<Vec<_>>(), "{fields:?}");
        }
    }
    assert_eq!(state(&stage.request("GET /open/x", &[SAMPLED, STATE]).await), ["vendor=keep"]);
}

#[tokio::test]
async fn a_check_decides_nothing_however_its_path_is_spelt() {
    let collector = Collector::start().await;
    let stage = Stage::start(&format!("{}\nforward_auth: {{ enabled: true }}", config(&collector, 0, true))).await;
    for (path, status) in
        [("/_doorward/verify/app", 200), ("/_doorward/%76erify/app", 200), ("/%5fdoorward/verif%79/a%2fb", 400)]
    {
        let asked = stage.request(&format!("GET {path}"), &[SAMPLED.to_owned(), stage.user_field()]).await;
        assert_eq!(asked.status(), status, "{path}");
    }
    let refused = "doorward_http_requests_total{code=\"400\",handler=\"verify\",route=\"none\"} 1\n";
    eventually("the last one to be counted as a check", async || {
        stage.doorward.admin_get("/metrics").await.text().contains(refused).then_some(())
    })
    .await;
    drained(stage).await;
    assert_eq!(collector.spans(), [], "what a check says of a trace is mostly its client's word");
}
