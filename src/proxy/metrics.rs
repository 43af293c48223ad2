//! Handles of the series that every request touches, looked up by their labels once.
//!
//! A look-up hashes its labels and takes a lock; a request would pay for six of them. Series that
//! only unusual requests touch stay with [`Metrics`].

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use crate::metrics::Metrics;
use crate::model::PrincipalKind;

/// The label of exchanges that are forwarded, or refused instead of being forwarded.
pub(super) const PROXY: &str = "proxy";
/// The label of forward-auth checks.
pub(super) const VERIFY: &str = "verify";

/// What every exchange touches.
pub struct MetricHandles {
    /// Where everything else is counted.
    pub(super) metrics: Arc<Metrics>,
    /// Exchanges under way.
    pub(super) in_flight: IntGauge,
    /// Exchanges under way that ask about other ones.
    pub(super) questions: IntGauge,
    /// Exchanges that need no session.
    pub(super) bypassed: IntCounter,
    /// How long the guard takes when the cache has the answer.
    pub(super) cached_decision: Histogram,
    users: IntCounter,
    guests: IntCounter,
    admins: IntCounter,
}

/// What every exchange of one route touches.
#[derive(Debug)]
pub(super) struct RouteHandles {
    duration: Histogram,
    /// Exchanges by status, from [`FIRST_STATUS`].
    statuses: Vec<OnceLock<IntCounter>>,
}

const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;
/// Answers that mean a failure: a burst of them between two scrapes must show as a rate.
const FAILURES: [u16; 3] = [502, 503, 504];

impl MetricHandles {
    /// Looks the handles up.
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let allowed = |kind: PrincipalKind| metrics.auth_decisions.with_label_values(&["allow", "ok", kind.as_str()]);
        Arc::new(Self {
            in_flight: metrics.http_requests_in_flight.with_label_values(&[PROXY]),
            questions: metrics.http_requests_in_flight.with_label_values(&[VERIFY]),
            bypassed: metrics.auth_decisions.with_label_values(&["bypass", "public_path", "none"]),
            cached_decision: metrics.auth_decision_duration.with_label_values(&["cache"]),
            users: allowed(PrincipalKind::User),
            guests: allowed(PrincipalKind::Anonymous),
            admins: allowed(PrincipalKind::Admin),
            metrics,
        })
    }

    /// Returns the counter of sessions of a kind that were let through.
    pub(super) fn allowed(&self, kind: PrincipalKind) -> &IntCounter {
        match kind {
            PrincipalKind::User => &self.users,
            PrincipalKind::Anonymous => &self.guests,
            PrincipalKind::Admin => &self.admins,
        }
    }
}

impl RouteHandles {
    /// Looks up what does not depend on a status, and puts failures at zero.
    pub(super) fn new(route: &str, metrics: &Metrics) -> Self {
        for status in FAILURES {
            metrics.http_requests.with_label_values(&[PROXY, route, &status_label(status)]);
        }
        Self {
            duration: metrics.http_request_duration.with_label_values(&[PROXY, route]),
            statuses: std::iter::repeat_with(OnceLock::new).take(STATUSES).collect(),
        }
    }

    /// Counts one exchange.
    pub(super) fn count(&self, route: &str, status: u16, took: Duration, metrics: &Metrics) {
        self.duration.observe(took.as_secs_f64());
        let resolve = || metrics.http_requests.with_label_values(&[PROXY, route, &status_label(status)]);
        match self.statuses.get(usize::from(status.wrapping_sub(FIRST_STATUS))) {
            Some(counter) => counter.get_or_init(resolve).inc(),
            None => resolve().inc(),
        }
    }
}

/// Returns a status as a label: one that no application of sound mind sends is not worth a series
/// of its own.
pub(super) fn status_label(status: u16) -> Cow<'static, str> {
    if (100..600).contains(&status) { status.to_string().into() } else { "other".into() }
}
