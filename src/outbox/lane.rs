//! Delivers one kind of event: lease, deliver, settle, repeat.
//!
//! An event is deleted only after its destination accepted it. While a destination fails, batches
//! get smaller, so that one event that it cannot process does not block the others.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SecureRandom;
use prometheus::IntCounter;
use tokio::sync::watch;

use super::backoff::Backoff;
use crate::directory::{Directory, DirectoryError, EventKind, Lease, Leased};
use crate::metrics::Metrics;
use crate::telemetry::with_causes;
use crate::time::{Clock, Timestamp};

/// How many times of future attempts are kept; polling finds the others.
const DUES_MAX: usize = 1000;

/// Where events of one kind go.
#[async_trait]
pub(super) trait Destination: Send + Sync {
    /// Returns the kind of its events.
    fn kind(&self) -> EventKind;
    /// Delivers `events`, no two of one person, as one batch.
    async fn deliver(&self, events: &[Leased]) -> DeliveryOutcome;
}

/// The outcome of one batch.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeliveryOutcome {
    /// The destination accepted all of them.
    Delivered,
    /// One of them will never be accepted; sending each alone shows which.
    Refused(String),
    /// Retryable, after the wait that the destination asked for.
    Failed { error: String, after: Option<Duration> },
}

/// Delivers one kind of event.
pub(super) struct EventLane {
    pub(super) destination: Box<dyn Destination>,
    pub(super) directory: Arc<Directory>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) random: Arc<dyn SecureRandom + Send + Sync>,
    pub(super) outcomes: DeliveryCounters,
    pub(super) batch: u32,
    pub(super) poll_interval: Duration,
    pub(super) lease: Duration,
    pub(super) backoff: Backoff,
    pub(super) attempts_max: u32,
}

/// Counts attempts by outcome.
pub(super) struct DeliveryCounters {
    delivered: IntCounter,
    retried: IntCounter,
    dead: IntCounter,
}

/// How a round ended.
enum LaneRound {
    /// Nothing was due.
    Idle,
    /// At least one event left the outbox, or is dead.
    Settled,
    /// The destination failed; what it did not accept is due again at `due`.
    Failed { after: Option<Duration>, due: Timestamp },
    /// The directory did not answer.
    Away,
}

impl EventLane {
    /// Delivers until `stop` holds true; finishes the round that is under way.
    pub(super) async fn run(self, mut stop: watch::Receiver<bool>) {
        let (mut failures, mut away, mut dues) = (0_u32, false, BTreeSet::new());
        while !*stop.borrow() {
            let asked_at = self.clock.now();
            let round = self.round(failures).await;
            away = self.report(&round, away);
            let wait = match round {
                LaneRound::Settled => {
                    failures = 0;
                    continue;
                }
                LaneRound::Failed { after, due } => {
                    failures = failures.saturating_add(1);
                    dues.insert(due);
                    if dues.len() > DUES_MAX {
                        dues.pop_last();
                    }
                    let wait = self.backoff.wait(failures, self.random.as_ref());
                    after.map_or(wait, |after| after.max(wait))
                }
                LaneRound::Away => self.poll_interval,
                LaneRound::Idle => {
                    dues.retain(|due| *due > asked_at);
                    let due = dues.first().map(|due| due.since(self.clock.now()));
                    due.map_or(self.poll_interval, |due| due.min(self.poll_interval))
                }
            };
            let idle = matches!(round, LaneRound::Idle);
            let ended = stop.wait_for(|stop| *stop);
            tokio::select! {
                _ = ended => return,
                () = tokio::time::sleep(wait) => {}
                () = self.directory.outbox_woken(self.destination.kind()), if idle => {}
            }
        }
    }

    // An unreachable directory is logged once, not once a second.
    fn report(&self, round: &LaneRound, away: bool) -> bool {
        let kind = self.destination.kind().as_str();
        match (round, away) {
            (LaneRound::Away, false) => tracing::warn!(kind, "The outbox cannot be asked"),
            (LaneRound::Idle | LaneRound::Settled | LaneRound::Failed { .. }, true) => {
                tracing::info!(kind, "The outbox can be asked again");
            }
            _ => {}
        }
        matches!(round, LaneRound::Away)
    }

    async fn round(&self, failures: u32) -> LaneRound {
        let limit = self.batch.checked_shr(failures).unwrap_or(0).max(1);
        let leased = self.directory.lease_events(self.destination.kind(), limit, self.lease, self.clock.now()).await;
        match leased {
            Ok(lease) if lease.events.is_empty() => LaneRound::Idle,
            Ok(lease) => self.deliver(lease).await,
            Err(error) => unanswered(&error),
        }
    }

    async fn deliver(&self, mut lease: Lease) -> LaneRound {
        // Sizes of the batches still to send, the next one last; at first all leased events are one batch.
        let mut sizes = vec![lease.events.len()];
        while let Some(size) = sizes.pop() {
            let mut rest = lease.events.split_off(size);
            match self.destination.deliver(&lease.events).await {
                DeliveryOutcome::Delivered => self.delivered(&lease).await,
                DeliveryOutcome::Refused(_) if size > 1 => {
                    sizes.extend([size - size / 2, size / 2]);
                    lease.events.append(&mut rest);
                    std::mem::swap(&mut lease.events, &mut rest);
                }
                DeliveryOutcome::Refused(error) => self.dead_letter(&lease, &error).await,
                DeliveryOutcome::Failed { error, after } => {
                    lease.events.append(&mut rest);
                    let due = self.failed(lease, &error, after).await;
                    return LaneRound::Failed { after, due };
                }
            }
            if rest.is_empty() {
                break;
            }
            // The request used up some of the lease.
            let (expected, held) = (rest.len(), Lease { events: rest, until: lease.until });
            lease = match self.directory.renew_lease(held, self.lease, self.clock.now()).await {
                Ok(renewed) if renewed.events.len() == expected => renewed,
                // What this replica still holds becomes free when its lease ends.
                Ok(_) => return LaneRound::Settled,
                Err(error) => return unanswered(&error),
            };
        }
        LaneRound::Settled
    }

    // Repeats until it succeeds: delivered events that stay in the outbox would be delivered again.
    async fn delivered(&self, lease: &Lease) {
        self.outcomes.delivered.inc_by(lease.events.len() as u64);
        while let Err(error) = self.directory.events_delivered(lease.events.iter().map(|event| &event.id)).await {
            let kind = self.destination.kind().as_str();
            tracing::warn!(kind, error = %with_causes(&error), "Delivered events cannot be taken out of the outbox");
            tokio::time::sleep(self.poll_interval).await;
        }
    }

    /// Returns when the events are tried again.
    async fn failed(&self, lease: Lease, error: &str, after: Option<Duration>) -> Timestamp {
        let Lease { events, until } = lease;
        let (spent, rest): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event.attempts >= self.attempts_max);
        if !spent.is_empty() {
            self.dead_letter(&Lease { events: spent, until }, error).await;
        }
        let Some(attempts) = rest.iter().map(|event| event.attempts).max() else { return self.clock.now() };
        let wait = self.backoff.wait(attempts, self.random.as_ref()).max(after.unwrap_or_default());
        let (kind, events) = (self.destination.kind().as_str(), rest.len());
        tracing::warn!(kind, events, attempts, error, wait_ms = wait.as_millis(), "Events were not delivered");
        self.outcomes.retried.inc_by(events as u64);
        let retry_at = self.clock.now().plus(wait);
        if let Err(error) = self.directory.events_failed(&Lease { events: rest, until }, retry_at, error).await {
            tracing::debug!(error = %with_causes(&error), "A lease was not given back; it ends by itself");
        }
        retry_at
    }

    async fn dead_letter(&self, lease: &Lease, error: &str) {
        let kind = self.destination.kind().as_str();
        for Leased { id, attempts, .. } in &lease.events {
            tracing::error!(kind, event = id.as_str(), attempts, error, "An event of the outbox is dead");
        }
        self.outcomes.dead.inc_by(lease.events.len() as u64);
        if let Err(error) = self.directory.dead_letter_events(lease, error).await {
            tracing::debug!(error = %with_causes(&error), "An event was not marked dead; it is tried again");
        }
    }
}

impl DeliveryCounters {
    /// Returns counters that are at zero from the start.
    pub(super) fn new(metrics: &Metrics, kind: EventKind) -> Self {
        let outcome = |outcome| metrics.outbox_deliveries.with_label_values(&[kind.as_str(), outcome]);
        Self { delivered: outcome("delivered"), retried: outcome("retried"), dead: outcome("dead") }
    }
}

fn unanswered(error: &DirectoryError) -> LaneRound {
    tracing::debug!(error = %with_causes(error), "The directory did not answer");
    LaneRound::Away
}
