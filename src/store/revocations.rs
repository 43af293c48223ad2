//! What one replica knows of revocations: stamps, lease, tombstones.
//!
//! The correctness rule is stamps, not deletes. A cache files an answer under the stamp it read
//! *before* asking the store. A revocation moves the stripe of its session, a lost connection or an
//! anomaly moves the generation, and counters only grow: an answer that predates either can never
//! be found again. Nothing here does I/O; a store's connection supervisor writes, validation reads.

use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::model::SessionId;
use crate::time::{Clock, Monotonic, Timestamp};

const STRIPES: usize = 4096;
const NEVER: u64 = u64::MAX;

/// How many tombstones are kept; beyond it the ones that expire soonest go first.
const TOMBSTONES_MAX: usize = 200_000;

/// The moment in a replica's knowledge at which a question was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// Moves with every lost connection, lapsed lease or anomaly.
    pub generation: u64,
    /// Moves with every revocation that falls into the session's stripe.
    pub stripe: u64,
}

/// Why a generation ended: the label of `doorward_invalidation_resyncs_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resync {
    /// The first connection of the process.
    Connect,
    /// The connection broke.
    Disconnected,
    /// The heartbeat failed or timed out.
    Heartbeat,
    /// The sequence of revocations had a gap, went back, or changed its past.
    Sequence,
    /// The peer is no longer the primary.
    Role,
}

/// What one replica knows of revocations. Shared by the store that hears and the cache that asks.
pub struct Revocations {
    clock: Arc<dyn Clock>,
    /// Twice the generation, plus one while it is vouched for: readers see both change in one step.
    state: AtomicU64,
    /// The last generation that was vouched for.
    vouched: AtomicU64,
    lease_until: AtomicU64,
    /// When the lease ends or would have ended had it not been given up.
    heard_until: AtomicU64,
    /// The same of the generation that was vouched for before the last one.
    heard_until_before: AtomicU64,
    /// Held while generation or lease move: two moves never interleave. Readers take no lock.
    moving: Mutex<()>,
    stripes: Vec<AtomicU64>,
    tombstones: RwLock<Tombstones>,
    /// Lets the common case, no tombstone at all, skip the lock.
    tombstone_count: AtomicUsize,
    changes: watch::Sender<u64>,
}

/// Ended sessions, each with when its credentials end by themselves.
type Tombstones = HashMap<SessionId, Timestamp, BuildHasherDefault<IdHasher>>;

/// Half of a session id is random: its bytes are the hash.
#[derive(Default)]
pub struct IdHasher(u64);

impl Revocations {
    /// Returns the state of a replica that has heard nothing yet and so vouches for nothing.
    pub fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            state: AtomicU64::new(2),
            vouched: AtomicU64::new(0),
            lease_until: AtomicU64::new(0),
            heard_until: AtomicU64::new(0),
            heard_until_before: AtomicU64::new(0),
            moving: Mutex::default(),
            stripes: std::iter::repeat_with(|| AtomicU64::new(0)).take(STRIPES).collect(),
            tombstones: RwLock::default(),
            tombstone_count: AtomicUsize::new(0),
            changes: watch::Sender::new(0),
        })
    }

    /// Returns the state of a replica that is alone: it hears of every revocation by making it.
    pub fn sole(clock: Arc<dyn Clock>) -> Arc<Self> {
        let alone = Self::new(clock);
        alone.lease_until.store(NEVER, Ordering::SeqCst);
        alone.heard_until.store(NEVER, Ordering::SeqCst);
        alone.vouched.store(1, Ordering::SeqCst);
        alone.state.store(3, Ordering::SeqCst);
        alone
    }

    /// Returns the stamp to file an answer about `id` under. Read it before asking.
    pub fn stamp(&self, id: &SessionId) -> Stamp {
        Stamp {
            generation: self.generation(),
            stripe: self.stripe(id).map_or(0, |stripe| stripe.load(Ordering::SeqCst)),
        }
    }

    /// Returns the stamp under which answers were filed while this replica last vouched for them.
    pub fn last_vouched_stamp(&self, id: &SessionId) -> Stamp {
        Stamp { generation: self.vouched_generation(), ..self.stamp(id) }
    }

    /// Gives the lease up at once: something is known to have been missed.
    pub fn end_lease(&self) {
        {
            let _moving = self.moving();
            self.lease_until.store(0, Ordering::SeqCst);
        }
        self.announce();
    }

    /// Returns the current generation.
    pub fn generation(&self) -> u64 {
        self.state.load(Ordering::SeqCst) / 2
    }

    /// Returns the generation that was vouched for last, whether or not it still is. Read it before
    /// validating: what is admitted then needs to be confirmed once another generation is live.
    pub fn vouched_generation(&self) -> u64 {
        self.vouched.load(Ordering::SeqCst)
    }

    /// Returns until when an exchange may go on that was admitted in `generation`, unless it is
    /// confirmed in a later one; `None` while that generation is vouched for. `max_stale` is what
    /// a lease that ran out, but was not given up, is stretched by.
    pub fn exchanges_until(&self, generation: u64, max_stale: Duration) -> Option<Monotonic> {
        let before = Monotonic(self.heard_until_before.load(Ordering::SeqCst));
        if generation != self.vouched_generation() {
            return Some(before.plus(max_stale));
        }
        if self.is_current() {
            return None;
        }
        let given_up = self.lease_until().0 == 0;
        let heard_until = Monotonic(self.heard_until.load(Ordering::SeqCst));
        Some(heard_until.plus(if given_up { Duration::ZERO } else { max_stale }))
    }

    /// Returns whether this replica would have heard of a revocation by now.
    pub fn is_current(&self) -> bool {
        self.state.load(Ordering::SeqCst) % 2 == 1 && self.clock.monotonic().0 < self.lease_until.load(Ordering::SeqCst)
    }

    /// Returns when the lease ran or will run out; the start of time if there never was one.
    pub fn lease_until(&self) -> Monotonic {
        Monotonic(self.lease_until.load(Ordering::SeqCst))
    }

    /// Returns whether `id` is known to be revoked. Authoritative: a store that says otherwise has not heard of it yet.
    pub fn is_revoked(&self, id: &SessionId) -> bool {
        self.tombstone_count.load(Ordering::SeqCst) > 0 && self.tombstones_read().contains_key(id)
    }

    /// Records that sessions were revoked. `expires_at` is when their credentials end by themselves.
    pub fn revoke(&self, ids: &[SessionId], expires_at: Timestamp) {
        {
            let mut tombstones = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
            tombstones.extend(ids.iter().map(|id| (*id, expires_at)));
            if tombstones.len() > TOMBSTONES_MAX {
                forget_soonest(&mut tombstones, self.clock.now());
            }
            self.tombstone_count.store(tombstones.len(), Ordering::SeqCst);
        }
        for stripe in ids.iter().filter_map(|id| self.stripe(id)) {
            stripe.fetch_add(1, Ordering::SeqCst);
        }
        self.announce();
    }

    /// Records that anything may have been revoked unheard: ends the generation and returns the new one.
    pub fn lose(&self) -> u64 {
        let generation = {
            let _moving = self.moving();
            self.advance()
        };
        self.announce();
        generation
    }

    /// Makes every earlier answer unfindable without a pause in vouching for new ones.
    pub fn forget(&self) {
        {
            let _moving = self.moving();
            let state = self.state.load(Ordering::SeqCst);
            if state % 2 == 1 {
                self.vouched.store(state / 2 + 1, Ordering::SeqCst);
            }
            self.state.store(state + 2, Ordering::SeqCst);
        }
        self.announce();
    }

    /// As [`lose`](Self::lose), and lets a lease that has no end, or a later one, end at `at`.
    pub fn lose_with_lease_until(&self, at: Monotonic) {
        {
            let _moving = self.moving();
            self.advance();
            self.heard_until.fetch_min(at.0, Ordering::SeqCst);
            self.lease_until.fetch_min(at.0, Ordering::SeqCst);
        }
        self.announce();
    }

    /// As [`lose`](Self::lose), but only if `generation` is still the current one: a late message
    /// from an old connection must not end a new one's generation. The lease runs on.
    pub fn lose_generation(&self, generation: u64) -> bool {
        let lost = {
            let _moving = self.moving();
            self.advance_from(generation)
        };
        if lost {
            self.announce();
        }
        lost
    }

    /// As [`lose_generation`](Self::lose_generation), and gives up the lease of `generation` at
    /// once: something is known to have been missed.
    pub fn give_up(&self, generation: u64) -> bool {
        let lost = {
            let _moving = self.moving();
            if self.vouched_generation() == generation {
                self.lease_until.store(0, Ordering::SeqCst);
            }
            self.advance_from(generation)
        };
        self.announce();
        lost
    }

    /// Begins to vouch in `generation` until `lease_until`; `false` if the generation has ended.
    pub fn go_live(&self, generation: u64, lease_until: Monotonic) -> bool {
        {
            let _moving = self.moving();
            if self.generation() != generation {
                return false;
            }
            self.heard_until_before.store(self.heard_until.load(Ordering::SeqCst), Ordering::SeqCst);
            // In this order: a reader must not find the new lease beside the old generation, whose
            // answers it would then honour.
            self.vouched.store(generation, Ordering::SeqCst);
            self.state.store(generation * 2 + 1, Ordering::SeqCst);
            self.heard_until.store(lease_until.0, Ordering::SeqCst);
            self.lease_until.store(lease_until.0, Ordering::SeqCst);
        }
        self.announce();
        true
    }

    /// Extends the lease of `generation`, unless it has ended.
    pub fn renew(&self, generation: u64, lease_until: Monotonic) {
        let _moving = self.moving();
        if self.generation() == generation && self.vouched_generation() == generation {
            self.heard_until.store(lease_until.0, Ordering::SeqCst);
            self.lease_until.store(lease_until.0, Ordering::SeqCst);
        }
    }

    /// Drops tombstones whose credentials have ended by themselves.
    pub fn prune(&self) {
        let now = self.clock.now();
        let mut tombstones = self.tombstones.write().unwrap_or_else(PoisonError::into_inner);
        tombstones.retain(|_, expires_at| *expires_at > now);
        self.tombstone_count.store(tombstones.len(), Ordering::SeqCst);
    }

    /// Returns how many tombstones are held.
    pub fn tombstone_count(&self) -> usize {
        self.tombstone_count.load(Ordering::SeqCst)
    }

    /// Returns a receiver that wakes whenever something was revoked, lost or regained.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn advance_from(&self, generation: u64) -> bool {
        let current = self.generation() == generation;
        if current {
            self.advance();
        }
        current
    }

    // Only while `moving` is held.
    fn advance(&self) -> u64 {
        let generation = self.generation() + 1;
        self.state.store(generation * 2, Ordering::SeqCst);
        generation
    }

    fn moving(&self) -> MutexGuard<'_, ()> {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stripe(&self, id: &SessionId) -> Option<&AtomicU64> {
        // Random bits of the id; its first bytes are a time and its last ones name a shard.
        let [.., high, low, _] = *id.as_bytes();
        self.stripes.get(usize::from(u16::from_be_bytes([high, low])) % STRIPES)
    }

    fn announce(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    fn tombstones_read(&self) -> std::sync::RwLockReadGuard<'_, Tombstones> {
        self.tombstones.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resync {
    /// Returns whether it shows that something was missed, rather than that something may be.
    pub fn is_anomaly(self) -> bool {
        matches!(self, Self::Sequence | Self::Role)
    }

    /// Returns the metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Disconnected => "disconnected",
            Self::Heartbeat => "heartbeat",
            Self::Sequence => "sequence",
            Self::Role => "role",
        }
    }
}

impl std::hash::Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(into, from)| *into = *from);
            self.0 = self.0.rotate_left(5) ^ u64::from_ne_bytes(word);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(23).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ word;
    }

    fn write_usize(&mut self, _length_prefix: usize) {}

    // Some bits of an id are the same in all of them; tables look at the lowest and the highest ones.
    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(26)
    }
}

// Reached only by mass revocation. What is dropped is past its end or nearest to it, and was
// deleted from the store before it became a tombstone: refusal then rests on the store alone.
fn forget_soonest(tombstones: &mut Tombstones, now: Timestamp) {
    tombstones.retain(|_, expires_at| *expires_at > now);
    if tombstones.len() <= TOMBSTONES_MAX {
        return;
    }
    let mut ends: Vec<Timestamp> = tombstones.values().copied().collect();
    let excess = ends.len() - TOMBSTONES_MAX / 2;
    let (_, cut, _) = ends.select_nth_unstable(excess);
    let cut = *cut;
    tombstones.retain(|_, expires_at| *expires_at > cut);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::ManualClock;

    fn id(seed: u8) -> SessionId {
        SessionId::from_bytes([seed; 16])
    }

    fn sole() -> (Arc<ManualClock>, Arc<Revocations>) {
        let clock = Arc::new(ManualClock::at(Timestamp(1_000)));
        (clock.clone(), Revocations::sole(clock))
    }

    #[test]
    fn a_revocation_moves_the_stamp_and_leaves_a_tombstone() {
        let (_, state) = sole();
        let before = state.stamp(&id(1));
        state.revoke(&[id(1)], Timestamp(9_000));
        assert_ne!(state.stamp(&id(1)), before);
        assert!(state.is_revoked(&id(1)));
        assert!(!state.is_revoked(&id(2)));
    }

    #[test]
    fn a_tombstone_lasts_until_its_session_ends() {
        let (clock, state) = sole();
        state.revoke(&[id(1)], Timestamp(9_000));
        state.prune();
        assert!(state.is_revoked(&id(1)));
        clock.advance(Duration::from_secs(9));
        state.prune();
        assert!(!state.is_revoked(&id(1)));
    }

    #[test]
    fn a_lapsed_lease_is_not_current() {
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let state = Revocations::new(clock.clone());
        assert!(!state.is_current(), "nothing heard yet");
        let generation = state.lose();
        assert!(state.go_live(generation, clock.monotonic().plus(Duration::from_secs(2))));
        assert!(state.is_current());
        clock.advance(Duration::from_secs(2));
        assert!(!state.is_current());
        state.renew(generation, clock.monotonic().plus(Duration::from_secs(2)));
        assert!(state.is_current());
    }

    fn live_for(clock: &ManualClock, state: &Revocations, lease: Duration) -> u64 {
        let generation = state.lose();
        assert!(state.go_live(generation, clock.monotonic().plus(lease)));
        generation
    }

    #[test]
    fn a_lost_connection_lets_the_lease_run_out_and_an_anomaly_gives_it_up() {
        const LEASE: Duration = Duration::from_secs(2);
        let clock = ManualClock::at(Timestamp(0));
        let state = Revocations::new(Arc::new(ManualClock::at(Timestamp(0))));
        let lost = live_for(&clock, &state, LEASE);
        assert!(state.lose_generation(lost));
        assert_eq!(state.lease_until(), clock.monotonic().plus(LEASE));
        state.renew(lost, clock.monotonic().plus(LEASE * 2));
        assert_eq!(state.lease_until(), clock.monotonic().plus(LEASE), "a lost generation is not renewed");
        let missed = live_for(&clock, &state, LEASE);
        assert!(state.give_up(missed));
        assert_eq!(state.lease_until(), Monotonic(0));
        state.renew(missed, clock.monotonic().plus(LEASE));
        assert_eq!(state.lease_until(), Monotonic(0), "nor is one that was given up");
        let next = live_for(&clock, &state, LEASE);
        assert!(!state.give_up(missed), "a late word from the old connection");
        assert_eq!((state.generation(), state.is_current()), (next, true));
    }

    #[test]
    fn forgetting_moves_the_stamp_and_goes_on_vouching() {
        let (_, state) = sole();
        let before = state.stamp(&id(1));
        state.forget();
        assert_ne!(state.stamp(&id(1)), before);
        assert!(state.is_current());
        assert_eq!(state.last_vouched_stamp(&id(1)), state.stamp(&id(1)));
        state.lose();
        state.forget();
        assert!(!state.is_current(), "what is not vouched for stays so");
    }

    #[test]
    fn an_exchange_may_go_on_until_the_lease_it_was_admitted_under_has_ended() {
        const LEASE: Duration = Duration::from_secs(2);
        const STALE: Duration = Duration::from_secs(30);
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let state = Revocations::new(clock.clone());
        let first = live_for(&clock, &state, LEASE);
        let until = clock.monotonic().plus(LEASE);
        assert_eq!(state.exchanges_until(first, STALE), None, "it is vouched for");
        state.lose_generation(first);
        assert_eq!(state.vouched_generation(), first, "what is admitted now needs a later confirmation");
        assert_eq!(state.exchanges_until(first, STALE), Some(until.plus(STALE)));
        clock.advance(Duration::from_secs(1));
        let second = live_for(&clock, &state, LEASE);
        assert_eq!(state.exchanges_until(first, STALE), Some(until.plus(STALE)));
        assert_eq!(state.exchanges_until(second, STALE), None);
        state.give_up(second);
        assert_eq!(state.exchanges_until(second, STALE), Some(clock.monotonic().plus(LEASE)), "not stretched");
    }

    #[test]
    fn an_ended_generation_cannot_go_live_or_end_its_successor() {
        let (clock, state) = sole();
        let old = state.lose();
        let new = state.lose();
        assert!(!state.go_live(old, clock.monotonic().plus(Duration::from_secs(2))));
        assert!(!state.lose_generation(old));
        assert_eq!(state.generation(), new);
        assert!(!state.is_current());
    }

    #[test]
    fn mass_revocation_keeps_the_tombstones_that_matter_longest() {
        let (_, state) = sole();
        let ids: Vec<SessionId> = (0..=TOMBSTONES_MAX as u64)
            .map(|number| {
                let mut bytes = [0; 16];
                bytes[8..].copy_from_slice(&number.to_be_bytes());
                SessionId::from_bytes(bytes)
            })
            .collect();
        let (late, early) = ids.split_at(10);
        state.revoke(late, Timestamp(90_000));
        state.revoke(early, Timestamp(50_000));
        assert!(late.iter().all(|id| state.is_revoked(id)));
        assert!(state.tombstone_count() <= TOMBSTONES_MAX);
    }
}
