//! The proxy's time series, at zero from the start: `rate()` and alerts need a zero to begin from.
//!
//! Left out is what only traffic can tell: routes and status codes.

use super::guard::Rejection;
use super::metrics::{PROXY, VERIFY};
use crate::metrics::Metrics;
use crate::model::PrincipalKind;
use crate::session::Refusal;

/// Kinds of failures of the application side.
const UPSTREAM_ERRORS: [&str; 5] = ["connect", "tls", "timeout", "reset", "protocol"];
/// Where a decision may come from.
const SOURCES: [&str; 4] = ["cache", "store", "stale", "none"];
/// Every way to be turned away.
const REJECTIONS: [Rejection; 13] = [
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
];

/// Puts every reachable combination of closed labels at zero.
pub fn create(metrics: &Metrics) {
    let decision = |outcome, reason, principal| {
        metrics.auth_decisions.with_label_values(&[outcome, reason, principal]);
    };
    for kind in [PrincipalKind::User, PrincipalKind::Anonymous, PrincipalKind::Admin] {
        decision("allow", "ok", kind.as_str());
        decision("allow", "stale_allowed", kind.as_str());
    }
    decision("bypass", "public_path", "none");
    decision("deny", "bad_request", "none");
    for verdict in REJECTIONS.map(Rejection::verdict) {
        decision(verdict.outcome.as_str(), verdict.reason, "none");
    }
    for source in SOURCES {
        metrics.auth_decision_duration.with_label_values(&[source]);
    }
    for kind in UPSTREAM_ERRORS {
        metrics.upstream_errors.with_label_values(&[kind]);
    }
    for header in super::identity_headers::identity_labels() {
        metrics.identity_headers_stripped.with_label_values(&[header]);
    }
    for reason in super::connection::session_watch::cut_labels() {
        metrics.streams_cut.with_label_values(&[reason]);
    }
    for handler in [PROXY, VERIFY] {
        metrics.http_requests_in_flight.with_label_values(&[handler]);
    }
}
