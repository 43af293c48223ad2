//! Exchanges follow each other on one connection: what is judged is what is cut.

use std::thread;

use super::*;
use crate::model::{Principal, PrincipalKind, Shard};
use crate::time::Timestamp;

fn session() -> Arc<Session> {
    let principal =
        Principal { kind: PrincipalKind::User, id: "user".parse().unwrap(), tenant: "acme".parse().unwrap() };
    Arc::new(Session::plain(principal, Shard::of(7), Timestamp(0), Timestamp(1_000)))
}

#[test]
fn an_exchange_that_is_judged_is_cut_and_says_why() {
    let (streams, metrics) = (SessionWatch::new(), Metrics::new().unwrap());
    let registration = streams.register();
    let watch = registration.watch();
    for (cut, refusal) in
        [(Cut::Revoked, Refusal::Revoked), (Cut::Expired, Refusal::Expired), (Cut::Unavailable, Refusal::Unavailable)]
    {
        watch.hold(session(), 1);
        assert_eq!(watch.ended_by(), None);
        let judged = watch.held().unwrap();
        watch.end(&judged, cut, &metrics);
        assert_eq!(watch.ended_by(), Some(refusal));
        watch.end(&judged, Cut::Expired, &metrics);
        assert_eq!(watch.ended_by(), Some(refusal), "the first reason stands");
        watch.release();
        assert_eq!(watch.ended_by(), None);
        assert_eq!(metrics.streams_cut.with_label_values(&[cut.as_str()]).get(), 1);
    }
}

#[test]
fn a_judgement_that_comes_late_cuts_no_successor() {
    let (streams, metrics) = (SessionWatch::new(), Metrics::new().unwrap());
    let registration = streams.register();
    let watch = registration.watch();
    let session = session();
    watch.hold(session.clone(), 1);
    let judged = watch.held().unwrap();
    watch.release();
    watch.end(&judged, Cut::Revoked, &metrics);
    assert_eq!(watch.ended_by(), None, "nothing is under way");
    // The cache hands out the very same record to the next exchange.
    watch.hold(session.clone(), 2);
    watch.end(&judged, Cut::Unavailable, &metrics);
    assert_eq!(watch.ended_by(), None);
    watch.renew(&judged, &session, 9);
    assert_eq!(watch.held().unwrap().generation, 2, "nor is it confirmed by an older answer");
}

#[test]
fn an_answered_exchange_is_followed_by_an_unanswered_one() {
    let streams = SessionWatch::new();
    let registration = streams.register();
    let watch = registration.watch();
    watch.hold(session(), 1);
    assert!(!watch.is_answered());
    watch.answering();
    assert!(watch.is_answered());
    watch.release();
    watch.hold(session(), 1);
    assert!(!watch.is_answered());
}

/// One thread carries exchanges of one session on one watch, another judges every second of them:
/// no exchange that was not judged is ever cut, however the two interleave.
#[test]
fn racing_judgements_never_cut_an_exchange_that_was_not_judged() {
    const EXCHANGES: u64 = 200_000;
    let (streams, metrics) = (SessionWatch::new(), Metrics::new().unwrap());
    let registration = streams.register();
    let watch = registration.watch();
    let session = session();
    let finished = AtomicBool::new(false);
    let mut cut = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::SeqCst) {
                let Some(held) = watch.held().filter(|held| held.exchange.is_multiple_of(2)) else { continue };
                watch.end(&held, Cut::Revoked, &metrics);
            }
        });
        let mut carried = 0;
        // Until the threads have met at all, however they are scheduled.
        while carried < EXCHANGES || cut == 0 {
            carried += 1;
            watch.hold(session.clone(), 1);
            let exchange = watch.held().unwrap().exchange;
            if watch.ended_by().is_some() {
                assert!(exchange.is_multiple_of(2), "exchange {exchange} was not judged");
                cut += 1;
            }
            watch.release();
        }
        finished.store(true, Ordering::SeqCst);
    });
    assert_eq!(watch.ended_by(), None);
}
