//! What is known about an exchange that is a forward-auth check: it is about another request.

use std::net::IpAddr;
use std::sync::Arc;

use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, Method, Version};

use super::Context;
use super::record::RequestLine;
use super::trace::{RequestMeta, Trace};
use crate::proxy::forwarded::Peer;
use crate::proxy::guard::{self, Rejection};
use crate::proxy::metrics::VERIFY;
use crate::proxy::route::Rule;
use crate::telemetry::traces::TRACEPARENT;

impl Context {
    /// Records a forward-auth check that came otherwise than through the proxy port.
    pub(in crate::proxy) fn begin_check(&mut self, peer: Option<Peer>, target: PathAndQuery) {
        self.enter(peer, RequestLine { method: Method::POST, target: Some(target), traceparent: None });
        self.client = self.peer.and_then(Peer::address);
        self.is_check();
    }

    /// Records that the exchange is a forward-auth check, which is answered as one.
    pub(in crate::proxy) fn is_check(&mut self) {
        self.state.handles.in_flight(self.handler).dec();
        self.handler = VERIFY;
        self.state.handles.in_flight(self.handler).inc();
    }

    /// Records which request a check is about.
    pub(in crate::proxy) fn note_original(&mut self, method: &Method, target: &PathAndQuery) {
        if let Some(line) = &mut self.line {
            line.method = method.clone();
            line.target = Some(target.clone());
        }
    }

    /// Records where the request that a check on the ext_authz port is about comes from, its
    /// `source` and its head, and begins the check's trace in that of the request. Its headers do not
    /// decide whether it is sampled.
    pub(in crate::proxy) fn note_origin(&mut self, source: Option<IpAddr>, method: &Method, head: &HeaderMap) {
        if source.is_some() {
            self.client = self.client_behind(head, source);
        }
        if let Some(line) = &mut self.line {
            line.traceparent = head.get(TRACEPARENT).cloned();
        }
        if let Some(tracer) = &self.state.tracer {
            let meta = RequestMeta::new(method, "http", Version::HTTP_2);
            self.trace = Some(Trace::begin(tracer, head, meta, false, self.request_id.sample_value()));
        }
    }

    /// Asks the guard about the request that a check is about: nothing is left to cut afterwards.
    pub(in crate::proxy) async fn guard_original(
        &mut self,
        rule: &Arc<Rule>,
        request: &Parts,
    ) -> Result<(), Rejection> {
        let asked = guard::decide(&self.state.sessions, &rule.policy, request, &self.settings.cookie, None);
        let guarded = asked.await;
        self.guarded(rule, guarded)
    }
}
