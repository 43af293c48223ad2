//! What the embedded store does by itself: notice other processes, sweep, try again.
//!
//! A poll that fails or hangs ends the generation: then revocations by other processes may be
//! missed. Known sessions pass for [`BLIND_LEASE`] more, the store says 503 until a poll succeeds.
//! Between a revocation beside the server and its effect lie at most [`POLL_EVERY`],
//! [`POLL_TIMEOUT`] and [`BLIND_LEASE`], together two seconds.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::journal::Pending;
use super::{SqliteStore, statements};
use crate::metrics::Metrics;
use crate::store::measured::StoreMetrics;
use crate::store::revocations::Resync;
use crate::store::{SessionStore, StoreError};
use crate::time::{Monotonic, Timestamp, millis};

const POLL_EVERY: Duration = Duration::from_millis(100);
const POLL_TIMEOUT: Duration = Duration::from_millis(900);
const BLIND_LEASE: Duration = Duration::from_secs(1);
const RETRY_EVERY: Duration = Duration::from_secs(1);
const SWEEP_EVERY: Duration = Duration::from_secs(30);
const SWEEP_BATCH: u32 = 500;
const OPERATIONS: [&str; 8] = ["claim", "create", "end", "end_principal", "find", "list", "rotate", "touch"];

impl SqliteStore {
    /// Notices revocations by other processes, deletes expired sessions and retries failed
    /// revocations, until dropped.
    pub async fn run(self: Arc<Self>) {
        tokio::join!(self.watch(), self.sweep_forever(), self.retry_forever());
    }

    /// Deletes every expired session, a batch at a time; returns how many.
    pub async fn sweep(&self) -> Result<u64, StoreError> {
        let mut total = 0;
        loop {
            let swept = {
                let _turn = self.gate.lock().await;
                let now = self.clock.now();
                let until = Timestamp(now.0.saturating_sub(millis(self.keep_ended)));
                statements::sweep(&self.connections.relaxed, until, now, SWEEP_BATCH).await
            };
            let swept = swept.map_err(super::unavailable)?;
            total += swept;
            if swept < u64::from(SWEEP_BATCH) {
                return Ok(total);
            }
        }
    }

    pub(super) async fn measured<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let timer = self.measured.timer(operation);
        let outcome = work.await;
        timer.observe_duration();
        let result = if outcome.is_ok() { "ok" } else { "error" };
        self.measured.count(operation, result);
        outcome
    }

    /// Makes every cached answer unfindable without a pause in vouching for new ones.
    pub(super) fn forget_answers(&self) {
        self.revocations.forget();
    }

    async fn watch(&self) {
        let mut ticks = every(POLL_EVERY);
        loop {
            ticks.tick().await;
            let polled = tokio::time::timeout(POLL_TIMEOUT, statements::outside_revocations(&self.connections.watcher));
            match polled.await {
                Ok(Ok(count)) => self.on_count(count),
                Ok(Err(error)) => self.on_failure(&error),
                Err(elapsed) => self.on_failure(&elapsed),
            }
        }
    }

    fn on_count(&self, count: i64) {
        if self.outside_seen.swap(count, Ordering::SeqCst) != count {
            self.metrics.invalidation_resyncs.with_label_values(&[Resync::Sequence.as_str()]).inc();
            self.forget_answers();
        }
        if !self.revocations.is_current() {
            self.revocations.go_live(self.revocations.generation(), Monotonic(u64::MAX));
            self.measured.reconnected();
        }
        self.measured.report(true);
        self.metrics.invalidation_last_event_timestamp.set(self.clock.now().unix_seconds_f64());
    }

    fn on_failure(&self, error: &dyn std::error::Error) {
        if self.revocations.is_current() {
            tracing::error!(%error, "the session store cannot be read");
            self.metrics.invalidation_resyncs.with_label_values(&[Resync::Heartbeat.as_str()]).inc();
            self.revocations.lose_with_lease_until(self.clock.monotonic().plus(BLIND_LEASE));
        }
        self.measured.report(false);
    }

    async fn sweep_forever(&self) {
        let mut ticks = every(SWEEP_EVERY);
        loop {
            ticks.tick().await;
            if let Err(error) = self.sweep().await {
                tracing::warn!(error = source_of(&error), "expired sessions could not be deleted");
            }
        }
    }

    async fn retry_forever(&self) {
        let mut ticks = every(RETRY_EVERY);
        loop {
            ticks.tick().await;
            self.retry().await;
        }
    }

    /// Tries again what the file did not confirm; an entry stays until it does.
    pub(super) async fn retry(&self) {
        let mut last_failure = None;
        for (entry, end) in self.journal.list() {
            let retried = match &entry {
                Pending::Session(id) => self.end(&[*id], end).await,
                Pending::Principal(tenant, principal) => self.end_principal(tenant, principal, end).await.map(drop),
            };
            last_failure = retried.err().or(last_failure);
        }
        if let Some(error) = last_failure {
            tracing::error!(error = source_of(&error), "revocations are not on disk yet");
        }
    }
}

/// Returns the series of this store, which can be used from the start.
pub(super) fn measured(metrics: &Arc<Metrics>) -> StoreMetrics {
    for reason in [Resync::Sequence, Resync::Heartbeat] {
        metrics.invalidation_resyncs.with_label_values(&[reason.as_str()]);
    }
    let measured = StoreMetrics::new("sqlite", OPERATIONS, &["ok", "error"], metrics.clone());
    measured.report(true);
    measured
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    ticks
}

fn source_of(error: &StoreError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), ToString::to_string)
}
