//! Ends exchanges that are under way when their session ends.
//!
//! Every connection (every stream, with HTTP/2) has a watch that holds the session of the exchange
//! it carries. A sweep wakes on each revocation, when the lease ends and several times a second,
//! and marks the watches whose session is over. It never waits: sessions that only the store can
//! judge are confirmed beside it. A marked watch makes reading from an HTTP/1 client fail, so that a
//! request whose response head was not sent can still be answered; a moment later, or at once if
//! it was sent, the whole exchange is dropped, which closes both sides whether or not they wait. An
//! HTTP/2 exchange is dropped at once and stores the refusal for the stream's carrier to send.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{Fuse, FusedFuture};
use futures_util::task::AtomicWaker;
use futures_util::{FutureExt, StreamExt};
use http::HeaderValue;
use tokio::task::futures::TaskLocalFuture;

use crate::api::{Dialect, RequestId};
use crate::metrics::Metrics;
use crate::model::{Session, SessionId};
use crate::session::{Refusal, Sessions};
use crate::time::Clock;

const SHARDS: usize = 64;
/// How often lifetimes are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Revocations that come in a burst share one sweep.
const COALESCE: Duration = Duration::from_millis(5);
/// How many sessions are confirmed with the store at once after a reconnect.
const CONFIRM_AT_ONCE: usize = 64;

tokio::task_local! {
    /// The watch of the exchange that the current task carries.
    static CURRENT: Arc<Watch>;
}

/// All watches of the process.
pub struct SessionWatch {
    shards: Vec<Mutex<HashMap<u64, Weak<Watch>>>>,
    next: AtomicU64,
    exchanges: AtomicUsize,
}

/// What cuts the exchange that one connection (with HTTP/2, one stream) carries.
#[derive(Debug)]
pub struct Watch {
    held: Mutex<Option<Watched>>,
    /// How many exchanges it has carried: their numbers.
    carried: AtomicU64,
    /// Zero, or why the session of the exchange under way has ended.
    ended: AtomicU8,
    /// Whether the head of the answer may be on its way.
    answered: AtomicBool,
    reader: AtomicWaker,
    exchange: AtomicWaker,
    /// The peer's address as text: the same for every exchange of a connection.
    peer: OnceLock<HeaderValue>,
    /// The answer of an exchange that was cut before it could give it.
    pending_refusal: OnceLock<(Refusal, Dialect, RequestId)>,
}

/// Keeps a watch among those that are swept; dropping it is the last thing a connection does.
pub struct Registration {
    streams: Arc<SessionWatch>,
    number: u64,
    watch: Arc<Watch>,
}

#[derive(Clone, Debug)]
struct Watched {
    exchange: u64,
    session: Arc<Session>,
    /// The generation of the revocation state in which the session was last confirmed.
    generation: u64,
}

/// Why an exchange was cut: the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Revoked = 1,
    Expired = 2,
    Unavailable = 3,
}

/// Exchanges of one session that only the store can judge.
type Doubtful = (Arc<Session>, Vec<(Arc<Watch>, Watched)>);

impl SessionWatch {
    /// Returns an empty set of watches.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: std::iter::repeat_with(Mutex::default).take(SHARDS).collect(),
            next: AtomicU64::new(0),
            exchanges: AtomicUsize::new(0),
        })
    }

    /// Returns a new watch, swept for as long as the registration lives.
    pub fn register(self: &Arc<Self>) -> Registration {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let watch = Arc::new(Watch {
            held: Mutex::new(None),
            carried: AtomicU64::new(0),
            ended: AtomicU8::new(0),
            answered: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            exchange: AtomicWaker::new(),
            peer: OnceLock::new(),
            pending_refusal: OnceLock::new(),
        });
        if let Some(shard) = self.shard(number) {
            shard.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::downgrade(&watch));
        }
        Registration { streams: self.clone(), number, watch }
    }

    /// Returns how many exchanges are under way.
    pub fn exchanges(&self) -> usize {
        self.exchanges.load(Ordering::SeqCst)
    }

    /// Counts one exchange in; undone by [`exchange_finished`](Self::exchange_finished).
    pub fn exchange_began(&self) {
        self.exchanges.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts one exchange out.
    pub fn exchange_finished(&self) {
        self.exchanges.fetch_sub(1, Ordering::SeqCst);
    }

    /// Sweeps until the runtime ends.
    pub async fn run(&self, sessions: &Sessions, max_stale: Duration, clock: &dyn Clock, metrics: &Metrics) {
        let revocations = sessions.revocations();
        let mut changes = revocations.subscribe();
        let mut confirming = pin!(Fuse::terminated());
        loop {
            let lease_left = revocations.lease_until().since(clock.monotonic());
            let pause = if lease_left.is_zero() { TICK } else { TICK.min(lease_left) };
            tokio::select! {
                heard = changes.changed() => if heard.is_err() { return },
                () = tokio::time::sleep(pause) => {}
                () = &mut confirming => {}
            }
            let doubtful = self.sweep(sessions, max_stale, clock, metrics);
            if confirming.is_terminated() && !doubtful.is_empty() {
                confirming.set(confirm(doubtful, sessions, metrics).fuse());
            }
            tokio::time::sleep(COALESCE).await;
        }
    }

    // Ends what is known to be over; returns what has to be asked for.
    fn sweep(&self, sessions: &Sessions, max_stale: Duration, clock: &dyn Clock, metrics: &Metrics) -> Vec<Doubtful> {
        let revocations = sessions.revocations();
        let (now, monotonic) = (clock.now(), clock.monotonic());
        let mut doubtful: HashMap<SessionId, Doubtful> = HashMap::new();
        for watch in self.watches() {
            let Some(held) = watch.held() else { continue };
            let expired = held.session.is_expired(now);
            let until = revocations.exchanges_until(held.generation, max_stale);
            if sessions.is_revoked(&held.session) {
                watch.end(&held, Cut::Revoked, metrics);
            } else if expired && !sessions.may_extend() {
                watch.end(&held, Cut::Expired, metrics);
            } else if until.is_some_and(|until| monotonic >= until) {
                watch.end(&held, Cut::Unavailable, metrics);
            } else if expired || (until.is_some() && revocations.is_current()) {
                let entry = doubtful.entry(held.session.id);
                entry.or_insert_with(|| (held.session.clone(), Vec::new())).1.push((watch, held));
            }
        }
        doubtful.into_values().collect()
    }

    fn watches(&self) -> Vec<Arc<Watch>> {
        let on_shard = |shard: &Mutex<HashMap<u64, Weak<Watch>>>| {
            let watches = shard.lock().unwrap_or_else(PoisonError::into_inner);
            watches.values().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        self.shards.iter().flat_map(on_shard).collect()
    }

    fn shard(&self, number: u64) -> Option<&Mutex<HashMap<u64, Weak<Watch>>>> {
        let index = usize::try_from(number % SHARDS as u64).ok()?;
        self.shards.get(index)
    }
}

impl Registration {
    /// Returns the watch.
    pub fn watch(&self) -> &Arc<Watch> {
        &self.watch
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(shard) = self.streams.shard(self.number) {
            shard.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        }
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Registration({})", self.number)
    }
}

impl Watch {
    /// Runs `exchange`, which finds this watch as the [`current`](Self::current) one.
    pub(super) fn carry<F: Future>(self: Arc<Self>, exchange: F) -> TaskLocalFuture<Arc<Self>, F> {
        CURRENT.scope(self, exchange)
    }

    /// Returns the watch of the exchange that the current task carries; `None` outside of [`carry`](Self::carry).
    pub(in crate::proxy) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// Puts an exchange's session under watch. `generation` was vouched for before the session was
    /// validated. Check for a revocation *after* this, not before.
    pub fn hold(&self, session: Arc<Session>, generation: u64) {
        let mut held = self.lock();
        let exchange = self.carried.fetch_add(1, Ordering::Relaxed);
        *held = Some(Watched { exchange, session, generation });
        self.answered.store(false, Ordering::SeqCst);
    }

    /// Ends the watch: the exchange is over.
    pub fn release(&self) {
        let mut held = self.lock();
        *held = None;
        self.ended.store(0, Ordering::SeqCst);
    }

    /// Returns the peer's address as text, which `render` makes once a connection.
    pub fn peer_text(&self, render: impl FnOnce() -> HeaderValue) -> HeaderValue {
        self.peer.get_or_init(render).clone()
    }

    /// Records that the head of the answer is about to be sent: a cut can no longer be answered.
    pub fn answering(&self) {
        self.answered.store(true, Ordering::SeqCst);
    }

    /// Returns whether the head of the answer may have been sent.
    pub fn is_answered(&self) -> bool {
        self.answered.load(Ordering::SeqCst)
    }

    /// Returns why the exchange under way must end, if it must.
    pub fn ended_by(&self) -> Option<Refusal> {
        let ended = self.ended.load(Ordering::SeqCst);
        let cut = [Cut::Revoked, Cut::Expired, Cut::Unavailable].into_iter().find(|cut| *cut as u8 == ended)?;
        Some(cut.refusal())
    }

    /// Stores the answer that the exchange was cut before it could give. Only for HTTP/2, where a
    /// watch carries one exchange.
    pub(in crate::proxy) fn set_pending_refusal(&self, refusal: Refusal, dialect: Dialect, request_id: RequestId) {
        let _ = self.pending_refusal.set((refusal, dialect, request_id));
    }

    /// Returns the answer that the exchange was cut before it could give.
    pub(in crate::proxy) fn pending_refusal(&self) -> Option<(Refusal, Dialect, RequestId)> {
        self.pending_refusal.get().copied()
    }

    /// Returns whether reading from the client must fail now, and arranges to be woken when it must.
    pub fn poll_ended(&self, context: &Context<'_>) -> bool {
        self.reader.register(context.waker());
        self.has_ended()
    }

    /// Resolves when the session of the exchange under way has ended.
    pub async fn ended(&self) {
        poll_fn(|context| {
            self.exchange.register(context.waker());
            if self.has_ended() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst) != 0
    }

    fn held(&self) -> Option<Watched> {
        self.lock().clone()
    }

    // Under the lock: the exchange that was judged must be the one that is cut, not its successor
    // on the same connection.
    fn end(&self, judged: &Watched, cut: Cut, metrics: &Metrics) {
        let held = self.lock();
        let same = held.as_ref().is_some_and(|held| held.exchange == judged.exchange);
        if !same || self.has_ended() {
            return;
        }
        self.ended.store(cut as u8, Ordering::SeqCst);
        drop(held);
        metrics.streams_cut.with_label_values(&[cut.as_str()]).inc();
        self.reader.wake();
        self.exchange.wake();
    }

    fn renew(&self, judged: &Watched, session: &Arc<Session>, generation: u64) {
        let mut held = self.lock();
        if let Some(held) = held.as_mut().filter(|held| held.exchange == judged.exchange) {
            (held.session, held.generation) = (session.clone(), generation);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Watched>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Cut {
    fn refusal(self) -> Refusal {
        match self {
            Self::Revoked => Refusal::Revoked,
            Self::Expired => Refusal::Expired,
            Self::Unavailable => Refusal::Unavailable,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Unavailable => "store_unavailable",
        }
    }
}

/// Returns every reason why an exchange may be cut, as the metrics call them.
pub(in crate::proxy) fn cut_labels() -> [&'static str; 3] {
    [Cut::Revoked, Cut::Expired, Cut::Unavailable].map(Cut::as_str)
}

async fn confirm(doubtful: Vec<Doubtful>, sessions: &Sessions, metrics: &Metrics) {
    let confirm = |(session, exchanges): Doubtful| async move {
        // Read before asking: the answer is at least as new as this generation.
        let generation = sessions.revocations().vouched_generation();
        let cut = match sessions.confirm(&session).await {
            Ok(confirmed) => {
                for (watch, held) in &exchanges {
                    watch.renew(held, &confirmed.session, generation);
                }
                return;
            }
            // Whether it has ended is not known yet; the lease decides how long that may go on.
            Err(Refusal::Unavailable) => return,
            Err(Refusal::Expired) => Cut::Expired,
            Err(Refusal::Revoked | Refusal::Unknown | Refusal::Malformed) => Cut::Revoked,
        };
        for (watch, held) in &exchanges {
            watch.end(held, cut, metrics);
        }
    };
    futures_util::stream::iter(doubtful).for_each_concurrent(CONFIRM_AT_ONCE, confirm).await;
}

#[cfg(test)]
mod tests;
