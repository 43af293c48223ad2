//! Time as an argument: only `server` and `cli` create clocks, everything else receives one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Milliseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Milliseconds since an arbitrary start, never going backwards: for leases and deadlines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

/// A source of time.
pub trait Clock: Send + Sync + 'static {
    /// Returns the wall-clock time.
    fn now(&self) -> Timestamp;
    /// Returns the time since an arbitrary start, which never goes backwards.
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

/// A clock that moves only by [`advance`](ManualClock::advance): for tests.
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

    /// Returns the time as RFC 3339 writes it, in UTC and to the millisecond.
    pub fn rfc3339(self) -> String {
        humantime::format_rfc3339_millis(self.shown()).to_string()
    }

    /// As [`rfc3339`](Self::rfc3339), to the second.
    pub fn rfc3339_seconds(self) -> String {
        humantime::format_rfc3339_seconds(self.shown()).to_string()
    }

    // Bounded by the year 9999, which is all that the format can show.
    fn shown(self) -> SystemTime {
        UNIX_EPOCH + Duration::from_millis(self.0).min(Duration::from_secs(253_402_300_799))
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
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
        Timestamp(since_epoch.map_or(0, millis))
    }

    fn monotonic(&self) -> Monotonic {
        Monotonic(millis(self.start.elapsed()))
    }

    #[expect(clippy::disallowed_methods, reason = "this is the one place that reads the machine's clock")]
    fn unix_nanos(&self) -> u64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl ManualClock {
    /// Returns a clock that shows `now`.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_shown_in_utc_up_to_the_year_9999() {
        let at = Timestamp(1_767_225_600_007);
        assert_eq!(at.rfc3339(), "2026-01-01T00:00:00.007Z");
        assert_eq!(at.rfc3339_seconds(), "2026-01-01T00:00:00Z");
        assert_eq!(Timestamp(u64::MAX).rfc3339(), "9999-12-31T23:59:59.000Z");
        assert_eq!(Timestamp(u64::MAX).rfc3339_seconds(), "9999-12-31T23:59:59Z");
    }
}
