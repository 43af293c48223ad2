//! What one subscription received: applies revocations and notices when one is missing.
//!
//! `on_push` runs in the connection's driver, in wire order, and never waits. Invariant: once it has
//! returned, no cached answer from before the message can be found again. A message that is
//! missing, out of order or not understood ends the generation, which ends them all.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::journal::Journal;
use super::keys::Keys;
use super::message::Message;
use crate::metrics::Metrics;
use crate::store::revocations::{Resync, Revocations};
use crate::time::Clock;

/// The state of a control key: how many revocations, which was the last, and since when it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Count {
    /// Revocations so far.
    pub(super) sequence: u64,
    /// Names the script run of the last one.
    pub(super) last: String,
    /// Names the life of the key: a flush or a restore changes it.
    pub(super) epoch: String,
}

/// One subscription to the revocation channel, bound to a generation.
pub(super) struct Subscriber {
    generation: u64,
    keys: Arc<Keys>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    revocations: Arc<Revocations>,
    journal: Arc<Journal>,
    sequences: Mutex<Vec<Sequence>>,
    lost: Notify,
    reason: OnceLock<Resync>,
}

/// A revocation may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gap;

#[derive(Clone, Debug, Default)]
struct Sequence {
    /// Messages and counts travel apart, as in a cluster: a message may come after its count.
    unordered: bool,
    epoch: Option<String>,
    first: Option<u64>,
    last: Option<(u64, String)>,
}

impl Subscriber {
    /// Returns a subscriber that has received nothing yet, for a subscription in `generation`.
    pub(super) fn new(
        generation: u64,
        keys: Arc<Keys>,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
        revocations: Arc<Revocations>,
        journal: Arc<Journal>,
    ) -> Arc<Self> {
        let controls = keys.controls().len();
        let sequence = Sequence { unordered: controls > 1, ..Sequence::default() };
        let sequences = Mutex::new(vec![sequence; controls]);
        let (lost, reason) = (Notify::new(), OnceLock::new());
        Arc::new(Self { generation, keys, clock, metrics, revocations, journal, sequences, lost, reason })
    }

    /// Takes what the connection's driver received.
    pub(super) fn on_push(&self, push: &PushInfo) {
        match push.kind {
            PushKind::Message => match push.data.get(1) {
                Some(Value::BulkString(text)) => self.on_message(text),
                _ => self.lose(Resync::Sequence),
            },
            PushKind::Disconnection => self.lose(Resync::Disconnected),
            _ => {}
        }
    }

    /// Ends the generation, once, and wakes what waits in [`lost`](Self::lost). An anomaly ends
    /// the lease too; a broken connection lets it run out, for it still bounds what was missed.
    pub(super) fn lose(&self, reason: Resync) {
        self.reason.get_or_init(|| reason);
        let lost = if reason.is_anomaly() {
            self.revocations.give_up(self.generation)
        } else {
            self.revocations.lose_generation(self.generation)
        };
        if lost {
            self.metrics.invalidation_resyncs.with_label_values(&[reason.as_str()]).inc();
        }
        self.lost.notify_one();
    }

    /// Returns why, once the generation has been lost.
    pub(super) async fn lost(&self) -> Resync {
        loop {
            if let Some(reason) = self.reason.get() {
                return *reason;
            }
            self.lost.notified().await;
        }
    }

    /// Takes the counts as read on the subscribed connection after it subscribed.
    pub(super) fn begin(&self, control: usize, count: &Count) -> Result<(), Gap> {
        self.with_sequence(control, |sequence| sequence.begin(count))
    }

    /// Returns the number of the last revocation received.
    pub(super) fn last_sequence(&self, control: usize) -> u64 {
        let last = self.with_sequence(control, |sequence| Ok(sequence.last.as_ref().map_or(0, |(number, _)| *number)));
        last.unwrap_or_default()
    }

    /// Refuses a later count that goes back behind what was received before it was asked for, or that
    /// changes the past.
    pub(super) fn check_past(&self, control: usize, received_before: u64, count: &Count) -> Result<(), Gap> {
        self.with_sequence(control, |sequence| sequence.check_past(received_before, count))
    }

    /// As [`check_past`](Self::check_past); refuses also a count beyond what was received, which
    /// it never is if the subscribed connection itself carried it.
    pub(super) fn check(&self, control: usize, received_before: u64, count: &Count) -> Result<(), Gap> {
        self.check_past(control, received_before, count)?;
        if self.last_sequence(control) >= count.sequence { Ok(()) } else { Err(Gap) }
    }

    fn on_message(&self, text: &[u8]) {
        let Some(message) = Message::parse(text) else { return self.lose(Resync::Sequence) };
        self.revocations.revoke(&message.ids, message.expires_at);
        self.journal.remember(message.ids.iter().copied(), message.expires_at);
        let lag = self.clock.now().since(message.sent_at);
        self.metrics.invalidation_lag.observe(lag.as_secs_f64());
        let Some(number) = message.sequence else { return };
        let control = self.keys.control_index(message.shard);
        if self.with_sequence(control, |sequence| sequence.on_message(number, message.nonce)).is_err() {
            self.lose(Resync::Sequence);
        }
    }

    fn with_sequence<T>(&self, control: usize, act: impl FnOnce(&mut Sequence) -> Result<T, Gap>) -> Result<T, Gap> {
        let mut sequences = self.sequences.lock().unwrap_or_else(PoisonError::into_inner);
        sequences.get_mut(control).ok_or(Gap).and_then(act)
    }
}

impl Count {
    /// Returns whether this may be what a server counted after `earlier`: a later look at the same one.
    pub(super) fn follows(&self, earlier: &Self) -> bool {
        let same_past = self.sequence > earlier.sequence || self.last == earlier.last;
        self.epoch == earlier.epoch && self.sequence >= earlier.sequence && same_past
    }
}

impl Sequence {
    fn on_message(&mut self, number: u64, nonce: String) -> Result<(), Gap> {
        if self.unordered && self.last.as_ref().is_some_and(|(last, _)| number <= *last) {
            return Ok(());
        }
        let expected = self.last.as_ref().map_or(number, |(last, _)| last + 1);
        self.first.get_or_insert(number);
        self.last = Some((number, nonce));
        if number == expected { Ok(()) } else { Err(Gap) }
    }

    // Messages may arrive between the subscription and the reading of the count.
    fn begin(&mut self, count: &Count) -> Result<(), Gap> {
        self.epoch = Some(count.epoch.clone());
        let Some((last, _)) = &self.last else {
            self.last = Some((count.sequence, count.last.clone()));
            return Ok(());
        };
        let meets = self.first.is_none_or(|first| first <= count.sequence + 1);
        let reaches = *last >= count.sequence;
        if !reaches && self.unordered {
            self.last = Some((count.sequence, count.last.clone()));
        }
        if meets && (reaches || self.unordered) { Ok(()) } else { Err(Gap) }
    }

    fn check_past(&self, received_before: u64, count: &Count) -> Result<(), Gap> {
        let same_life = self.epoch.as_ref() == Some(&count.epoch);
        let forward = count.sequence >= received_before;
        let same_past = self.last.as_ref().is_none_or(|(last, nonce)| *last != count.sequence || *nonce == count.last);
        if same_life && forward && same_past { Ok(()) } else { Err(Gap) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(sequence: u64, last: &str) -> Count {
        Count { sequence, last: last.to_owned(), epoch: "e".to_owned() }
    }

    fn begun(sequence: u64, last: &str) -> Sequence {
        let mut state = Sequence::default();
        state.begin(&count(sequence, last)).unwrap();
        state
    }

    #[test]
    fn consecutive_messages_are_complete() {
        let mut state = begun(4, "d");
        assert_eq!(state.on_message(5, "e".to_owned()), Ok(()));
        assert_eq!(state.on_message(6, "f".to_owned()), Ok(()));
        assert_eq!(state.check_past(6, &count(6, "f")), Ok(()));
        assert_eq!(state.check_past(5, &count(5, "e")), Ok(()), "a message overtook the reply's handling");
    }

    #[test]
    fn a_missing_message_is_a_gap() {
        assert_eq!(begun(4, "d").on_message(6, "f".to_owned()), Err(Gap));
    }

    #[test]
    fn a_count_that_goes_back_or_changes_its_past_is_a_gap() {
        assert_eq!(begun(4, "d").check_past(4, &count(3, "c")), Err(Gap));
        assert_eq!(begun(4, "d").check_past(4, &count(4, "x")), Err(Gap));
        assert_eq!(begun(4, "d").on_message(4, "x".to_owned()), Err(Gap));
        let flushed = Count { epoch: "other".to_owned(), ..Count::default() };
        assert_eq!(begun(0, "").check_past(0, &flushed), Err(Gap), "a flush before the first revocation");
    }

    #[test]
    fn a_count_follows_an_earlier_one_of_the_same_server_only() {
        assert!(count(4, "d").follows(&count(4, "d")));
        assert!(count(5, "e").follows(&count(4, "d")));
        assert!(!count(4, "d").follows(&count(5, "e")), "it does not know what the other recorded");
        assert!(!count(4, "x").follows(&count(4, "d")), "two pasts");
        assert!(!Count { epoch: "f".to_owned(), ..count(5, "e") }.follows(&count(4, "d")));
    }

    #[test]
    fn in_a_cluster_a_message_may_come_after_its_count() {
        let mut state = Sequence { unordered: true, ..Sequence::default() };
        state.begin(&count(4, "d")).unwrap();
        assert_eq!(state.on_message(4, "d".to_owned()), Ok(()));
        assert_eq!(state.on_message(5, "e".to_owned()), Ok(()));
        assert_eq!(state.on_message(7, "g".to_owned()), Err(Gap));
    }

    #[test]
    fn messages_before_the_first_count_must_meet_it() {
        let mut early = Sequence::default();
        early.on_message(5, "e".to_owned()).unwrap();
        early.on_message(6, "f".to_owned()).unwrap();
        assert_eq!(early.clone().begin(&count(5, "e")), Ok(()));
        assert_eq!(early.clone().begin(&count(4, "d")), Ok(()));
        assert_eq!(early.clone().begin(&count(3, "c")), Err(Gap));
        assert_eq!(early.clone().begin(&count(7, "g")), Err(Gap));
    }
}
