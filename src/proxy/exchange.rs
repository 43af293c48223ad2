//! What is known about one exchange, from its head to its line in the access log.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use pingora::proxy::Session as Exchange;
use tokio::time::Instant;

use super::guard::{Permit, Rejection};
use super::respond::Verdict;
use super::route::Rule;
use super::streams::{Slot, Streams};
use super::{Gateway, Settings, client_of, edge};
use crate::api::RequestId;
use crate::metrics::Metrics;
use crate::session::{Sessions, Source};
use crate::telemetry::access::{self, Outcome};

/// What is known about one exchange.
pub struct Context {
    pub(super) settings: Arc<Settings>,
    pub(super) peer: Option<IpAddr>,
    pub(super) client: Option<IpAddr>,
    pub(super) permit: Option<Permit>,
    pub(super) rule: Option<Arc<Rule>>,
    pub(super) verdict: Option<Verdict>,
    pub(super) status: Option<StatusCode>,
    pub(super) handler: &'static str,
    pub(super) request_bytes: u64,
    pub(super) upstream_error: Option<&'static str>,
    pub(super) retried: bool,
    request_id: RequestId,
    started: Instant,
    forwarded_at: Option<Instant>,
    slot: Option<Arc<Slot>>,
    line: Option<Line>,
    under_way: Option<UnderWay>,
    metrics: Arc<Metrics>,
}

/// Names exchanges: unique in the process, unpredictable from outside, no secret.
pub struct RequestIds {
    seed: u64,
    next: AtomicU64,
}

/// What the access log needs of the request head, kept for exchanges that are cut.
struct Line {
    method: String,
    path: String,
    trace_id: Option<String>,
}

/// Counts an exchange in, and out again however it ends.
struct UnderWay(Arc<Streams>);

impl Context {
    pub(super) fn new(gateway: &Gateway) -> Self {
        Self {
            settings: gateway.settings.load_full(),
            peer: None,
            client: None,
            permit: None,
            rule: None,
            verdict: None,
            status: None,
            handler: "proxy",
            request_bytes: 0,
            upstream_error: None,
            retried: false,
            request_id: gateway.request_ids.next(),
            started: Instant::now(),
            forwarded_at: None,
            slot: None,
            line: None,
            under_way: None,
            metrics: gateway.metrics.clone(),
        }
    }

    /// Takes down what the request head says about where it comes from.
    pub(super) fn begin(&mut self, exchange: &Exchange, gateway: &Gateway) {
        let head = exchange.req_header();
        self.peer = exchange.client_addr().and_then(|address| address.as_inet()).map(std::net::SocketAddr::ip);
        self.client = client_of(&head.headers, self.peer, &self.settings.trusted_proxies);
        self.slot = edge::current_slot();
        self.line = Some(Line {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            trace_id: head.headers.get("traceparent").and_then(trace_id),
        });
        gateway.streams.exchange_began();
        self.under_way = Some(UnderWay(gateway.streams.clone()));
        self.metrics.http_requests_in_flight.with_label_values(&["proxy"]).inc();
    }

    pub(super) fn peer_is_trusted(&self) -> bool {
        self.peer.is_some_and(|peer| self.settings.trusted_proxies.iter().any(|network| network.contains(&peer)))
    }

    pub(super) fn request_id(&self) -> RequestId {
        self.request_id
    }

    pub(super) fn request_id_value(&self) -> HeaderValue {
        self.request_id.header_value()
    }

    /// Puts the session that was let through under watch.
    pub(super) fn hold(&self, permit: &Permit, generation: u64) {
        if let (Some(slot), Some(session)) = (&self.slot, permit.session()) {
            slot.hold(session.clone(), generation);
        }
    }

    pub(super) fn allow(&mut self, rule: &Arc<Rule>, permit: Permit) {
        let verdict = verdict_of(&permit);
        if permit.session().is_none() {
            self.count(verdict, "none");
        }
        self.rule = Some(rule.clone());
        self.permit = Some(permit);
        self.verdict = Some(verdict);
    }

    /// Takes down that the request cannot be read in one way only, so that no rule was asked.
    pub(super) fn refuse_unread(&mut self) {
        let verdict = Verdict { outcome: Outcome::Deny, reason: "bad_request" };
        self.count(verdict, "none");
        self.verdict = Some(verdict);
    }

    pub(super) fn deny(&mut self, rule: &Arc<Rule>, rejection: Rejection) {
        self.rule = Some(rule.clone());
        self.permit = None;
        self.verdict = Some(rejection.verdict());
    }

    /// Counts what the guard decided, and how long it took since `started`.
    pub(super) fn decided(&self, decided: &Result<Permit, Rejection>, started: Instant) {
        let metrics = &self.metrics;
        let source = decided.as_ref().ok().and_then(Permit::source);
        let took = started.elapsed().as_secs_f64();
        metrics.auth_decision_duration.with_label_values(&[source_name(source)]).observe(took);
        match decided {
            Ok(permit) => {
                // One that names nobody is counted by `allow`.
                if let Some(session) = permit.session() {
                    self.count(verdict_of(permit), session.principal.kind.as_str());
                }
            }
            Err(rejection) => self.count(rejection.verdict(), "none"),
        }
    }

    fn count(&self, verdict: Verdict, principal: &str) {
        let labels = [verdict.outcome.as_str(), verdict.reason, principal];
        self.metrics.auth_decisions.with_label_values(&labels).inc();
    }

    pub(super) fn forwarded(&mut self) {
        self.forwarded_at = Some(Instant::now());
    }

    /// Returns whether the session that this exchange was let through for is over.
    pub(super) fn session_has_ended(&self, sessions: &Sessions) -> bool {
        let Some(session) = self.permit.as_ref().and_then(Permit::session) else { return false };
        self.slot.as_ref().is_some_and(|slot| slot.has_ended()) || sessions.is_revoked(session)
    }

    /// Takes down how the exchange ended.
    pub(super) fn finish(&mut self, exchange: &Exchange, error: Option<&pingora::Error>, metrics: &Metrics) {
        let written = exchange.response_written().map(|head| head.status);
        self.status = written.or(self.status);
        if let Some(kind) = self.upstream_error.filter(|_| error.is_some()) {
            metrics.upstream_errors.with_label_values(&[kind]).inc();
        }
        self.close(false);
    }

    fn close(&mut self, cut: bool) {
        let Some(line) = self.line.take() else { return };
        if let Some(slot) = self.slot.take() {
            slot.release();
        }
        self.under_way = None;
        let metrics = &self.metrics;
        let route = self.rule.as_ref().map_or("none", |rule| rule.id.as_str());
        let code = self.status.map_or(499, |status| status.as_u16());
        metrics.http_requests_in_flight.with_label_values(&["proxy"]).dec();
        metrics.http_requests.with_label_values(&[self.handler, route, code_name(code).as_ref()]).inc();
        let took = self.started.elapsed();
        metrics.http_request_duration.with_label_values(&[self.handler, route]).observe(took.as_secs_f64());
        if let Some(forwarded_at) = self.forwarded_at {
            metrics.upstream_request_duration.observe(forwarded_at.elapsed().as_secs_f64());
        }
        self.write_line(&line, route, code, took, cut);
    }

    fn write_line(&self, line: &Line, route: &str, code: u16, took: Duration, cut: bool) {
        let verdict = self.verdict.unwrap_or(Verdict { outcome: Outcome::Bypass, reason: "surface" });
        if !access::should_log(code, verdict.outcome, self.settings.access_log_sample, self.request_id.dice()) {
            return;
        }
        let session = self.permit.as_ref().and_then(Permit::session);
        access::write(&access::Record {
            request_id: &self.request_id.to_string(),
            trace_id: line.trace_id.as_deref(),
            method: &line.method,
            path: &line.path,
            route,
            status: code,
            duration: took,
            client_ip: self.client,
            user_id: session.map(|session| session.principal.id.as_str()),
            organization_id: session.map(|session| session.principal.tenant.as_str()),
            outcome: verdict.outcome,
            reason: verdict.reason,
            source: self.permit.as_ref().and_then(Permit::source).map(|source| source_name(Some(source))),
            error_type: if cut { Some("session_cut") } else { self.upstream_error },
        });
    }
}

// An exchange that is cut never reaches `logging`.
impl Drop for Context {
    fn drop(&mut self) {
        self.close(true);
    }
}

impl RequestIds {
    /// Returns a source of ids that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    // SplitMix64: a bijection of the counter, so ids never repeat and do not look like a counter.
    fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut word = self.seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        RequestId::from(word ^ (word >> 31))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.exchange_finished();
    }
}

fn source_name(source: Option<Source>) -> &'static str {
    match source {
        Some(Source::Cache) => "cache",
        Some(Source::Store) => "store",
        Some(Source::Stale) => "stale",
        None => "none",
    }
}

fn verdict_of(permit: &Permit) -> Verdict {
    match (permit.session(), permit.source()) {
        (None, _) => Verdict { outcome: Outcome::Bypass, reason: "public_path" },
        (Some(_), Some(Source::Stale)) => Verdict { outcome: Outcome::Allow, reason: "stale_allowed" },
        (Some(_), _) => Verdict { outcome: Outcome::Allow, reason: "ok" },
    }
}

// A code that no application of sound mind sends is not worth a time series of its own.
fn code_name(code: u16) -> std::borrow::Cow<'static, str> {
    if (100..600).contains(&code) { code.to_string().into() } else { "other".into() }
}

// W3C Trace Context §3.2: version "-" trace-id "-" parent-id "-" flags.
fn trace_id(traceparent: &HeaderValue) -> Option<String> {
    let id = traceparent.to_str().ok()?.split('-').nth(1)?;
    (id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then(|| id.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_sixteen_hex_digits_and_do_not_repeat() {
        let ids = RequestIds::new(7);
        let seen: std::collections::HashSet<String> = (0..1000).map(|_| ids.next().to_string()).collect();
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }

    #[test]
    fn only_a_well_formed_traceparent_names_a_trace() {
        let parse = |text: &'static str| trace_id(&HeaderValue::from_static(text));
        assert_eq!(
            parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").as_deref(),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        assert_eq!(parse("00-xyz-00f067aa0ba902b7-01"), None);
        assert_eq!(parse(""), None);
    }
}
