//! Keeps a replica connected to Redis, and vouches for what it knows only while that is true.
//!
//! Connect, subscribe, read role and count, re-apply recent revocations, go live; then a heartbeat
//! renews the lease, counted from the moment it was sent. Anything odd ends the generation: cached
//! answers die, validation says 503, and it begins anew. It is the circuit breaker, too.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redis::{RedisError, RedisResult, Value};
use tokio::time::{MissedTickBehavior, interval};

use super::RedisStore;
use super::client::{Connection, Opened};
use super::link::{Connected, Link, StoreOp};
use super::subscriber::{Count, Gap, Subscriber};
use crate::store::revocations::Resync;
use crate::time::Monotonic;

/// The longest pause between attempts to connect.
const PAUSE_MAX: Duration = Duration::from_secs(1);
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// A link that lived this long ends a series of attempts: what keeps failing at once is not hurried.
const STEADY: Duration = Duration::from_millis(200);
/// How many control keys of a cluster one heartbeat reads: all of them every eight beats.
const CLUSTER_CONTROLS: usize = 8;
const COUNT_FIELDS: [&str; 3] = ["seq", "last", "epoch"];

type CountFields = (Option<u64>, Option<String>, Option<String>);

/// Why a generation ended, or did not begin.
#[derive(Debug)]
struct Lost {
    reason: Resync,
    cause: String,
}

/// The controls of a cluster whose counts the last heartbeat read, and which to read next.
#[derive(Default)]
struct Round {
    next: usize,
    read: Vec<(usize, u64)>,
}

/// What one look at a server showed.
struct Seen {
    role: Vec<Value>,
    count: Count,
}

impl RedisStore {
    /// Connects and stays connected, for ever; dropping the future lets the lease lapse.
    pub async fn run(self: Arc<Self>) {
        let mut attempt = 0;
        let mut reported = false;
        let mut connected_before = false;
        loop {
            match self.establish().await {
                Ok(link) => {
                    if connected_before {
                        self.sender.measured().reconnected();
                    } else {
                        self.metrics.invalidation_resyncs.with_label_values(&[Resync::Connect.as_str()]).inc();
                    }
                    (reported, connected_before) = (false, true);
                    self.report_live(true);
                    let since = self.clock.monotonic();
                    let lost = self.keep(&link).await;
                    if self.clock.monotonic().since(since) >= STEADY {
                        attempt = 0;
                    }
                    self.link.store(None);
                    link.subscriber.lose(lost.reason);
                    self.report_live(false);
                    tracing::warn!(reason = lost.reason.as_str(), cause = lost.cause, "lost Redis");
                }
                Err(lost) => {
                    if lost.reason.is_anomaly() {
                        self.revocations.end_lease();
                    }
                    if !std::mem::replace(&mut reported, true) {
                        tracing::warn!(reason = lost.reason.as_str(), cause = lost.cause, "cannot use Redis, retrying");
                    }
                }
            }
            tokio::time::sleep(pause(attempt, &self.instance)).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn establish(&self) -> Result<Arc<Link>, Lost> {
        let generation = self.revocations.lose();
        let subscriber = Subscriber::new(
            generation,
            self.keys.clone(),
            self.clock.clone(),
            self.metrics.clone(),
            self.revocations.clone(),
            self.journal.clone(),
        );
        let on_push = subscriber.clone();
        let target = self.target.load_full();
        let opening = target.open(self.deadlines, move |push| on_push.on_push(&push));
        let mut opened = within(target.patience(self.deadlines), opening).await?;
        within(self.deadlines.connect, opened.subscription.subscribe(self.keys.channel())).await?;
        let sent = self.clock.monotonic();
        for (control, count) in self.first_counts(&opened).await?.iter().enumerate() {
            subscriber.begin(control, count)?;
        }
        let (read, write) = (Connected::new(opened.read), Connected::new(opened.write));
        let link = Arc::new(Link { generation, read, write, subscription: opened.subscription, subscriber });
        // A fail-over may have brought back what had ended: nothing is vouched for before that is swept.
        within(self.deadlines.answer, self.reapply(&link)).await.inspect_err(|_| self.revocations.end_lease())?;
        self.link.store(Some(link.clone()));
        if self.revocations.go_live(generation, sent.plus(self.lease)) {
            Ok(link)
        } else {
            self.link.store(None);
            Err(Lost { reason: Resync::Disconnected, cause: "broke while connecting".to_owned() })
        }
    }

    async fn keep(&self, link: &Link) -> Lost {
        tokio::select! {
            lost = self.beat(link) => lost,
            lost = self.follow_rotation(link) => lost,
            reason = link.subscriber.lost() => Lost { reason, cause: "noticed on the connection".to_owned() },
            never = async { tokio::join!(self.warn_of_eviction(link), self.retry(link)).1 } => match never {},
        }
    }

    // A rotated password is told on the connections in use: they go on also when Redis refuses it, and
    // the operator learns now whether the next connection will be made.
    async fn follow_rotation(&self, link: &Link) -> Lost {
        loop {
            self.rotated.notified().await;
            let target = self.target.load_full();
            if target.is_cluster() {
                return Lost { reason: Resync::Disconnected, cause: "credentials were rotated".to_owned() };
            }
            let Some(command) = target.authentication() else { continue };
            let (mut subscription, mut write) = (link.subscription.clone(), link.write.connection());
            let both = async {
                command.query_async::<()>(&mut subscription).await?;
                command.query_async::<()>(&mut write).await
            };
            match within(self.deadlines.answer, both).await {
                Ok(()) => tracing::info!("Redis takes the rotated password"),
                Err(Lost { cause, .. }) => tracing::warn!(
                    cause,
                    "Redis does not take the rotated password: connections in use go on, new ones cannot be made"
                ),
            }
        }
    }

    async fn beat(&self, link: &Link) -> Lost {
        let mut ticks = interval(self.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut round = Round::default();
        loop {
            ticks.tick().await;
            let sent = self.clock.monotonic();
            let checked = if self.target.load().is_cluster() {
                self.check_cluster(link, &mut round).await
            } else {
                self.check_single(link).await
            };
            if let Err(lost) = checked {
                return lost;
            }
            if self.revocations.generation() != link.generation {
                return Lost { reason: Resync::Sequence, cause: "ended elsewhere".to_owned() };
            }
            self.vouch(link, sent);
        }
    }

    fn vouch(&self, link: &Link, sent: Monotonic) {
        self.revocations.renew(link.generation, sent.plus(self.lease));
        let now = self.clock.now().since(crate::time::Timestamp(0)).as_secs_f64();
        self.metrics.invalidation_last_event_timestamp.set(now);
    }

    async fn check_single(&self, link: &Link) -> Result<(), Lost> {
        let received_before = link.subscriber.last_sequence(0);
        let control = self.first_control();
        let (mut read, mut write) = (link.read.connection(), link.write.connection());
        // One after the other: what the server of the writes has counted, the server that publishes
        // must have counted by then, or they are two servers.
        let both = async { Ok((look(&mut write, &control).await?, look(&mut read, &control).await?)) };
        let timer = self.sender.measured().timer(StoreOp::Heartbeat.as_str());
        let answer = within(self.deadlines.answer, both).await;
        timer.observe_duration();
        let result = if answer.is_ok() { "ok" } else { "error" };
        self.sender.measured().count(StoreOp::Heartbeat.as_str(), result);
        let (written, seen) = answer?;
        one_primary(&written, &seen)?;
        Ok(link.subscriber.check(0, received_before, &seen.count)?)
    }

    // The cluster bus does not keep replies and messages in order: what a count says must have been
    // received one heartbeat later.
    async fn check_cluster(&self, link: &Link, round: &mut Round) -> Result<(), Lost> {
        if round.read.iter().any(|(control, sequence)| link.subscriber.last_sequence(*control) < *sequence) {
            return Err(Gap.into());
        }
        let controls = self.keys.controls();
        let chosen: Vec<usize> = (0..CLUSTER_CONTROLS).map(|step| (round.next + step) % controls.len()).collect();
        round.next = (round.next + CLUSTER_CONTROLS) % controls.len();
        let before: Vec<u64> = chosen.iter().map(|control| link.subscriber.last_sequence(*control)).collect();
        let names = chosen.iter().filter_map(|control| controls.get(*control));
        let reads = names.map(|control| count(link.read.connection(), control));
        let counts = within(self.deadlines.answer, async { join_all(reads).await.into_iter().collect() });
        let (counts, ()): (Vec<Count>, ()) = tokio::try_join!(counts, self.ping(link))?;
        round.read.clear();
        for ((control, before), count) in chosen.into_iter().zip(before).zip(counts) {
            link.subscriber.check_past(control, before, &count)?;
            round.read.push((control, count.sequence));
        }
        Ok(())
    }

    async fn first_counts(&self, opened: &Opened) -> Result<Vec<Count>, Lost> {
        let controls = self.keys.controls();
        let epoch = self.nonce();
        let marks = controls.iter().map(|control| mark(opened.write.clone(), control, &epoch));
        // Best effort: Redis refuses it when out of memory. Without an epoch, a flush before the very
        // first revocation goes unnoticed, and cached answers outlive it by their lifetime.
        drop(within(self.deadlines.answer, async { Ok(join_all(marks).await) }).await);
        if self.target.load().is_cluster() {
            let counts = controls.iter().map(|control| count(opened.read.clone(), control));
            return within(self.deadlines.answer, async { join_all(counts).await.into_iter().collect() }).await;
        }
        let control = self.first_control();
        let (mut read, mut write) = (opened.read.clone(), opened.write.clone());
        let written = within(self.deadlines.answer, look(&mut write, &control)).await?;
        let seen = within(self.deadlines.answer, look(&mut read, &control)).await?;
        one_primary(&written, &seen)?;
        Ok(vec![seen.count])
    }

    async fn warn_of_eviction(&self, link: &Link) {
        let mut command = redis::cmd("CONFIG");
        command.arg("GET").arg("maxmemory-policy");
        let mut connection = link.write.connection();
        let asked = command.query_async::<std::collections::HashMap<String, String>>(&mut connection);
        // Managed services forbid CONFIG; then nothing is known and nothing is said.
        let Ok(Ok(answer)) = tokio::time::timeout(self.deadlines.answer, asked).await else { return };
        let policy = answer.get("maxmemory-policy").map_or("noeviction", String::as_str);
        if policy != "noeviction" {
            tracing::warn!(policy, "Redis may evict sessions when memory is short; set maxmemory-policy noeviction");
        }
    }

    async fn ping(&self, link: &Link) -> Result<(), Lost> {
        within(self.deadlines.answer, redis::cmd("PING").query_async(&mut link.subscription.clone())).await
    }

    fn first_control(&self) -> String {
        self.keys.controls().into_iter().next().unwrap_or_default()
    }

    fn report_live(&self, live: bool) {
        self.sender.measured().report(live);
        if live {
            tracing::info!("connected to Redis");
        }
    }
}

impl From<Gap> for Lost {
    fn from(_: Gap) -> Self {
        Self { reason: Resync::Sequence, cause: "revocations may have been missed".to_owned() }
    }
}

impl From<RedisError> for Lost {
    fn from(error: RedisError) -> Self {
        Self { reason: Resync::Heartbeat, cause: error.to_string() }
    }
}

async fn within<T>(deadline: Duration, work: impl Future<Output = RedisResult<T>>) -> Result<T, Lost> {
    match tokio::time::timeout(deadline, work).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Lost { reason: Resync::Heartbeat, cause: format!("no answer within {deadline:?}") }),
    }
}

async fn look(connection: &mut Connection, control: &str) -> RedisResult<Seen> {
    let mut pipeline = redis::pipe();
    pipeline.cmd("ROLE").cmd("HMGET").arg(control).arg(&COUNT_FIELDS);
    let (role, fields): (Vec<Value>, CountFields) = pipeline.query_async(connection).await?;
    Ok(Seen { role, count: Count::from(fields) })
}

async fn count(mut connection: Connection, control: &str) -> RedisResult<Count> {
    let fields: CountFields = redis::cmd("HMGET").arg(control).arg(&COUNT_FIELDS).query_async(&mut connection).await?;
    Ok(fields.into())
}

async fn mark(mut connection: Connection, control: &str, epoch: &str) -> RedisResult<()> {
    redis::cmd("HSETNX").arg(control).arg("epoch").arg(epoch).query_async(&mut connection).await
}

impl From<CountFields> for Count {
    fn from((sequence, last, epoch): CountFields) -> Self {
        let (sequence, last) = (sequence.unwrap_or_default(), last.unwrap_or_default());
        Self { sequence, last, epoch: epoch.unwrap_or_default() }
    }
}

// An address may lead to several servers, and a fail-over to two primaries: then revocations would
// be recorded at one and listened for at the other. `seen` was asked after `written`.
fn one_primary(written: &Seen, seen: &Seen) -> Result<(), Lost> {
    primary(written)?;
    primary(seen)?;
    if seen.count.epoch != written.count.epoch {
        return Err(Lost { reason: Resync::Role, cause: "the address leads to several servers".to_owned() });
    }
    if seen.count.follows(&written.count) { Ok(()) } else { Err(Gap.into()) }
}

// A replica accepts no revocation, and a demoted primary keeps its clients.
fn primary(seen: &Seen) -> Result<(), Lost> {
    match seen.role.first() {
        Some(Value::BulkString(role)) if role == b"master" => Ok(()),
        Some(Value::SimpleString(role)) if role == "master" => Ok(()),
        _ => Err(Lost { reason: Resync::Role, cause: "the server is not a primary".to_owned() }),
    }
}

// Doubling, with half of it spread by the replica's name: replicas must not come back in step.
fn pause(attempt: u32, instance: &str) -> Duration {
    let whole = PAUSE_MIN.saturating_mul(1 << attempt.min(6)).min(PAUSE_MAX);
    let spread = BuildHasherDefault::<DefaultHasher>::default().hash_one((instance, attempt)) % 1000;
    whole / 2 + (whole / 2).mul_f64(f64::from(u32::try_from(spread).unwrap_or_default()) / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_bound_and_differ_between_replicas() {
        assert!(pause(0, "a") <= PAUSE_MIN);
        assert!((0..100).all(|attempt| pause(attempt, "a") <= PAUSE_MAX));
        assert!(pause(9, "a") >= PAUSE_MAX / 2);
        assert_ne!(pause(9, "a"), pause(9, "b"));
    }
}
