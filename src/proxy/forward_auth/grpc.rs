//! The question over gRPC: Envoy's `envoy.service.auth.v3.Authorization`.
//!
//! Envoy tells the whole head of the original request, so nothing is read from forwarding headers,
//! and the answer can remove headers: no spelling of an identity header reaches the application.

use std::net::IpAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use envoy_types::ext_authz::v3::CheckRequestExt;
use envoy_types::ext_authz::v3::pb::{
    Authorization, AuthorizationServer, CheckRequest, CheckResponse, DeniedHttpResponse, HeaderAppendAction,
    HeaderValue, HeaderValueOption, HttpResponse, HttpStatus, OkHttpResponse,
};
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;
use envoy_types::pb::google::rpc;
use http::StatusCode;
use http::header::{self, HeaderMap, HeaderName};
use http::uri::PathAndQuery;
use tonic::{Code, Request, Response, Status, async_trait};

use super::decision::decide;
use super::original::{Original, Unreadable};
use crate::api::dialect::in_words;
use crate::api::problem::{Problem, What};
use crate::metrics::Metrics;
use crate::proxy::connection::session_watch::SessionWatch;
use crate::proxy::context::{Context, RequestIds};
use crate::proxy::guard::Rejection;
use crate::proxy::metrics::MetricHandles;
use crate::proxy::settings::Settings;
use crate::proxy::{Gateway, identity_headers};
use crate::session::Sessions;
use crate::telemetry::traces::Tracer;

/// The largest question, in bytes: a head, and the start of a body that Envoy may be told to send.
const QUESTION_MAX: usize = 1024 * 1024;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Who asks: an extension of every request, put there by the listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// A peer with an address; its trust depends on `trusted_proxies`.
    Address(IpAddr),
    /// A peer on our unix socket: whoever may open it is trusted.
    Socket,
}

/// Knows who may ask.
pub struct PeerFilter {
    settings: Arc<ArcSwap<Settings>>,
    metrics: Arc<Metrics>,
}

/// Answers Envoy.
pub struct ExtAuthzService {
    settings: Arc<ArcSwap<Settings>>,
    sessions: Arc<Sessions>,
    streams: Arc<SessionWatch>,
    request_ids: Arc<RequestIds>,
    metrics: Arc<Metrics>,
    handles: Arc<MetricHandles>,
    tracer: Option<Arc<Tracer>>,
}

impl Gateway {
    /// Returns what answers Envoy as this gateway answers its own callers.
    pub fn ext_authz_service(&self) -> AuthorizationServer<ExtAuthzService> {
        let ext_authz_service = ExtAuthzService {
            settings: self.settings.clone(),
            sessions: self.sessions.clone(),
            streams: self.streams.clone(),
            request_ids: self.request_ids.clone(),
            metrics: self.metrics.clone(),
            handles: self.handles.clone(),
            tracer: self.tracer.clone(),
        };
        AuthorizationServer::new(ext_authz_service).max_decoding_message_size(QUESTION_MAX)
    }

    /// Returns who knows which peers may open a connection to ask.
    pub fn peer_filter(&self) -> PeerFilter {
        PeerFilter { settings: self.settings.clone(), metrics: self.metrics.clone() }
    }
}

impl PeerFilter {
    /// Returns whether a peer may open a connection; counts one that may not.
    pub fn admits(&self, peer: Peer) -> bool {
        let Peer::Address(peer) = peer else { return true };
        let admitted = self.settings.load().trusted_proxies.iter().any(|network| network.contains(&peer));
        if !admitted {
            let verdict = Rejection::UntrustedPeer.verdict();
            self.metrics.auth_decisions.with_label_values(&[verdict.outcome.as_str(), verdict.reason, "none"]).inc();
        }
        admitted
    }
}

#[async_trait]
impl Authorization for ExtAuthzService {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let mut context = Context::new(self.settings.load_full(), self.request_ids.next(), self.handles.clone());
        context.begin_question(peer.and_then(Peer::address), PathAndQuery::from_static(CHECK), &self.streams);
        if peer != Some(Peer::Socket) && !context.peer_is_trusted() {
            let problem = context.turn_away(Rejection::UntrustedPeer);
            context.status = Some(context.render(&problem).status());
            return Err(Status::permission_denied(in_words(&problem.what)));
        }
        let answer = match self.answer(request.get_ref(), &mut context).await {
            Ok(allowed) => {
                context.status = Some(StatusCode::OK);
                response(Code::Ok, HttpResponse::OkResponse(allowed))
            }
            Err(problem) => {
                let refusal = context.render(&problem);
                context.status = Some(refusal.status());
                response(code_of(refusal.status()), HttpResponse::DeniedResponse(denied(refusal)))
            }
        };
        Ok(Response::new(answer))
    }
}

impl ExtAuthzService {
    async fn answer(&self, question: &CheckRequest, context: &mut Context) -> Result<OkHttpResponse, Problem> {
        let Ok((original, received)) = read(question) else {
            context.refuse_unread();
            return Err(What::BadRequest.into());
        };
        let source = question.get_client_address().and_then(|address| address.parse().ok());
        context.note_original(original.method(), original.target());
        context.note_origin(source, &received);
        if let Some(tracer) = &self.tracer {
            context.trace_question(tracer, original.method(), &received);
        }
        let non_canonical = identity_headers::count_identity_headers(&received, &self.metrics);
        let identity = Box::pin(decide(&self.sessions, &original, context)).await?;
        let mut allowed = OkHttpResponse {
            headers_to_remove: non_canonical.iter().map(ToString::to_string).collect(),
            ..OkHttpResponse::default()
        };
        for (name, value) in &identity {
            allowed.headers.push(overwrite(name, value.as_bytes()));
        }
        if !context.keeps_credentials() {
            remove_credentials(&received, &context.settings.cookie.name, &mut allowed);
        }
        Ok(allowed)
    }
}

impl Peer {
    fn address(self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address),
            Self::Socket => None,
        }
    }
}

/// Returns the original request as the guard sees it, and all its headers.
fn read(question: &CheckRequest) -> Result<(Original, HeaderMap), Unreadable> {
    let http = question.attributes.as_ref().and_then(|attributes| attributes.request.as_ref()?.http.as_ref());
    let http = http.ok_or(Unreadable)?;
    let received = headers_of(http)?;
    let original = Original::from_parts(&http.method, &http.path, &http.host, &received)?;
    Ok((original, received))
}

// Envoy sends one or the other (`encode_raw_headers`); only the list tells repeated headers apart.
fn headers_of(http: &HttpRequest) -> Result<HeaderMap, Unreadable> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| {
        if name.starts_with(':') {
            return Ok(());
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| Unreadable)?;
        let value = http::HeaderValue::from_bytes(value).map_err(|_| Unreadable)?;
        headers.try_append(name, value).map(|_| ()).map_err(|_| Unreadable)
    };
    match &http.header_map {
        Some(list) => list.headers.iter().try_for_each(|header| {
            let text = header.value.as_bytes();
            add(&header.key, if text.is_empty() { &header.raw_value } else { text })
        })?,
        None => http.headers.iter().try_for_each(|(name, value)| add(name, value.as_bytes()))?,
    }
    Ok(headers)
}

fn remove_credentials(received: &HeaderMap, cookie: &str, allowed: &mut OkHttpResponse) {
    if received.contains_key(header::AUTHORIZATION) {
        allowed.headers_to_remove.push(header::AUTHORIZATION.to_string());
    }
    match identity_headers::without_cookie(received, cookie) {
        None => {}
        Some(kept) if kept.is_empty() => allowed.headers_to_remove.push(header::COOKIE.to_string()),
        Some(kept) => allowed.headers.push(overwrite(&header::COOKIE, &kept)),
    }
}

// Without `keep_empty_value` an empty header may be dropped, and the client's own be left.
fn overwrite(name: &HeaderName, value: &[u8]) -> HeaderValueOption {
    let (value, raw_value) = match std::str::from_utf8(value) {
        Ok(text) => (text.to_owned(), Vec::new()),
        Err(_) => (String::new(), value.to_vec()),
    };
    HeaderValueOption {
        header: Some(HeaderValue { key: name.to_string(), value, raw_value }),
        append_action: HeaderAppendAction::OverwriteIfExistsOrAdd.into(),
        keep_empty_value: true,
        ..HeaderValueOption::default()
    }
}

fn denied(refusal: http::Response<Bytes>) -> DeniedHttpResponse {
    let (head, body) = refusal.into_parts();
    DeniedHttpResponse {
        status: Some(HttpStatus { code: head.status.as_u16().into() }),
        headers: head.headers.iter().map(|(name, value)| overwrite(name, value.as_bytes())).collect(),
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}

fn response(code: Code, http_response: HttpResponse) -> CheckResponse {
    let status = rpc::Status { code: code.into(), ..rpc::Status::default() };
    CheckResponse { status: Some(status), dynamic_metadata: None, http_response: Some(http_response) }
}

fn code_of(status: StatusCode) -> Code {
    match status {
        StatusCode::BAD_REQUEST => Code::InvalidArgument,
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        StatusCode::FORBIDDEN => Code::PermissionDenied,
        StatusCode::SERVICE_UNAVAILABLE => Code::Unavailable,
        _ => Code::Internal,
    }
}
