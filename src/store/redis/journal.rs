//! Revocations that may have to be told to Redis again.
//!
//! `recent` is what a reconnect looks for, because a fail-over may have brought it back.
//! `unconfirmed` is what Redis has not acknowledged; it is retried until it has. Both are bounded:
//! beyond the bound the oldest go, and this replica's tombstones are all that is left of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::metrics::Metrics;
use crate::model::{End, PrincipalId, SessionId, Shard, TenantId};
use crate::time::{Clock, Monotonic, Timestamp};

const RECENT_MAX: usize = 10_000;
const UNCONFIRMED_MAX: usize = 10_000;

/// What was to be revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum PendingEnd {
    /// Sessions of one shard.
    Sessions {
        /// The shard.
        shard: Shard,
        /// Sessions filed there.
        ids: Vec<SessionId>,
        /// Why, and when that was asked for.
        end: End,
        /// When their credentials have ended by themselves.
        expires_at: Timestamp,
    },
    /// Every session of a principal, and sign-ins up to a time.
    Principal {
        /// The principal's tenant.
        tenant: TenantId,
        /// The principal.
        principal: PrincipalId,
        /// Why, and when that was asked for: sign-ins authenticated up to then are void.
        end: End,
    },
}

/// A revocation that Redis has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Unconfirmed {
    /// What it is.
    pub(super) revocation: PendingEnd,
    /// Whether the other replicas were told without the store's help.
    pub(super) published: bool,
}

/// Revocations of this replica's recent past.
pub(super) struct Journal {
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    window: Duration,
    recent: Mutex<VecDeque<Recent>>,
    unconfirmed: Mutex<BTreeMap<u64, Unconfirmed>>,
    added: Notify,
}

/// A revocation under way: it is filed as unconfirmed unless it is confirmed, also when the caller
/// that asked for it goes away half-way.
pub(super) struct Filing<'journal> {
    journal: &'journal Journal,
    revocation: Option<PendingEnd>,
}

#[derive(Clone, Copy)]
struct Recent {
    id: SessionId,
    expires_at: Timestamp,
    noted_at: Monotonic,
}

impl Journal {
    /// Returns an empty journal whose recent past is `window` long.
    pub(super) fn new(clock: Arc<dyn Clock>, metrics: Arc<Metrics>, window: Duration) -> Arc<Self> {
        let (recent, unconfirmed) = (Mutex::default(), Mutex::default());
        Arc::new(Self { clock, metrics, window, recent, unconfirmed, added: Notify::new() })
    }

    /// Notes revocations made here or received.
    pub(super) fn remember(&self, ids: impl Iterator<Item = SessionId>, expires_at: Timestamp) {
        let noted_at = self.clock.monotonic();
        let mut recent = lock(&self.recent);
        recent.extend(ids.map(|id| Recent { id, expires_at, noted_at }));
        let excess = recent.len().saturating_sub(RECENT_MAX);
        recent.drain(..excess);
        while recent.front().is_some_and(|oldest| noted_at.since(oldest.noted_at) > self.window) {
            recent.pop_front();
        }
    }

    /// Returns the revocations of the recent past whose credentials have not ended by themselves.
    pub(super) fn recent(&self) -> Vec<(SessionId, Timestamp)> {
        let (now, wall) = (self.clock.monotonic(), self.clock.now());
        let recent = lock(&self.recent);
        let fresh = |entry: &&Recent| now.since(entry.noted_at) <= self.window && entry.expires_at > wall;
        recent.iter().filter(fresh).map(|entry| (entry.id, entry.expires_at)).collect()
    }

    /// Returns the guard of a revocation that is about to be applied.
    pub(super) fn file(&self, revocation: PendingEnd) -> Filing<'_> {
        Filing { journal: self, revocation: Some(revocation) }
    }

    /// Files a revocation that Redis did not acknowledge.
    pub(super) fn push(&self, revocation: PendingEnd) {
        let mut unconfirmed = lock(&self.unconfirmed);
        if unconfirmed.len() >= UNCONFIRMED_MAX {
            unconfirmed.pop_first();
            tracing::error!("revocation journal is full: the oldest entry is known to this replica only");
        }
        let number = unconfirmed.last_key_value().map_or(0, |(number, _)| number + 1);
        unconfirmed.insert(number, Unconfirmed { revocation, published: false });
        self.report(&unconfirmed);
        self.added.notify_one();
    }

    /// Returns all that is unconfirmed, oldest first, each with the number it goes by.
    pub(super) fn unconfirmed(&self) -> Vec<(u64, Unconfirmed)> {
        let now = self.clock.now();
        let mut unconfirmed = lock(&self.unconfirmed);
        unconfirmed.retain(|_, entry| !entry.revocation.is_over(now));
        self.report(&unconfirmed);
        unconfirmed.iter().map(|(number, entry)| (*number, entry.clone())).collect()
    }

    /// Strikes out what Redis acknowledged.
    pub(super) fn confirm(&self, number: u64) {
        let mut unconfirmed = lock(&self.unconfirmed);
        unconfirmed.remove(&number);
        self.report(&unconfirmed);
    }

    /// Notes that the other replicas were told.
    pub(super) fn mark_published(&self, number: u64) {
        if let Some(entry) = lock(&self.unconfirmed).get_mut(&number) {
            entry.published = true;
        }
    }

    /// Returns when something was pushed since the last call.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    fn report(&self, unconfirmed: &BTreeMap<u64, Unconfirmed>) {
        self.metrics.revocation_journal_depth.set(i64::try_from(unconfirmed.len()).unwrap_or(i64::MAX));
    }
}

impl Filing<'_> {
    /// Returns what is to be applied.
    pub(super) fn revocation(&self) -> Option<&PendingEnd> {
        self.revocation.as_ref()
    }

    /// Redis acknowledged it.
    pub(super) fn confirm(mut self) {
        self.revocation = None;
    }
}

impl Drop for Filing<'_> {
    fn drop(&mut self) {
        if let Some(revocation) = self.revocation.take() {
            self.journal.push(revocation);
        }
    }
}

impl PendingEnd {
    fn is_over(&self, now: Timestamp) -> bool {
        matches!(self, Self::Sessions { expires_at, .. } if *expires_at <= now)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EndReason;
    use crate::time::ManualClock;

    fn journal() -> (Arc<ManualClock>, Arc<Metrics>, Arc<Journal>) {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        let metrics = Arc::new(Metrics::new().unwrap());
        (clock.clone(), metrics.clone(), Journal::new(clock, metrics, Duration::from_mins(1)))
    }

    fn id(seed: u8) -> SessionId {
        SessionId::new(Timestamp(1), Shard::of(1), &[seed; 10])
    }

    fn sessions(seed: u8, expires_at: Timestamp) -> PendingEnd {
        let end = End { reason: EndReason::Admin, at: Timestamp(1) };
        PendingEnd::Sessions { shard: Shard::of(1), ids: vec![id(seed)], end, expires_at }
    }

    #[test]
    fn the_recent_past_ends_with_the_window_or_the_token() {
        let (clock, _, journal) = journal();
        journal.remember([id(1)].into_iter(), Timestamp(500_000));
        journal.remember([id(2)].into_iter(), Timestamp(20_000));
        assert_eq!(journal.recent().len(), 2);
        clock.advance(Duration::from_secs(30));
        assert_eq!(journal.recent(), [(id(1), Timestamp(500_000))]);
        clock.advance(Duration::from_secs(31));
        assert_eq!(journal.recent(), []);
    }

    #[test]
    fn the_recent_past_is_bounded_and_keeps_the_newest() {
        let (_, _, journal) = journal();
        journal.remember([id(1)].into_iter(), Timestamp(500_000));
        journal.remember(std::iter::repeat_n(id(2), RECENT_MAX), Timestamp(500_000));
        assert_eq!(journal.recent().len(), RECENT_MAX);
        assert!(journal.recent().iter().all(|(recent, _)| *recent == id(2)));
    }

    #[test]
    fn a_revocation_whose_caller_goes_away_is_kept() {
        let (_, _, journal) = journal();
        journal.file(sessions(1, Timestamp(500_000))).confirm();
        drop(journal.file(sessions(2, Timestamp(500_000))));
        let [(_, entry)] = journal.unconfirmed().try_into().unwrap();
        assert_eq!(entry.revocation, sessions(2, Timestamp(500_000)));
    }

    #[test]
    fn an_entry_stays_until_it_is_confirmed_or_over() {
        let (clock, metrics, journal) = journal();
        journal.push(sessions(1, Timestamp(20_000)));
        journal.push(sessions(2, Timestamp(500_000)));
        assert_eq!(metrics.revocation_journal_depth.get(), 2);
        let [(first, _), (second, _)] = journal.unconfirmed().try_into().unwrap();
        journal.mark_published(second);
        journal.confirm(first);
        let expected = Unconfirmed { revocation: sessions(2, Timestamp(500_000)), published: true };
        assert_eq!(journal.unconfirmed(), [(second, expected)]);
        clock.advance(Duration::from_secs(500));
        assert_eq!(journal.unconfirmed(), []);
        assert_eq!(metrics.revocation_journal_depth.get(), 0);
    }
}
