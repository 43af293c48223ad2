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
    let (streams, metrics) = (Streams::new(), Metrics::new().unwrap());
    let registration = streams.register();
    let slot = registration.slot();
    for (cut, refusal) in
        [(Cut::Revoked, Refusal::Revoked), (Cut::Expired, Refusal::Expired), (Cut::Unavailable, Refusal::Unavailable)]
    {
        slot.hold(session(), 1);
        assert_eq!(slot.ended_by(), None);
        let judged = slot.held().unwrap();
        slot.end(&judged, cut, &metrics);
        assert_eq!(slot.ended_by(), Some(refusal));
        slot.end(&judged, Cut::Expired, &metrics);
        assert_eq!(slot.ended_by(), Some(refusal), "the first reason stands");
        slot.release();
        assert_eq!(slot.ended_by(), None);
        assert_eq!(metrics.streams_cut.with_label_values(&[cut.as_str()]).get(), 1);
    }
}

#[test]
fn a_judgement_that_comes_late_cuts_no_successor() {
    let (streams, metrics) = (Streams::new(), Metrics::new().unwrap());
    let registration = streams.register();
    let slot = registration.slot();
    let session = session();
    slot.hold(session.clone(), 1);
    let judged = slot.held().unwrap();
    slot.release();
    slot.end(&judged, Cut::Revoked, &metrics);
    assert_eq!(slot.ended_by(), None, "nothing is under way");
    // The cache hands out the very same record to the next exchange.
    slot.hold(session.clone(), 2);
    slot.end(&judged, Cut::Unavailable, &metrics);
    assert_eq!(slot.ended_by(), None);
    slot.renew(&judged, &session, 9);
    assert_eq!(slot.held().unwrap().generation, 2, "nor is it confirmed by an older answer");
}

#[test]
fn an_answered_exchange_is_followed_by_an_unanswered_one() {
    let streams = Streams::new();
    let registration = streams.register();
    let slot = registration.slot();
    slot.hold(session(), 1);
    assert!(!slot.is_answered());
    slot.answering();
    assert!(slot.is_answered());
    slot.release();
    slot.hold(session(), 1);
    assert!(!slot.is_answered());
}

/// One thread carries exchanges of one session on one slot, another judges every second of them:
/// no exchange that was not judged is ever cut, however the two interleave.
#[test]
fn racing_judgements_never_cut_an_exchange_that_was_not_judged() {
    const EXCHANGES: u64 = 200_000;
    let (streams, metrics) = (Streams::new(), Metrics::new().unwrap());
    let registration = streams.register();
    let slot = registration.slot();
    let session = session();
    let finished = AtomicBool::new(false);
    let mut cut = 0;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !finished.load(Ordering::SeqCst) {
                let Some(held) = slot.held().filter(|held| held.exchange.is_multiple_of(2)) else { continue };
                slot.end(&held, Cut::Revoked, &metrics);
            }
        });
        let mut carried = 0;
        // Until the threads have met at all, whatever the scheduler does.
        while carried < EXCHANGES || cut == 0 {
            carried += 1;
            slot.hold(session.clone(), 1);
            let exchange = slot.held().unwrap().exchange;
            if slot.ended_by().is_some() {
                assert!(exchange.is_multiple_of(2), "exchange {exchange} was not judged");
                cut += 1;
            }
            slot.release();
        }
        finished.store(true, Ordering::SeqCst);
    });
    assert_eq!(slot.ended_by(), None);
}
