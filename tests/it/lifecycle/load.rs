//! Callers that never stop, and a small balancer that asks `/readyz` before it sends anybody anywhere.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::get;
use crate::support::client::{Client, RawConnection, Response};
use crate::support::doorward::Doorward;
use crate::support::{eventually, within};

/// Requests that a worker still sends after the last replica was withdrawn: load balancers lag.
const AFTERWARDS: u32 = 10;

/// The least time between two requests of a worker: the server is what is tested, not the machine.
const PACE: Duration = Duration::from_millis(4);

/// The replicas that a balancer knows.
#[derive(Clone)]
pub(super) struct Fleet {
    replicas: Arc<Mutex<Vec<Replica>>>,
    /// For how long a replica is still sent new connections after it was found unready.
    lag: Duration,
}

#[derive(Clone, Copy)]
struct Replica {
    proxy: SocketAddr,
    admin: SocketAddr,
    unready_since: Option<Instant>,
}

/// Workers under way.
pub(super) struct Load {
    workers: JoinSet<Tally>,
    answered: Arc<AtomicU64>,
}

/// What became of the requests.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Requests that got no complete 200.
    pub(super) lost: Vec<String>,
    /// New connections that nobody took.
    pub(super) refused: u64,
    /// Answers that ended their connection.
    pub(super) closing: u64,
    /// Answers to requests sent after the replica was withdrawn that did not.
    pub(super) kept_open: u64,
}

struct Worker {
    fleet: Fleet,
    token: String,
    keep_alive: bool,
    number: usize,
    answered: Arc<AtomicU64>,
}

impl Fleet {
    /// Returns one that leaves a replica alone as soon as it is unready.
    pub(super) fn of(replicas: &[&Doorward]) -> Self {
        Self::lagging(replicas, Duration::ZERO)
    }

    /// Returns one that takes `lag` to notice that a replica is unready, as endpoints and the rules
    /// of nodes do.
    pub(super) fn lagging(replicas: &[&Doorward], lag: Duration) -> Self {
        let fleet = Self { replicas: Arc::default(), lag };
        for replica in replicas {
            fleet.enlist(replica);
        }
        fleet
    }

    pub(super) fn enlist(&self, replica: &Doorward) {
        let (proxy, admin) = (replica.proxy_addr(), replica.admin_addr());
        self.all().push(Replica { proxy, admin, unready_since: None });
    }

    pub(super) fn withdraw(&self, replica: &Doorward) {
        self.all().retain(|known| known.proxy != replica.proxy_addr());
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Replica>> {
        self.replicas.lock().expect("no holder panics")
    }

    fn is_empty(&self) -> bool {
        self.all().is_empty()
    }

    /// Returns a replica that says, or said until a moment ago, that it is ready.
    async fn pick(&self, turn: usize) -> Option<SocketAddr> {
        let known = self.all().clone();
        for step in 0..known.len() {
            let replica = known[(turn + step) % known.len()];
            let probe = Client::new(replica.admin).get("/readyz").try_send().await;
            let ready = probe.is_ok_and(|answer| answer.status == 200);
            if self.still_sends(replica.proxy, ready) {
                return Some(replica.proxy);
            }
        }
        None
    }

    fn still_sends(&self, proxy: SocketAddr, ready: bool) -> bool {
        let mut all = self.all();
        let Some(replica) = all.iter_mut().find(|replica| replica.proxy == proxy) else { return ready };
        if ready {
            return true;
        }
        replica.unready_since.get_or_insert_with(Instant::now).elapsed() < self.lag
    }
}

impl Load {
    /// Starts `workers` callers: every second one keeps its connection.
    pub(super) fn start(fleet: &Fleet, token: &str, workers: usize) -> Self {
        let answered = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        for number in 0..workers {
            let (fleet, token, answered) = (fleet.clone(), token.to_owned(), answered.clone());
            tasks.spawn(Worker { fleet, token, keep_alive: number % 2 == 0, number, answered }.run());
        }
        Self { workers: tasks, answered }
    }

    pub(super) fn count(&self) -> u64 {
        self.answered.load(Ordering::SeqCst)
    }

    /// Waits until so many requests were answered in all.
    pub(super) async fn answered(&self, count: u64) {
        eventually("the load to be answered", async || (self.count() >= count).then_some(())).await;
    }

    /// Waits until every worker has stopped, which they do once the fleet is empty.
    pub(super) async fn finish(mut self) -> Tally {
        let mut sum = Tally::default();
        while let Some(tally) = within("a worker to stop", self.workers.join_next()).await {
            let tally = tally.expect("a worker does not panic");
            sum.lost.extend(tally.lost);
            sum.refused += tally.refused;
            sum.closing += tally.closing;
            sum.kept_open += tally.kept_open;
        }
        sum
    }
}

impl Worker {
    async fn run(self) -> Tally {
        let mut tally = Tally::default();
        let mut connection: Option<RawConnection> = None;
        let mut pace = tokio::time::interval(PACE);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut turn, mut left, mut target) = (self.number, AFTERWARDS, None);
        loop {
            pace.tick().await;
            let withdrawn = self.fleet.is_empty();
            if withdrawn {
                let Some(rest) = left.checked_sub(1) else { return tally };
                left = rest;
            }
            let kept = connection.take();
            if kept.is_none() {
                turn += 1;
                target = if withdrawn { target } else { self.fleet.pick(turn).await.or(target) };
            }
            let opened = match (kept, target) {
                (None, Some(target)) => RawConnection::try_open(target).await,
                (kept, _) => kept,
            };
            // Refused before anything was sent: no request is lost, but its caller is told an error.
            let Some(mut open) = opened else {
                tally.refused += 1;
                continue;
            };
            open.write(get("/work", &self.token)).await;
            match open.response().await {
                Some(answer) if is_complete(&answer) => {
                    self.answered.fetch_add(1, Ordering::SeqCst);
                    if answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                        tally.closing += 1;
                    } else {
                        tally.kept_open += u64::from(withdrawn);
                        connection = self.keep_alive.then_some(open);
                    }
                }
                other => tally.lost.push(format!("worker {}: {other:?}", self.number)),
            }
        }
    }
}

fn is_complete(answer: &Response) -> bool {
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    answer.status == 200 && length == Some(answer.body.len()) && answer.json()["target"] == "/work"
}
