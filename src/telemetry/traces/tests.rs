//! Who decides what is recorded.

use aws_lc_rs::rand::SystemRandom;

use super::*;
use crate::time::ManualClock;

const SAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const UNSAMPLED: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";
const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn tracer(sample: f64) -> (Tracer, mpsc::Receiver<FinishedExchange>) {
    let metrics = Metrics::new().unwrap();
    let (queue, waiting) = mpsc::channel(2);
    let clock = Arc::new(ManualClock::at(Timestamp(1_767_225_600_000)));
    let ids = TraceIds::new(&SystemRandom::new()).unwrap();
    (Tracer { sample, ids, clock, queue, dropped: export::create_series(&metrics) }, waiting)
}

fn head(values: &[&str]) -> HeaderMap {
    values.iter().map(|value| (TRACEPARENT, value.parse().unwrap())).collect()
}

#[test]
fn only_a_trusted_peer_decides_what_is_recorded() {
    for (sample, traceparent, trusted, sampled) in [
        (0.0, SAMPLED, true, true),
        (0.0, SAMPLED, false, false),
        (1.0, UNSAMPLED, true, false),
        (1.0, UNSAMPLED, false, true),
    ] {
        let context = tracer(sample).0.begin(&head(&[traceparent]), trusted, 0.5);
        assert_eq!(context.sampled, sampled, "{sample} {traceparent} {trusted}");
        assert_eq!(context.trace.to_string(), TRACE, "the trace goes on");
        assert_eq!(context.parent, Some(SpanId(0x00f0_67aa_0ba9_02b7)));
    }
}

#[test]
fn the_share_decides_where_no_trusted_peer_has() {
    for (sample, sample_value, sampled) in
        [(0.0, 0.0, false), (0.25, 0.24, true), (0.25, 0.25, false), (1.0, 0.999, true)]
    {
        let context = tracer(sample).0.begin(&HeaderMap::new(), true, sample_value);
        assert_eq!((context.sampled, context.parent), (sampled, None), "{sample} {sample_value}");
    }
}

#[test]
fn two_parents_are_none() {
    let context = tracer(0.0).0.begin(&head(&[SAMPLED, SAMPLED]), true, 0.5);
    assert_eq!((context.sampled, context.parent), (false, None));
    assert_ne!(context.trace.to_string(), TRACE);
}

#[test]
fn the_application_is_told_of_the_span_that_asks_it() {
    let (tracer, _waiting) = tracer(1.0);
    for (traceparent, flags) in [(SAMPLED, "01"), ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", "03")] {
        let context = tracer.begin(&head(&[traceparent]), false, 0.0);
        assert_eq!(context.traceparent(), format!("00-{TRACE}-{:016x}-{flags}", context.upstream.0));
        assert_ne!(context.upstream, context.server);
    }
}

#[test]
fn names_do_not_repeat() {
    let (tracer, _waiting) = tracer(1.0);
    let contexts: Vec<SpanContext> = (0..1000).map(|_| tracer.begin(&HeaderMap::new(), false, 0.0)).collect();
    let names: std::collections::HashSet<u128> = contexts.iter().map(|context| context.trace.0).collect();
    let spans: std::collections::HashSet<u64> =
        contexts.iter().flat_map(|context| [context.server.0, context.upstream.0]).collect();
    assert_eq!((names.len(), spans.len()), (1000, 2000));
}

#[test]
fn a_full_queue_drops_and_counts_and_does_not_wait() {
    let (tracer, _waiting) = tracer(1.0);
    let context = tracer.begin(&HeaderMap::new(), false, 0.0);
    let span = Span {
        id: context.server,
        parent: None,
        name: "GET".to_owned(),
        kind: span::SpanSide::Server,
        began: Instant::now(),
        ended: Instant::now(),
        attributes: Vec::new(),
        failed: false,
    };
    for _ in 0..5 {
        tracer.submit(&context, vec![span.clone(), span.clone()]);
    }
    assert_eq!(tracer.dropped.get(), 6);
}
