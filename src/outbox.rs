//! Delivers the directory's outbox: aliases to their sink, and the end of guests' sessions.
//!
//! Each kind of event has a lane of its own, so that a sink that hangs keeps no session alive.
//! Delivery is at least once and in order for each person: an event is leased, delivered, and only
//! then deleted. Without a sink there is no lane for aliases, and earlier events stay in the outbox.

mod aliases;
mod backoff;
mod guest_sessions;
mod lane;
mod sink;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SecureRandom;
use futures_util::future::join_all;
use tokio::sync::watch;

use self::aliases::Aliases;
use self::backoff::Backoff;
use self::guest_sessions::GuestSessions;
use self::lane::{DeliveryCounters, Destination, EventLane};
use self::sink::Sink;
pub use self::sink::SinkError;
use crate::config;
use crate::directory::{Directory, EventKind, EventState};
use crate::metrics::Metrics;
use crate::secret::Rotating;
use crate::session::Sessions;
use crate::time::Clock;

/// The longest wait between attempts to end a guest's sessions: after an outage they must end soon.
const REVOKE_RETRY_MAX: Duration = Duration::from_secs(5);
/// How often the outbox is counted.
const COUNTED_EVERY: Duration = Duration::from_secs(5);

/// The delivery of the outbox, ready to run.
pub struct OutboxLanes {
    lanes: Vec<EventLane>,
    api_key: Option<Rotating>,
    directory: Arc<Directory>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// What the delivery is made of.
pub struct OutboxSetup {
    /// Holds the events.
    pub directory: Arc<Directory>,
    /// Ends guests' sessions.
    pub sessions: Arc<Sessions>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The randomness.
    pub random: Arc<dyn SecureRandom + Send + Sync>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

impl OutboxLanes {
    /// Returns the delivery that `config` asks for; an error is a mistake in it.
    pub fn new(config: &config::Outbox, setup: OutboxSetup) -> Result<Self, SinkError> {
        create_series(&setup.metrics);
        let OutboxSetup { directory, sessions, clock, random, metrics } = setup;
        let retry = &config.retry;
        let lane = |destination: Box<dyn Destination>, backoff, attempts_max| EventLane {
            outcomes: DeliveryCounters::new(&metrics, destination.kind()),
            destination,
            directory: directory.clone(),
            clock: clock.clone(),
            random: random.clone(),
            batch: config.batch,
            poll_interval: config.poll_interval,
            lease: config.lease,
            backoff,
            attempts_max,
        };
        let revoke_retry = Backoff { first: retry.first.min(REVOKE_RETRY_MAX), max: retry.max.min(REVOKE_RETRY_MAX) };
        // Sessions must end however long the store is unreachable: these events are never given up.
        let mut lanes = vec![lane(Box::new(GuestSessions { sessions }), revoke_retry, u32::MAX)];
        let sink = Sink::new(&config.alias)?;
        let api_key = sink.as_ref().map(Sink::api_key);
        if let Some(sink) = sink {
            let backoff = Backoff { first: retry.first, max: retry.max };
            lanes.push(lane(Box::new(Aliases { sink, clock: clock.clone() }), backoff, retry.attempts_max));
        }
        Ok(Self { lanes, api_key, directory, clock, metrics })
    }

    /// Returns the key of the sink, which rotation replaces; none without a sink.
    pub fn api_key(&self) -> Option<Rotating> {
        self.api_key.clone()
    }

    /// Delivers until `stop` holds true; then finishes the deliveries in progress.
    pub async fn run(self, stop: watch::Receiver<bool>) {
        let Self { lanes, directory, clock, metrics, .. } = self;
        let lanes = join_all(lanes.into_iter().map(|lane| lane.run(stop.clone())));
        tokio::select! {
            _ = lanes => {}
            () = count(&directory, clock.as_ref(), &metrics) => {}
        }
    }
}

// Every reachable combination exists from the start, so that `rate()` has a zero to begin from.
fn create_series(metrics: &Metrics) {
    for kind in EventKind::ALL.map(EventKind::as_str) {
        for state in EventState::ALL {
            metrics.outbox_depth.with_label_values(&[kind, state.as_str()]);
        }
        metrics.outbox_oldest_age.with_label_values(&[kind]);
    }
}

async fn count(directory: &Directory, clock: &dyn Clock, metrics: &Metrics) {
    let mut every = tokio::time::interval(COUNTED_EVERY);
    loop {
        every.tick().await;
        // The lanes log an unreachable directory; the gauges keep their last values meanwhile.
        let Ok(depths) = directory.outbox_depth().await else { continue };
        for kind in EventKind::ALL.map(EventKind::as_str) {
            for state in EventState::ALL {
                let found = depths.iter().find(|depth| depth.kind == kind && depth.state == state);
                let count = found.map_or(0, |depth| i64::try_from(depth.count).unwrap_or(i64::MAX));
                metrics.outbox_depth.with_label_values(&[kind, state.as_str()]).set(count);
                if state == EventState::Pending {
                    let age = found.map_or(Duration::ZERO, |depth| clock.now().since(depth.oldest));
                    metrics.outbox_oldest_age.with_label_values(&[kind]).set(age.as_secs_f64());
                }
            }
        }
    }
}
