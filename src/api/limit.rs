//! Rate limits of this replica, in memory: how often one caller may try within a window.
//!
//! The count is not shared between replicas. Keys that have recovered their whole allowance are
//! forgotten every 1024 checks, so memory follows the callers of the last window. An
//! IPv6 caller is its /64, which is what one subscriber gets; callers without an address share one
//! allowance.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};
use prometheus::IntCounter;

use crate::api::extract::ClientAddr;
use crate::api::problem::{Problem, What};
use crate::config;
use crate::metrics::Metrics;
use crate::model::{Identity, ProviderId, Subject};
use crate::time::Clock;

const SWEEP_EVERY: u64 = 1024;
const MINUTE: Duration = Duration::from_mins(1);

/// The limits, by name.
pub struct Limits {
    /// `POST /auth/anonymous`, by network of the caller.
    pub anonymous: Limit<Network>,
    /// `POST /auth/session`, by subject, once the subject is proven.
    pub exchange: Limit<ProvenSubject>,
}

/// How much a limit lets through.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    /// The limit's name in metrics.
    name: &'static str,
    /// Requests within a window; zero lets everything pass.
    requests: u32,
    /// The time in which a spent allowance is whole again.
    window: Duration,
}

/// One limit: an allowance a key, which refills evenly over its window. `K` says what is counted by.
pub struct Limit<K: Clone + Eq + Hash> {
    limiter: Option<RateLimiter<K, DefaultKeyedStateStore<K>, GovernorClock, NoOpMiddleware<Duration>>>,
    clock: GovernorClock,
    checks: AtomicU64,
    refused: IntCounter,
}

/// The address range that counts as one caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

/// A caller by what its provider says: subjects are unique per provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ProvenSubject {
    provider: ProviderId,
    subject: Subject,
}

#[derive(Clone)]
struct GovernorClock(Arc<dyn Clock>);

impl Limits {
    /// Returns the limits as configured, all allowances full; a limit of zero lets everything pass.
    pub fn new(config: &config::Limits, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let per_minute = |name, requests| Allowance { name, requests, window: MINUTE };
        Self {
            anonymous: Limit::new(per_minute("anonymous", config.anonymous_per_minute), clock, metrics),
            exchange: Limit::new(per_minute("exchange", config.exchange_per_minute), clock, metrics),
        }
    }
}

impl<K: Clone + Eq + Hash> Limit<K> {
    fn new(allowance: Allowance, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Self {
        let Allowance { name, requests, window } = allowance;
        let clock = GovernorClock(Arc::clone(clock));
        let quota =
            NonZeroU32::new(requests).and_then(|burst| Some(Quota::with_period(window / requests)?.allow_burst(burst)));
        let limiter = quota.map(|quota| RateLimiter::new(quota, DefaultKeyedStateStore::default(), clock.clone()));
        Self { limiter, clock, checks: AtomicU64::new(0), refused: metrics.rate_limited.with_label_values(&[name]) }
    }

    /// Takes one request from `key`'s allowance, or says when there is one again.
    pub fn check(&self, key: &K) -> Result<(), Problem> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        if self.checks.fetch_add(1, Ordering::Relaxed) % SWEEP_EVERY == SWEEP_EVERY - 1 {
            limiter.retain_recent();
        }
        limiter.check_key(key).map_err(|until| {
            self.refused.inc();
            let wait = until.wait_time_from(governor::clock::Clock::now(&self.clock));
            What::RateLimited { retry_after: whole_seconds(wait) }.into()
        })
    }
}

impl Network {
    /// Returns the range that `client` belongs to.
    pub fn of(client: Option<ClientAddr>) -> Self {
        // An IPv4 caller on a dual-stack socket is ::ffff:a.b.c.d: as a /64 it would be everybody.
        let address = client.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ClientAddr(address)| address.to_canonical());
        match address {
            IpAddr::V4(_) => Self(address),
            IpAddr::V6(address) => Self(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()),
        }
    }
}

impl ProvenSubject {
    /// Returns the key of a verified identity.
    pub fn of(identity: &Identity) -> Self {
        Self { provider: identity.provider.clone(), subject: identity.subject.clone() }
    }
}

impl governor::clock::Clock for GovernorClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.monotonic().0)
    }
}

// Rounded up: a caller that comes back on time must not be refused again.
fn whole_seconds(wait: Duration) -> u64 {
    wait.as_secs().saturating_add(u64::from(wait.subsec_nanos() > 0)).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{ManualClock, Timestamp};

    fn limit(per_minute: u32) -> (Limit<u32>, Arc<ManualClock>) {
        within(per_minute, MINUTE)
    }

    fn within(requests: u32, window: Duration) -> (Limit<u32>, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::at(Timestamp(0)));
        let allowance = Allowance { name: "anonymous", requests, window };
        (Limit::new(allowance, &(Arc::clone(&clock) as Arc<dyn Clock>), &Metrics::new().unwrap()), clock)
    }

    #[test]
    fn an_allowance_is_whole_again_after_its_window() {
        for (requests, window) in [(5, Duration::from_secs(10)), (3, Duration::from_hours(1))] {
            let (limit, clock) = within(requests, window);
            let spent = || (0..requests).all(|_| limit.check(&1).is_ok()) && limit.check(&1).is_err();
            assert!(spent());
            clock.advance(window / 2);
            assert!((0..requests).any(|_| limit.check(&1).is_err()), "half of it is not all of it");
            clock.advance(window);
            assert!(spent());
        }
    }

    fn network(address: &str) -> Network {
        Network::of(Some(ClientAddr(address.parse().unwrap())))
    }

    #[test]
    fn the_allowance_is_spent_and_refills() {
        let (limit, clock) = limit(30);
        for _ in 0..30 {
            limit.check(&1).unwrap();
        }
        let error = limit.check(&1).unwrap_err();
        assert_eq!(error.what, What::RateLimited { retry_after: 2 });
        assert_eq!(crate::api::dialect::in_words(&error.what), "Too many requests");
        assert_eq!(limit.refused.get(), 1);
        clock.advance(Duration::from_secs(2));
        limit.check(&1).unwrap();
        limit.check(&1).unwrap_err();
    }

    #[test]
    fn coming_back_after_the_promised_wait_succeeds() {
        for per_minute in [1, 7, 59, 60, 1000] {
            let (limit, clock) = limit(per_minute);
            let error = std::iter::repeat_with(|| limit.check(&1)).take(1001).find_map(Result::err).unwrap();
            let What::RateLimited { retry_after } = error.what else { panic!("{error:?}") };
            clock.advance(Duration::from_secs(retry_after));
            assert!(limit.check(&1).is_ok(), "{per_minute}");
        }
    }

    #[test]
    fn each_key_has_its_own_allowance() {
        let (limit, _) = limit(1);
        limit.check(&1).unwrap();
        limit.check(&2).unwrap();
        limit.check(&1).unwrap_err();
    }

    #[test]
    fn zero_is_no_limit() {
        let (limit, _) = limit(0);
        for _ in 0..10_000 {
            limit.check(&1).unwrap();
        }
    }

    #[test]
    fn recovered_keys_are_forgotten() {
        let (limit, clock) = limit(30);
        for key in 0..100_000 {
            limit.check(&key).unwrap();
            clock.advance(Duration::from_millis(100));
        }
        let held = limit.limiter.as_ref().unwrap().len();
        assert!(held <= 2 * usize::try_from(SWEEP_EVERY).unwrap(), "{held}");
    }

    #[test]
    fn one_subscriber_is_one_caller() {
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:2:ffff::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("192.0.2.1"), network("192.0.2.2"));
        assert_eq!(network("::ffff:192.0.2.1"), network("192.0.2.1"));
        assert_ne!(network("::ffff:192.0.2.1"), network("::ffff:192.0.2.2"));
        assert_eq!(Network::of(None), Network::of(None));
    }
}
