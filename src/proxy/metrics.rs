//! Handles of the series that every request touches, looked up by their labels once.
//!
//! A look-up hashes its labels and takes a lock; a request would pay for six of them. Series that
//! only unusual requests touch stay with [`Metrics`].

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::connection::session_watch::cut_labels;
use super::guard::{Decision, Rejection};
use super::identity_headers::identity_labels;
use crate::metrics::Metrics;
use crate::model::PrincipalKind;
use crate::session::{Refusal, Source};
use crate::telemetry::access::Outcome;

/// The label of exchanges that are forwarded, or refused instead of being forwarded.
pub(super) const PROXY: &str = "proxy";
/// The label of forward-auth checks.
pub(super) const VERIFY: &str = "verify";

/// Kinds of failures of the application side.
const UPSTREAM_ERRORS: [&str; 5] = ["connect", "tls", "timeout", "reset", "protocol"];
/// Where a decision may come from.
const SOURCES: [&str; 4] = ["cache", "store", "stale", "none"];
/// Every way to be turned away.
const REJECTIONS: [Rejection; 14] = [
    Rejection::MissingToken,
    Rejection::MalformedCredentials,
    Rejection::NotASessionToken,
    Rejection::Refused(Refusal::Malformed),
    Rejection::Refused(Refusal::Unknown),
    Rejection::Refused(Refusal::Expired),
    Rejection::Refused(Refusal::Revoked),
    Rejection::Refused(Refusal::Unavailable),
    Rejection::AnonymousForbidden,
    Rejection::RoleMissing,
    Rejection::CrossOrigin,
    Rejection::UntrustedPeer,
    Rejection::IdentityHeader,
    Rejection::Unreadable,
];
const FIRST_STATUS: u16 = 100;
const STATUSES: usize = 500;
/// Answers that mean a failure: a burst of them between two scrapes must show as a rate.
const FAILURES: [u16; 3] = [502, 503, 504];

/// What every exchange touches.
pub struct MetricHandles {
    /// Where everything else is counted.
    pub(super) metrics: Arc<Metrics>,
    /// Exchanges under way.
    in_flight: IntGauge,
    /// Forward-auth checks under way.
    checks: IntGauge,
    /// Exchanges that need no session.
    bypassed: IntCounter,
    /// How long the guard takes when the cache has the answer.
    cached_decision: Histogram,
    users: IntCounter,
    guests: IntCounter,
    admins: IntCounter,
}

/// What every exchange of one route touches.
#[derive(Debug)]
pub(super) struct RouteHandle {
    duration: Histogram,
    /// Exchanges by status, from [`FIRST_STATUS`].
    statuses: Vec<OnceLock<IntCounter>>,
}

/// The handles of every route of one table, by the route's position in it.
///
/// A route's are looked up by its first request: only traffic tells which series there are.
#[derive(Debug)]
pub struct RouteHandles(Vec<OnceLock<RouteHandle>>);

impl MetricHandles {
    /// Looks the handles up.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        let allowed = |kind: PrincipalKind| metrics.auth_decisions.with_label_values(&["allow", "ok", kind.as_str()]);
        Self {
            in_flight: metrics.http_requests_in_flight.with_label_values(&[PROXY]),
            checks: metrics.http_requests_in_flight.with_label_values(&[VERIFY]),
            bypassed: metrics.auth_decisions.with_label_values(&["bypass", "public_path", "none"]),
            cached_decision: metrics.auth_decision_duration.with_label_values(&["cache"]),
            users: allowed(PrincipalKind::User),
            guests: allowed(PrincipalKind::Anonymous),
            admins: allowed(PrincipalKind::Admin),
            metrics,
        }
    }

    /// Returns the gauge of exchanges under way with a handler.
    pub(super) fn in_flight(&self, handler: &str) -> &IntGauge {
        if handler == VERIFY { &self.checks } else { &self.in_flight }
    }

    /// Counts a decision; `caller` is the kind of principal that was let through, if one was.
    pub(super) fn count_decision(&self, decision: Decision, caller: Option<PrincipalKind>) {
        match (decision.outcome, decision.reason, caller) {
            (Outcome::Allow, "ok", Some(PrincipalKind::User)) => self.users.inc(),
            (Outcome::Allow, "ok", Some(PrincipalKind::Anonymous)) => self.guests.inc(),
            (Outcome::Allow, "ok", Some(PrincipalKind::Admin)) => self.admins.inc(),
            (Outcome::Bypass, "public_path", None) => self.bypassed.inc(),
            (outcome, reason, caller) => {
                let labels = [outcome.as_str(), reason, caller.map_or("none", PrincipalKind::as_str)];
                self.metrics.auth_decisions.with_label_values(&labels).inc();
            }
        }
    }

    /// Records how long the guard took, and where its answer came from.
    pub(super) fn observe_decision(&self, source: Option<Source>, took: Duration) {
        if source == Some(Source::Cache) {
            self.cached_decision.observe(took.as_secs_f64());
        } else {
            let labels = [source.map_or("none", Source::as_str)];
            self.metrics.auth_decision_duration.with_label_values(&labels).observe(took.as_secs_f64());
        }
    }
}

impl RouteHandles {
    /// Returns the handles of a table with `routes` routes.
    pub fn new(routes: usize) -> Self {
        Self(std::iter::repeat_with(OnceLock::new).take(routes).collect())
    }

    /// Returns the handles of the route called `id` at `position`; `None` beyond the table's end.
    pub(super) fn of(&self, position: usize, id: &str, metrics: &Metrics) -> Option<&RouteHandle> {
        self.0.get(position).map(|handle| handle.get_or_init(|| RouteHandle::new(id, metrics)))
    }
}

impl RouteHandle {
    // Looks up what does not depend on a status, and puts failures at zero.
    fn new(route: &str, metrics: &Metrics) -> Self {
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

/// Returns a status as a label. Codes outside 100 to 599 share the label `other`, to bound cardinality.
pub(super) fn status_label(status: u16) -> Cow<'static, str> {
    if (100..600).contains(&status) { status.to_string().into() } else { "other".into() }
}

/// Puts every reachable combination of closed labels at zero: `rate()` and alerts need a zero to
/// begin from. Left out is what only traffic can tell: routes and status codes.
pub fn create_series(metrics: &Metrics) {
    let decision = |outcome, reason, principal| {
        metrics.auth_decisions.with_label_values(&[outcome, reason, principal]);
    };
    for kind in [PrincipalKind::User, PrincipalKind::Anonymous, PrincipalKind::Admin] {
        decision("allow", "ok", kind.as_str());
        decision("allow", "stale_allowed", kind.as_str());
    }
    decision("bypass", "public_path", "none");
    for rejected in REJECTIONS.map(Rejection::decision) {
        decision(rejected.outcome.as_str(), rejected.reason, "none");
    }
    for source in SOURCES {
        metrics.auth_decision_duration.with_label_values(&[source]);
    }
    for kind in UPSTREAM_ERRORS {
        metrics.upstream_errors.with_label_values(&[kind]);
    }
    for header in identity_labels() {
        metrics.identity_headers_stripped.with_label_values(&[header]);
    }
    for reason in cut_labels() {
        metrics.streams_cut.with_label_values(&[reason]);
    }
    for handler in [PROXY, VERIFY] {
        metrics.http_requests_in_flight.with_label_values(&[handler]);
    }
}
