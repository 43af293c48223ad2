//! The access log: one line an exchange, with ECS field names.
//!
//! A record holds ids and outcomes, never a header, a query or a body. Successes may be sampled;
//! a denial or a failure is always written.

use std::net::IpAddr;
use std::time::Duration;

/// One exchange and its outcome.
#[derive(Clone, Debug)]
pub struct Record<'a> {
    /// The id that the response carried in `X-Request-ID`.
    pub request_id: &'a str,
    /// The id of the W3C trace that the exchange belongs to.
    pub trace_id: Option<&'a str>,
    /// The request's method.
    pub method: &'a str,
    /// The request's path; a query is cut off before it is written.
    pub path: &'a str,
    /// Which part of Doorward answered: `proxy`, `verify` or a surface.
    pub handler: &'a str,
    /// The name of the rule that matched, or of the surface that answered.
    pub route: &'a str,
    /// The response's status; 0 when there was none.
    pub status: u16,
    /// From the request's head to the end of its response.
    pub duration: Duration,
    /// The caller's address.
    pub client_ip: Option<IpAddr>,
    /// The principal, as `X-User-ID`.
    pub user_id: Option<&'a str>,
    /// The tenant, as `X-Client-ID`.
    pub organization_id: Option<&'a str>,
    /// What the guard decided.
    pub outcome: Outcome,
    /// The reason: a name from the closed set of `auth_decisions_total`.
    pub reason: &'a str,
    /// Where the decision came from, when a session was looked up: `cache`, `store` or `stale`.
    pub source: Option<&'a str>,
    /// What failed between Doorward and the application: a name from a closed set.
    pub error_type: Option<&'a str>,
}

/// What the guard decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A live session passed.
    Allow,
    /// The caller was refused.
    Deny,
    /// No session was needed.
    Bypass,
    /// Nothing could be decided.
    Error,
}

impl Outcome {
    /// Returns the stable name for logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Bypass => "bypass",
            Self::Error => "error",
        }
    }
}

/// Returns whether an exchange is written, given the share of successes to keep and a `sample_value` in [0, 1).
pub fn should_log(status: u16, outcome: Outcome, sample: f64, sample_value: f64) -> bool {
    let passed = match outcome {
        Outcome::Allow | Outcome::Bypass => true,
        Outcome::Deny | Outcome::Error => false,
    };
    let succeeded = passed && (100..400).contains(&status);
    !succeeded || sample_value < sample
}

/// Writes one line for an exchange.
pub fn write(record: &Record<'_>) {
    let path = record.path.split(['?', '#']).next().unwrap_or_default();
    tracing::event!(
        target: "access",
        tracing::Level::INFO,
        http.request.id = record.request_id,
        trace.id = record.trace_id,
        http.request.method = record.method,
        url.path = path,
        handler = record.handler,
        route = record.route,
        http.response.status_code = record.status,
        event.duration = u64::try_from(record.duration.as_nanos()).unwrap_or(u64::MAX),
        client.ip = record.client_ip.map(tracing::field::display),
        user.id = record.user_id,
        organization.id = record.organization_id,
        auth.outcome = record.outcome.as_str(),
        auth.reason = record.reason,
        auth.source = record.source,
        "error.type" = record.error_type,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_or_failure_is_never_sampled_away() {
        for status in [0, 200, 401, 403, 503] {
            assert!(should_log(status, Outcome::Deny, 0.0, 0.999), "{status}");
            assert!(should_log(status, Outcome::Error, 0.0, 0.999), "{status}");
        }
        for status in [0, 400, 404, 499, 500, 502, 503] {
            assert!(should_log(status, Outcome::Allow, 0.0, 0.999), "{status}");
            assert!(should_log(status, Outcome::Bypass, 0.0, 0.999), "{status}");
        }
    }

    #[test]
    fn successes_are_kept_by_their_share() {
        for status in [101, 200, 204, 304] {
            assert!(should_log(status, Outcome::Allow, 1.0, 0.999), "{status}");
            assert!(should_log(status, Outcome::Allow, 0.25, 0.249), "{status}");
            assert!(!should_log(status, Outcome::Allow, 0.25, 0.25), "{status}");
            assert!(!should_log(status, Outcome::Bypass, 0.0, 0.0), "{status}");
        }
    }
}
