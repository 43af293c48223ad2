//! One issuer's keys, kept current.
//!
//! Loaded at the start with retries, then again every five minutes (a file: whenever its content
//! changes), and when a JWT provokes it: once per `refetch_interval`, however many callers send one, and
//! one load at a time, which all who wait share. A failed load leaves the last good keys in place
//! for 24 hours (contracts §11.4).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use prometheus::{Gauge, Histogram, IntCounter, IntGauge};
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;
use tokio::time::{Instant, MissedTickBehavior};

use super::http::{BODY_BYTES_MAX, FetchError, KeySetEndpoint};
use super::keys::{KeySet, KeySetError};
use crate::metrics::Metrics;
use crate::telemetry::audit::{Action, Event};
use crate::telemetry::with_causes;
use crate::time::{Clock, Monotonic};

const REFRESH_INTERVAL: Duration = Duration::from_mins(5);
const RETRY_INTERVAL_MAX: Duration = Duration::from_secs(30);
const STALE_MAX: Duration = Duration::from_hours(24);

/// Where an issuer's keys come from.
pub(super) enum KeySource {
    /// A key set on the network.
    Url(KeySetEndpoint),
    /// A key set in a file.
    JwksFile(PathBuf),
    /// A single key in a file.
    PemFile(PathBuf),
}

/// One issuer's keys and everything that keeps them current.
pub(super) struct KeyCache {
    provider: String,
    source: KeySource,
    refetch_interval: Duration,
    clock: Arc<dyn Clock>,
    held: ArcSwapOption<HeldKeys>,
    loader: Arc<Mutex<Loader>>,
    meters: Meters,
    /// What is counted of a source on the network.
    requests: Option<RequestMeters>,
}

/// The last keys that were good, and when their source last said so.
struct HeldKeys {
    keys: Arc<KeySet>,
    confirmed_at: Monotonic,
}

/// What the one who loads needs to remember. Its lock is what makes loads happen one at a time.
#[derive(Default)]
struct Loader {
    content: Vec<u8>,
    failures: u32,
    due_at: Monotonic,
    provoked_at: Option<Monotonic>,
}

struct Meters {
    last_success: Gauge,
    successes: IntCounter,
    failures: IntCounter,
    keys: IntGauge,
    unknown_kid: IntCounter,
}

struct RequestMeters {
    successes: IntCounter,
    failures: IntCounter,
    duration: Histogram,
}

#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("the file cannot be read")]
    File(#[from] std::io::Error),
    #[error("the file is larger than {BODY_BYTES_MAX} bytes")]
    FileTooLarge,
    #[error(transparent)]
    Keys(#[from] KeySetError),
}

impl KeyCache {
    /// Returns a cache without keys.
    pub(super) fn new(
        provider: String,
        source: KeySource,
        refetch_interval: Duration,
        clock: Arc<dyn Clock>,
        metrics: &Metrics,
    ) -> Arc<Self> {
        let meters = Meters::new(&provider, metrics);
        let requests = matches!(source, KeySource::Url(_)).then(|| RequestMeters::new(&provider, metrics));
        let (held, loader) = (ArcSwapOption::empty(), Arc::default());
        Arc::new(Self { provider, source, refetch_interval, clock, held, loader, meters, requests })
    }

    /// Returns whether keys were ever loaded.
    pub(super) fn loaded(&self) -> bool {
        self.held.load().is_some()
    }

    /// Returns the keys to verify with, unless there are none that their source confirmed within
    /// the last 24 hours.
    pub(super) fn current(&self) -> Option<Arc<KeySet>> {
        let held = self.held.load();
        let held = held.as_ref()?;
        let age = self.clock.monotonic().since(held.confirmed_at);
        (age <= STALE_MAX).then(|| held.keys.clone())
    }

    /// Returns other keys than `seen`, which did not do, if the source has any to give.
    ///
    /// `None` when it has not, when it cannot be asked, or when it was asked for another JWT less
    /// than `refetch_interval` ago.
    pub(super) async fn refetch(self: &Arc<Self>, seen: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        let mut loader = self.loader.clone().lock_owned().await;
        if let Some(newer) = self.other_than(seen) {
            return Some(newer);
        }
        let now = self.clock.monotonic();
        if loader.provoked_at.is_some_and(|at| now.since(at) < self.refetch_interval) {
            return None;
        }
        loader.provoked_at = Some(now);
        // On a task of its own: a caller who provokes a load and hangs up must not take it away
        // from everybody else until the interval has passed.
        let cache = self.clone();
        tokio::spawn(async move { cache.load(&mut loader).await }).await.ok()?;
        self.other_than(seen)
    }

    /// Counts a JWT that names a key the issuer does not publish.
    pub(super) fn count_unknown_kid(&self) {
        self.meters.unknown_kid.inc();
    }

    /// Loads the keys if it is time to.
    pub(super) async fn load_if_due(&self) {
        let mut loader = self.loader.lock().await;
        let now = self.clock.monotonic();
        if now >= loader.due_at {
            self.load(&mut loader).await;
            loader.due_at = now.plus(self.source.pause(loader.failures));
        }
    }

    /// Keeps the keys current for ever, looking every `tick` whether something is due.
    pub(super) async fn run(&self, tick: Duration) {
        let mut ticks = tokio::time::interval(tick);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            self.load_if_due().await;
        }
    }

    async fn load(&self, loader: &mut Loader) {
        match self.read().await.and_then(|content| self.adopt(loader, content)) {
            Ok(()) => loader.failures = 0,
            Err(error) => {
                loader.failures = loader.failures.saturating_add(1);
                self.meters.failures.inc();
                // Ever more rarely, or a broken file would fill the log.
                if loader.failures.is_power_of_two() {
                    let (provider, failures) = (self.provider.as_str(), loader.failures);
                    tracing::warn!(provider, failures, error = with_causes(&error), "keys could not be loaded");
                }
            }
        }
    }

    async fn read(&self) -> Result<Vec<u8>, LoadError> {
        let Some(meters) = &self.requests else { return self.source.read().await };
        let began = Instant::now();
        let read = self.source.read().await;
        meters.duration.observe(began.elapsed().as_secs_f64());
        if read.is_ok() { &meters.successes } else { &meters.failures }.inc();
        read
    }

    fn adopt(&self, loader: &mut Loader, content: Vec<u8>) -> Result<(), LoadError> {
        let unchanged = self.held.load_full().filter(|_| loader.content == content);
        let keys = match &unchanged {
            Some(held) => held.keys.clone(),
            None => Arc::new(self.source.parse(&content)?),
        };
        self.held.store(Some(Arc::new(HeldKeys { keys: keys.clone(), confirmed_at: self.clock.monotonic() })));
        if unchanged.is_none() {
            tracing::info!(provider = self.provider.as_str(), keys = keys.len(), "keys loaded");
            // Not at the first time: then nothing changed.
            if !loader.content.is_empty() {
                let (provider, keys) = (Some(self.provider.as_str()), u64::try_from(keys.len()).ok());
                Event { provider, keys, ..Action::ProviderKeysChanged.event() }.write();
            }
            loader.content = content;
        }
        self.meters.keys.set(i64::try_from(keys.len()).unwrap_or(i64::MAX));
        self.meters.successes.inc();
        self.meters.last_success.set(self.clock.now().unix_seconds_f64());
        Ok(())
    }

    fn other_than(&self, seen: &Arc<KeySet>) -> Option<Arc<KeySet>> {
        self.current().filter(|keys| !Arc::ptr_eq(keys, seen))
    }
}

impl KeySource {
    async fn read(&self) -> Result<Vec<u8>, LoadError> {
        match self {
            Self::Url(endpoint) => Ok(endpoint.fetch().await?),
            Self::JwksFile(path) | Self::PemFile(path) => read_bounded(path).await,
        }
    }

    fn parse(&self, content: &[u8]) -> Result<KeySet, KeySetError> {
        match self {
            Self::Url(_) | Self::JwksFile(_) => KeySet::from_jwks(content),
            Self::PemFile(_) => KeySet::from_pem(content),
        }
    }

    /// Returns how long to wait after a load that ended a run of `failures`.
    fn pause(&self, failures: u32) -> Duration {
        match (self, failures) {
            (Self::JwksFile(_) | Self::PemFile(_), _) => Duration::ZERO,
            (Self::Url(_), 0) => REFRESH_INTERVAL,
            (Self::Url(_), failures) => Duration::from_secs(1 << (failures - 1).min(5)).min(RETRY_INTERVAL_MAX),
        }
    }
}

impl Meters {
    fn new(provider: &str, metrics: &Metrics) -> Self {
        let of = [provider];
        Self {
            last_success: metrics.jwks_last_success_timestamp.with_label_values(&of),
            successes: metrics.jwks_refreshes.with_label_values(&[provider, "success"]),
            failures: metrics.jwks_refreshes.with_label_values(&[provider, "error"]),
            keys: metrics.jwks_keys.with_label_values(&of),
            unknown_kid: metrics.jwks_unknown_kid.with_label_values(&of),
        }
    }
}

impl RequestMeters {
    fn new(provider: &str, metrics: &Metrics) -> Self {
        let requests = |result| metrics.idp_requests.with_label_values(&[provider, "jwks", result]);
        Self {
            successes: requests("success"),
            failures: requests("error"),
            duration: metrics.idp_request_duration.with_label_values(&[provider, "jwks"]),
        }
    }
}

async fn read_bounded(path: &Path) -> Result<Vec<u8>, LoadError> {
    let limit = BODY_BYTES_MAX as u64 + 1;
    let mut content = Vec::new();
    tokio::fs::File::open(path).await?.take(limit).read_to_end(&mut content).await?;
    if content.len() > BODY_BYTES_MAX { Err(LoadError::FileTooLarge) } else { Ok(content) }
}
