//! How long to wait after a failure, and what `Retry-After` says about it.

use std::time::Duration;

use aws_lc_rs::rand::SecureRandom;
use http::HeaderMap;
use http::header::RETRY_AFTER;

use crate::secret::random_bytes;
use crate::time::{Timestamp, millis};

/// The longest wait that a sink's `Retry-After` can ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(24);

/// Waits that double with each failure, drawn uniformly from zero up to that ("full jitter"), so that
/// replicas that failed together do not retry together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff {
    pub(super) first: Duration,
    pub(super) max: Duration,
}

impl Backoff {
    /// Returns how long to wait after `failures` in a row.
    pub(super) fn wait(&self, failures: u32, random: &dyn SecureRandom) -> Duration {
        let doubled = self.first.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
        let most = millis(doubled.min(self.max));
        // Without randomness, wait the longest.
        let wait = random_bytes::<8>(random).map_or(most, |bytes| u64::from_ne_bytes(*bytes) % most.saturating_add(1));
        Duration::from_millis(wait)
    }
}

/// Returns how long an answer's `Retry-After` asks to wait: seconds or a date (RFC 9110 §10.2.3).
pub(super) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = if let Ok(seconds) = text.parse() {
        Duration::from_secs(seconds)
    } else {
        let date = httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
        Timestamp(0).plus(date).since(now)
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;

    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000_000);

    fn asked(value: &'static str) -> Option<Duration> {
        let headers = HeaderMap::from_iter([(RETRY_AFTER, http::HeaderValue::from_static(value))]);
        retry_after(&headers, NOW)
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread_over_all_of_it() {
        let backoff = Backoff { first: Duration::from_secs(1), max: Duration::from_secs(6) };
        for (failures, most) in [(1, 1000), (2, 2000), (3, 4000), (4, 6000), (4_000_000_000, 6000)] {
            let waits: Vec<_> = (0..200).map(|_| backoff.wait(failures, &SystemRandom::new()).as_millis()).collect();
            assert!(waits.iter().all(|wait| *wait <= most), "{failures}: {waits:?}");
            // 200 draws that all miss a quarter: once in 10^24 runs.
            assert!(waits.iter().any(|wait| *wait <= most / 4), "{failures}: {waits:?}");
            assert!(waits.iter().any(|wait| *wait >= most * 3 / 4), "{failures}: {waits:?}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        assert_eq!(asked("90"), Some(Duration::from_secs(90)));
        assert_eq!(asked("Tue, 14 Nov 2023 22:13:50 GMT"), Some(Duration::from_secs(30)));
        assert_eq!(asked("Tue, 14 Nov 2023 22:13:10 GMT"), Some(Duration::ZERO), "it is over");
        assert_eq!(asked("99999999999"), Some(Duration::from_hours(24)));
        assert_eq!((asked("soon"), asked("-1"), asked("1.5")), (None, None, None));
        assert_eq!(retry_after(&HeaderMap::new(), NOW), None);
    }
}
