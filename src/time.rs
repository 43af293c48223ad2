//! Time as an argument. Nothing below `server` reads a clock that it was not handed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Milliseconds since an arbitrary start, never going backwards: for leases and deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall-clock time.
    fn now(&self) -> Timestamp;
    /// Returns the time since start; unaffected by changes of the wall clock.
    fn monotonic(&self) -> Monotonic;
    /// Returns the wall-clock time in nanoseconds since the Unix epoch, as exactly as the clock knows it.
    fn unix_nanos(&self) -> u64 {
        self.now().0.saturating_mul(1_000_000)
    }
}

/// The machine's clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

/// A clock that moves only when told to: for tests.
#[derive(Debug)]
pub struct ManualClock {
    now: AtomicU64,
    monotonic: AtomicU64,
}

impl Timestamp {
    /// Returns the instant `duration` later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Returns how long after `earlier` this is, zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }

    /// Returns whole seconds since the Unix epoch, rounded down.
    pub fn unix_seconds(self) -> u64 {
        self.0 / 1000
    }

    /// Returns the same as [`unix_seconds`](Self::unix_seconds), as metrics want it.
    #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are exact in an f64 for millions of years")]
    pub fn unix_seconds_f64(self) -> f64 {
        self.unix_seconds() as f64
    }
}

impl Monotonic {
    /// Returns the instant `duration` later, saturating.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(millis(duration)))
    }

    /// Returns how long after `earlier` this is, zero if it is not later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl SystemClock {
    /// Returns a clock whose monotonic time starts now.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    pub fn new() -> Self {
        Self { start: std::time::Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn now(&self) -> Timestamp {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since_epoch.map_or(0, millis))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(millis(self.start.elapsed()))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn unix_nanos(&self) -> u64 {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl ManualClock {
    /// Returns a clock standing at `now`.
    pub fn at(now: Timestamp) -> Self {
        Self { now: AtomicU64::new(now.0), monotonic: AtomicU64::new(1) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(millis(by), Ordering::SeqCst);
        self.monotonic.fetch_add(millis(by), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.now.load(Ordering::SeqCst))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(self.monotonic.load(Ordering::SeqCst))
    }
}

/// Returns a duration in whole milliseconds, at most `u64::MAX`.
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
