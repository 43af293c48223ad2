//! How an exchange ended: one value, from which its metrics, its access line and its trace are written.

use std::net::IpAddr;

use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;

use crate::api::RequestId;
use crate::proxy::guard::{Decision, Permit};
use crate::proxy::metrics::{MetricHandles, VERIFY, status_label};
use crate::proxy::route::Rule;
use crate::proxy::settings::Settings;
use crate::session::Source;
use crate::telemetry::access;
use crate::telemetry::traces::{TraceId, trace_in};

/// The status in metrics and access log of an exchange that ended without an answer.
const NO_ANSWER: u16 = 499;

/// What the access log needs of the request head, kept for exchanges that are cut.
///
/// Parts of the head, not texts made from them: most lines are never written.
pub(super) struct RequestLine {
    pub(super) method: Method,
    pub(super) target: Option<PathAndQuery>,
    pub(super) traceparent: Option<HeaderValue>,
}

/// How an exchange ended.
pub(super) struct Completion<'a> {
    pub(super) request_id: RequestId,
    /// Which part of Doorward answered.
    pub(super) handler: &'static str,
    pub(super) rule: Option<&'a Rule>,
    pub(super) client: Option<IpAddr>,
    pub(super) permit: Option<&'a Permit>,
    pub(super) decision: Decision,
    /// The status that the caller got, if any.
    pub(super) status: Option<StatusCode>,
    pub(super) began: Instant,
    pub(super) forwarded_at: Option<Instant>,
    pub(super) ended: Instant,
    /// What went wrong on the way to or from the application.
    pub(super) upstream_error: Option<&'static str>,
    /// Whether the session ended first.
    pub(super) cut: bool,
}

impl Completion<'_> {
    /// Returns where the decision came from, if a session was looked up.
    pub(super) fn source(&self) -> Option<&'static str> {
        self.permit.and_then(Permit::source).map(Source::as_str)
    }

    /// Counts the exchange.
    pub(super) fn count(&self, settings: &Settings, handles: &MetricHandles) {
        let metrics = &handles.metrics;
        let (code, took) = (self.code(), self.ended - self.began);
        let route = self.rule.map_or("none", |rule| rule.id.as_str());
        let rule = self.rule.filter(|_| self.handler != VERIFY);
        if let Some(handle) = rule.and_then(|rule| settings.route_handles.of(rule.position(), route, metrics)) {
            handle.count(route, code, took, metrics);
        } else {
            metrics.http_requests.with_label_values(&[self.handler, route, &status_label(code)]).inc();
            metrics.http_request_duration.with_label_values(&[self.handler, route]).observe(took.as_secs_f64());
        }
        if let Some(kind) = self.upstream_error {
            metrics.upstream_errors.with_label_values(&[kind]).inc();
        }
        if let Some(forwarded_at) = self.forwarded_at {
            metrics.upstream_request_duration.observe((self.ended - forwarded_at).as_secs_f64());
        }
    }

    /// Writes the line in the access log. `sample` is the share of successes to write; `trace` is the
    /// exchange's own trace, in place of the one that the caller named.
    pub(super) fn log(&self, line: &RequestLine, sample: f64, trace: Option<TraceId>) {
        if !access::should_log(self.code(), self.decision.outcome, sample, self.request_id.sample_value()) {
            return;
        }
        let caller = self.permit.and_then(Permit::caller);
        let named = || line.traceparent.as_ref().and_then(trace_in);
        let trace = trace.or_else(named).map(|trace| trace.to_string());
        access::write(&access::Record {
            request_id: &self.request_id.to_string(),
            trace_id: trace.as_deref(),
            method: line.method.as_str(),
            handler: self.handler,
            path: line.target.as_ref().map_or("", PathAndQuery::path),
            route: self.rule.map_or("none", |rule| rule.id.as_str()),
            status: self.code(),
            duration: self.ended - self.began,
            client_ip: self.client,
            user_id: caller.map(|caller| caller.principal.id.as_str()),
            organization_id: caller.map(|caller| caller.principal.tenant.as_str()),
            outcome: self.decision.outcome,
            reason: self.decision.reason,
            source: self.source(),
            error_type: if self.cut { Some("session_cut") } else { self.upstream_error },
        });
    }

    fn code(&self) -> u16 {
        self.status.map_or(NO_ANSWER, |status| status.as_u16())
    }
}
