//! Ends exchanges that are under way when their session ends.
//!
//! Every connection (every stream, with HTTP/2) has a slot that holds the session of the exchange
//! it carries. A sweep wakes on each revocation and several times a second, and marks the slots
//! whose session is over. A marked slot first makes reading from the client fail, so that a
//! request whose response head was not sent can still be answered 401; a moment later the whole
//! exchange is dropped, which closes both sides whatever they are waiting for.

use std::collections::HashMap;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::task::AtomicWaker;

use crate::metrics::Metrics;
use crate::model::{Session, TokenId};
use crate::session::{Refusal, Sessions};
use crate::time::Clock;

const SHELVES: usize = 64;
/// How often lifetimes and the lease are looked at.
const TICK: Duration = Duration::from_millis(200);
/// Revocations that come in a burst share one sweep.
const COALESCE: Duration = Duration::from_millis(5);
/// How many sessions are confirmed with the store at once after a reconnect.
const CONFIRM_AT_ONCE: usize = 64;

/// All slots of the process.
pub struct Streams {
    shelves: Vec<Mutex<HashMap<u64, Weak<Slot>>>>,
    next: AtomicU64,
    exchanges: AtomicUsize,
}

/// One connection's (HTTP/2: one stream's) place for the exchange it carries.
#[derive(Debug)]
pub struct Slot {
    held: Mutex<Option<Held>>,
    ended: AtomicBool,
    reader: AtomicWaker,
    exchange: AtomicWaker,
}

/// Keeps a slot on its shelf; taking it away is the last thing a connection does.
pub struct Registration {
    streams: Arc<Streams>,
    number: u64,
    slot: Arc<Slot>,
}

#[derive(Clone, Debug)]
struct Held {
    session: Arc<Session>,
    /// The generation of the revocation state in which the session was last confirmed.
    generation: u64,
}

/// Why an exchange was cut: the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    Revoked,
    Expired,
    Unavailable,
}

impl Streams {
    /// Returns an empty set of slots.
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            shelves: std::iter::repeat_with(Mutex::default).take(SHELVES).collect(),
            next: AtomicU64::new(0),
            exchanges: AtomicUsize::new(0),
        })
    }

    /// Returns a new slot, swept for as long as the registration lives.
    pub fn register(self: &Arc<Self>) -> Registration {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let slot = Arc::new(Slot {
            held: Mutex::new(None),
            ended: AtomicBool::new(false),
            reader: AtomicWaker::new(),
            exchange: AtomicWaker::new(),
        });
        if let Some(shelf) = self.shelf(number) {
            shelf.lock().unwrap_or_else(PoisonError::into_inner).insert(number, Arc::downgrade(&slot));
        }
        Registration { streams: self.clone(), number, slot }
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
        let mut changes = sessions.revocations().subscribe();
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                heard = changes.changed() => if heard.is_err() { return },
                _ = tick.tick() => {}
            }
            self.sweep(sessions, max_stale, clock, metrics).await;
            tokio::time::sleep(COALESCE).await;
        }
    }

    async fn sweep(&self, sessions: &Sessions, max_stale: Duration, clock: &dyn Clock, metrics: &Metrics) {
        let revocations = sessions.revocations();
        let generation = revocations.generation();
        let lapsed = !revocations.is_current() && clock.monotonic() >= revocations.lease_until().plus(max_stale);
        let now = clock.now();
        let mut doubtful: HashMap<TokenId, (Arc<Session>, Vec<Arc<Slot>>)> = HashMap::new();
        for slot in self.slots() {
            let Some(held) = slot.held() else { continue };
            if sessions.is_revoked(&held.session) {
                slot.end(&held, Cut::Revoked, metrics);
            } else if lapsed {
                slot.end(&held, Cut::Unavailable, metrics);
            } else if held.session.is_expired(now) || (held.generation != generation && revocations.is_current()) {
                let entry = doubtful.entry(held.session.token_id);
                entry.or_insert_with(|| (held.session.clone(), Vec::new())).1.push(slot);
            }
        }
        let confirm = |(session, slots): (Arc<Session>, Vec<Arc<Slot>>)| async move {
            let confirmed = sessions.confirm(&session).await;
            settle(&session, &slots, confirmed.map(|validated| validated.session), generation, metrics);
        };
        futures_util::stream::iter(doubtful.into_values()).for_each_concurrent(CONFIRM_AT_ONCE, confirm).await;
    }

    fn slots(&self) -> Vec<Arc<Slot>> {
        let on_shelf = |shelf: &Mutex<HashMap<u64, Weak<Slot>>>| {
            let slots = shelf.lock().unwrap_or_else(PoisonError::into_inner);
            slots.values().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        self.shelves.iter().flat_map(on_shelf).collect()
    }

    fn shelf(&self, number: u64) -> Option<&Mutex<HashMap<u64, Weak<Slot>>>> {
        let index = usize::try_from(number % SHELVES as u64).ok()?;
        self.shelves.get(index)
    }
}

impl Registration {
    /// Returns the slot.
    pub fn slot(&self) -> &Arc<Slot> {
        &self.slot
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(shelf) = self.streams.shelf(self.number) {
            shelf.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.number);
        }
    }
}

impl std::fmt::Debug for Registration {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Registration({})", self.number)
    }
}

impl Slot {
    /// Puts an exchange's session under watch. Check for a revocation *after* this, not before.
    pub fn hold(&self, session: Arc<Session>, generation: u64) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = Some(Held { session, generation });
    }

    /// Ends the watch: the exchange is over.
    pub fn release(&self) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.ended.store(false, Ordering::SeqCst);
    }

    /// Returns whether the session of the exchange under way has ended.
    pub fn has_ended(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
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

    fn held(&self) -> Option<Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    // Under the lock: the exchange that is judged must be the one that is cut, not its successor
    // on the same connection.
    fn end(&self, judged: &Held, cut: Cut, metrics: &Metrics) {
        let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let same = held.as_ref().is_some_and(|held| Arc::ptr_eq(&held.session, &judged.session));
        if !same || self.ended.swap(true, Ordering::SeqCst) {
            return;
        }
        drop(held);
        metrics.streams_cut.with_label_values(&[cut.as_str()]).inc();
        self.reader.wake();
        self.exchange.wake();
    }

    fn renew(&self, judged: &Session, session: &Arc<Session>, generation: u64) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = held.as_mut().filter(|held| held.session.token_id == judged.token_id) {
            *held = Held { session: session.clone(), generation };
        }
    }
}

impl Cut {
    fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::Unavailable => "store_unavailable",
        }
    }
}

/// Returns every reason why an exchange may be cut, as the metrics call them.
pub(super) fn cut_labels() -> [&'static str; 3] {
    [Cut::Revoked, Cut::Expired, Cut::Unavailable].map(Cut::as_str)
}

fn settle(
    judged: &Arc<Session>,
    slots: &[Arc<Slot>],
    confirmed: Result<Arc<Session>, Refusal>,
    generation: u64,
    metrics: &Metrics,
) {
    let cut = match confirmed {
        Ok(session) => {
            for slot in slots {
                slot.renew(judged, &session, generation);
            }
            return;
        }
        // Whether it has ended is not known yet; the lease decides how long that may go on.
        Err(Refusal::Unavailable) => return,
        Err(Refusal::Expired) => Cut::Expired,
        Err(Refusal::Revoked | Refusal::Unknown | Refusal::Malformed) => Cut::Revoked,
    };
    let held = Held { session: judged.clone(), generation };
    for slot in slots {
        slot.end(&held, cut, metrics);
    }
}
