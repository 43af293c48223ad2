//! No revoked session is accepted later than the lease, whatever happens to Redis: one replica
//! revokes, another is asked all the time, and something breaks again and again.
//!
//! A stale accept is a request that was accepted and *began* after the revocation was
//! acknowledged. Late ones are counted and the worst is printed; one that began later than the
//! lease fails the test. Times are the monotonic clock's, so a loaded machine makes nothing worse.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use doorward::model::{End, EndReason, PrincipalId, Session, SessionId, TenantId};
use doorward::session::Refusal;
use doorward::store::redis::RedisStore;
use doorward::store::{Created, Listed, Page, Presented, Revocations, Rotated, SessionStore, Stamp, StoreError, Touch};
use doorward::time::Timestamp;
use moka::future::Cache;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval};

use crate::support::chaos::Chaos;
use crate::support::redis::Redis;
use crate::support::replica::{LEASE, Replica};
use crate::support::{eventually, within};

const SESSIONS: usize = 150;
const READERS: u64 = 3;

/// A session and the moment its revocation was acknowledged.
struct Entry {
    token: String,
    session: Arc<Session>,
    /// By anybody.
    revoked: OnceLock<Instant>,
    /// By the replica that revokes.
    revoked_there: AtomicBool,
}

/// Two replicas and what is known of their sessions.
struct Field {
    revoking: Replica,
    reading: Replica,
    entries: RwLock<Vec<Arc<Entry>>>,
    finished: AtomicBool,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    revoked: AtomicU64,
    accepted: AtomicU64,
    refused: AtomicU64,
    unavailable: AtomicU64,
    late: AtomicU64,
    worst_late: AtomicU64,
    too_late: AtomicU64,
}

impl Field {
    /// Signs in on one replica and asks the other once for each session.
    async fn new(revoking_url: &str, reading_url: &str) -> Arc<Self> {
        let (revoking, reading) = tokio::join!(Replica::live(revoking_url), Replica::live(reading_url));
        let (entries, tally) = (RwLock::default(), Tally::default());
        let field = Arc::new(Self { revoking, reading, entries, finished: AtomicBool::new(false), tally });
        for number in 0..SESSIONS {
            let entry = field.sign_in(number).await.expect("Redis answers");
            // A loaded machine may not answer in time at once.
            let known = async || field.reading.sessions.validate(&entry.token).await.ok();
            eventually("the other replica to know it", known).await;
        }
        field
    }

    async fn sign_in(&self, number: usize) -> Option<Arc<Entry>> {
        let started = self.revoking.try_sign_in(&format!("device {number}")).await?;
        let (token, session) = (started.opaque().expose().to_owned(), started.session);
        let entry = Arc::new(Entry { token, session, revoked: OnceLock::new(), revoked_there: AtomicBool::new(false) });
        self.entries.write().expect("no holder panics").push(entry.clone());
        Some(entry)
    }

    fn entries(&self) -> Vec<Arc<Entry>> {
        self.entries.read().expect("no holder panics").clone()
    }

    /// Revokes and asks while `fault` lasts; fails if anything was accepted too late.
    async fn hammer(self: Arc<Self>, name: &str, fault: impl Future<Output = ()>) {
        let mut tasks = JoinSet::new();
        tasks.spawn(self.clone().revoke());
        for seed in 0..READERS {
            tasks.spawn(self.clone().read(seed));
        }
        fault.await;
        self.finished.store(true, Ordering::SeqCst);
        while let Some(ended) = within("readers and revoker to end", tasks.join_next()).await {
            ended.expect("no task panics");
        }
        self.report(name);
    }

    // A new session for each that ends, so that there is always something to accept.
    async fn revoke(self: Arc<Self>) {
        let mut pace = paced(5);
        for number in SESSIONS.. {
            pace.tick().await;
            if self.finished.load(Ordering::SeqCst) {
                return;
            }
            let Some(entry) = self.entries().get(number - SESSIONS).cloned() else { return };
            if self.revoking.sessions.end(&entry.session, EndReason::Logout).await.is_ok() {
                entry.revoked.get_or_init(Instant::now);
                entry.revoked_there.store(true, Ordering::SeqCst);
                self.tally.revoked.fetch_add(1, Ordering::Relaxed);
            }
            // Nobody who signs in while Redis is away gets in: then the field shrinks for a while.
            self.sign_in(number).await;
        }
    }

    async fn read(self: Arc<Self>, seed: u64) {
        let mut dice = seed + 1;
        let mut pace = paced(2);
        while !self.finished.load(Ordering::SeqCst) {
            pace.tick().await;
            let entries = self.entries();
            for _ in 0..64 {
                dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let choice = usize::try_from(dice >> 33).expect("31 bits") % entries.len();
                self.ask(&entries[choice]).await;
            }
        }
    }

    async fn ask(&self, entry: &Entry) {
        // A revocation that a replica acknowledged is in force there at once.
        if entry.revoked_there.load(Ordering::SeqCst) {
            assert_eq!(self.revoking.sessions.validate(&entry.token).await.err(), Some(Refusal::Revoked));
        }
        let revoked = entry.revoked.get().copied();
        let began = Instant::now();
        let tally = &self.tally;
        match self.reading.sessions.validate(&entry.token).await {
            Ok(_) => {
                tally.accepted.fetch_add(1, Ordering::Relaxed);
                let Some(late) = revoked.map(|revoked| began.duration_since(revoked)) else { return };
                tally.late.fetch_add(1, Ordering::Relaxed);
                let micros = u64::try_from(late.as_micros()).expect("a run of seconds");
                tally.worst_late.fetch_max(micros, Ordering::Relaxed);
                if late > LEASE {
                    tally.too_late.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(Refusal::Revoked) => drop(tally.refused.fetch_add(1, Ordering::Relaxed)),
            Err(Refusal::Unavailable) => drop(tally.unavailable.fetch_add(1, Ordering::Relaxed)),
            Err(other) => panic!("{other}"),
        }
    }

    #[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to see")]
    fn report(&self, name: &str) {
        let of = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let tally = &self.tally;
        println!(
            "{name}: {} revoked, {} accepted, {} refused, {} unavailable, {} late, worst {} ms of {} ms",
            of(&tally.revoked),
            of(&tally.accepted),
            of(&tally.refused),
            of(&tally.unavailable),
            of(&tally.late),
            of(&tally.worst_late) / 1000,
            LEASE.as_millis(),
        );
        assert!(of(&tally.revoked) > 0 && of(&tally.accepted) > 0 && of(&tally.refused) > 0, "nothing was tried");
        assert_eq!(of(&tally.too_late), 0, "accepted later than the lease");
    }
}

/// Keeps load or faults at a pace; a late tick does not make the next ones hurry.
fn paced(millis: u64) -> Interval {
    let mut pace = interval(Duration::from_millis(millis));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    pace
}

async fn several(times: usize, millis: u64, mut fault: impl AsyncFnMut(usize)) {
    let mut pace = paced(millis);
    pace.tick().await;
    for time in 0..times {
        fault(time).await;
        pace.tick().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_fault_nothing_is_later_than_the_lease() {
    let redis = Redis::start().await;
    let field = Field::new(&redis.url(), &redis.url()).await;
    field.clone().hammer("no fault", several(4, 400, async |_| {})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_connections_make_nothing_later_than_the_lease() {
    let redis = Redis::start().await;
    let field = Field::new(&redis.url(), &redis.url()).await;
    let kill = async |time: usize| {
        let kind = if time.is_multiple_of(2) { "pubsub" } else { "normal" };
        redis.command::<u64>(&["CLIENT", "KILL", "TYPE", kind]).await;
    };
    field.clone().hammer("connections killed", several(8, 300, kill)).await;
    field.reading.becomes_current().await;
    assert!(field.reading.metrics.store_reconnects.with_label_values(&["redis"]).get() >= 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_makes_nothing_later_than_the_lease() {
    let redis = Redis::start().await;
    let network = Chaos::to(redis.port()).await;
    let field = Field::new(&redis.url(), &redis.url_through(network.port())).await;
    let swallow = async |time: usize| if time.is_multiple_of(2) { network.silence() } else { network.restore() };
    field.clone().hammer("black hole", several(4, 900, swallow)).await;
    assert!(field.tally.unavailable.load(Ordering::SeqCst) > 0, "the lease never lapsed");
    field.reading.becomes_current().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flush_makes_nothing_later_than_the_lease() {
    let redis = Redis::start().await;
    let field = Field::new(&redis.url(), &redis.url()).await;
    let flush = async |_| {
        let gone = field.entries();
        redis.command::<()>(&["FLUSHALL"]).await;
        // Nobody was told, and everybody is signed out.
        for entry in gone {
            entry.revoked.get_or_init(Instant::now);
        }
    };
    field.clone().hammer("flush", several(5, 500, flush)).await;
    assert!(field.reading.metrics.invalidation_resyncs.with_label_values(&["sequence"]).get() > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_redis_makes_nothing_later_than_the_lease() {
    let redis = Redis::start().await;
    let field = Field::new(&redis.url(), &redis.url()).await;
    let pause = async |time: usize| if time.is_multiple_of(2) { redis.pause() } else { redis.resume() };
    field.clone().hammer("SIGSTOP", several(4, 900, pause)).await;
    field.reading.becomes_current().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_makes_nothing_later_than_the_lease() {
    let mut redis = Redis::options().append_only().start().await;
    let url = redis.url();
    let field = Field::new(&url, &url).await;
    field.clone().hammer("restart", several(3, 800, async |_| redis.restart().await)).await;
    field.reading.becomes_current().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fail_over_that_forgets_revocations_makes_nothing_later_than_the_lease() {
    let primary = Redis::start().await;
    let copy = Redis::options().replica_of(&primary).start().await;
    let service = Chaos::to(primary.port()).await;
    let url = primary.url_through(service.port());
    let field = Field::new(&url, &url).await;
    let all_there = async || {
        let (here, there): (u64, u64) = (primary.command(&["DBSIZE"]).await, copy.try_command(&["DBSIZE"]).await.ok()?);
        (here == there).then_some(())
    };
    eventually("the copy to have every session", all_there).await;
    let fail_over = several(6, 400, async |time| match time {
        // From here on the old primary is alone, and acknowledges revocations that will be lost.
        1 => copy.command(&["REPLICAOF", "NO", "ONE"]).await,
        2 => {
            service.turn_to(copy.port());
            service.cut();
        }
        3 => service.restore(),
        _ => {}
    });
    field.clone().hammer("fail-over", fail_over).await;
    field.reading.becomes_current().await;
    let back = |replica: &Replica| replica.metrics.invalidation_resurrected.get();
    assert!(back(&field.reading) + back(&field.revoking) > 0, "the new primary had forgotten nothing");
    // A replica that starts now, and has heard of nothing, finds them gone too.
    let newcomer = Replica::live(&url).await;
    for entry in field.entries().iter().filter(|entry| entry.revoked.get().is_some()) {
        assert_eq!(newcomer.sessions.validate(&entry.token).await.err(), Some(Refusal::Revoked));
    }
}

/// Holds answers back between Redis and the cache: where the races are.
struct Gate {
    store: Arc<RedisStore>,
    closed: AtomicBool,
    arrived: Semaphore,
    opened: Semaphore,
}

#[async_trait]
impl SessionStore for Gate {
    async fn create(&self, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError> {
        self.store.create(session, cap, now).await
    }

    async fn find(&self, id: SessionId, stamp: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let found = self.store.find(id, stamp, now).await;
        if self.closed.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.opened.acquire().await.expect("it is never closed").forget();
        }
        found
    }

    async fn touch(&self, id: SessionId, touch: Touch, now: Timestamp) -> Result<bool, StoreError> {
        self.store.touch(id, touch, now).await
    }

    async fn rotate(&self, id: SessionId, presented: Presented, now: Timestamp) -> Result<Rotated, StoreError> {
        self.store.rotate(id, presented, now).await
    }

    async fn end(&self, ids: &[SessionId], end: End) -> Result<(), StoreError> {
        self.store.end(ids, end).await
    }

    async fn end_principal(&self, tenant: &TenantId, principal: &PrincipalId, end: End) -> Result<u64, StoreError> {
        self.store.end_principal(tenant, principal, end).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError> {
        self.store.list(tenant, principal, page, now).await
    }

    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.store.claim_once(digest, until, now).await
    }

    fn revocations(&self) -> &Arc<Revocations> {
        self.store.revocations()
    }
}

/// An answer is read, the session ends, the cache is told, and only then the answer is filed.
///
/// A cache that forgets what it is told to forget keeps it from then on. One that files answers
/// under the moment at which they were asked for never finds it again, even where no tombstone
/// helps: the session was deleted without a message, while the connection was down.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_from_before_is_found_by_a_cache_that_deletes_and_not_by_one_that_stamps() {
    let redis = Redis::start().await;
    let mut gate = None;
    let replica = Replica::live_over(&redis.url(), |store| {
        let (arrived, opened) = (Semaphore::new(0), Semaphore::new(0));
        gate.insert(Arc::new(Gate { store, closed: AtomicBool::new(false), arrived, opened })).clone()
    })
    .await;
    let gate = gate.expect("the replica has a store");
    let started = replica.sign_in("device").await;
    let (token, id) = (started.opaque().expose().to_owned(), started.session.id);
    let deleting: Cache<SessionId, Arc<Session>> = Cache::new(100);

    gate.closed.store(true, Ordering::SeqCst);
    let (sessions, asked) = (replica.sessions.clone(), token.clone());
    let asking = tokio::spawn(async move { sessions.validate(&asked).await.is_ok() });
    within("the answer", gate.arrived.acquire()).await.expect("it is never closed").forget();
    let generation = replica.sessions.revocations().vouched_generation();
    redis.command::<()>(&["FLUSHALL"]).await;
    let later = async || (replica.sessions.revocations().vouched_generation() > generation).then_some(());
    eventually("the next generation", later).await;
    replica.becomes_current().await;
    deleting.invalidate_all();
    gate.closed.store(false, Ordering::SeqCst);
    gate.opened.add_permits(1);
    assert!(within("the old request", asking).await.expect("no panic"), "it began before, and may end");
    deleting.insert(id, started.session.clone()).await;

    assert!(deleting.get(&id).await.is_some(), "what the protocol is there to prevent");
    assert!(!replica.sessions.revocations().is_revoked(&id), "no tombstone helps");
    assert_eq!(replica.sessions.validate(&token).await.err(), Some(Refusal::Revoked));
}
