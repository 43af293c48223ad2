//! The check over gRPC: Envoy's `envoy.service.auth.v3.Authorization`.
//!
//! Envoy sends the whole head of the original request, so nothing is read from forwarding headers,
//! and the answer can remove headers: no spelling of an identity header reaches the application.

use std::sync::Arc;

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
use super::original::{Original, UnreadableOriginal};
use crate::api::dialect::in_words;
use crate::api::problem::Problem;
use crate::proxy::context::Context;
use crate::proxy::forwarded::Peer;
use crate::proxy::guard::Rejection;
use crate::proxy::identity_headers;
use crate::proxy::state::GatewayState;

/// The largest check, in bytes: a head, and the start of a body that Envoy may be told to send.
const CHECK_MAX: usize = 1024 * 1024;

const CHECK: &str = "/envoy.service.auth.v3.Authorization/Check";

/// Knows which peers may ask.
pub struct PeerFilter(Arc<GatewayState>);

/// Answers Envoy as the proxy port answers its own callers.
pub struct ExtAuthzService(Arc<GatewayState>);

impl PeerFilter {
    /// Returns the filter of the `ext_authz` port, by the trusted proxies of the day.
    pub fn new(state: Arc<GatewayState>) -> Self {
        Self(state)
    }

    /// Returns whether a peer may open a connection; counts one that may not.
    pub fn admits(&self, peer: Peer) -> bool {
        let admitted = self.0.settings.load().trusted_proxies.trusts(peer);
        if !admitted {
            self.0.handles.count_decision(Rejection::UntrustedPeer.decision(), None);
        }
        admitted
    }
}

impl ExtAuthzService {
    /// Returns the gRPC service.
    pub fn server(state: Arc<GatewayState>) -> AuthorizationServer<Self> {
        AuthorizationServer::new(Self(state)).max_decoding_message_size(CHECK_MAX)
    }
}

#[async_trait]
impl Authorization for ExtAuthzService {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let peer = request.extensions().get::<Peer>().copied();
        let mut context = Context::new(self.0.clone());
        context.begin_check(peer, PathAndQuery::from_static(CHECK));
        // Trusted proxies may have changed since the connection was opened.
        if !context.peer_is_trusted() {
            context.reject(Rejection::UntrustedPeer);
            let problem = Rejection::UntrustedPeer.problem();
            context.answering(StatusCode::FORBIDDEN);
            return Err(Status::permission_denied(in_words(&problem.what)));
        }
        let answer = match decide_check(request.get_ref(), &mut context).await {
            Ok(allowed) => {
                context.answering(StatusCode::OK);
                response(Code::Ok, HttpResponse::OkResponse(allowed))
            }
            Err(problem) => {
                let refusal = context.refuse(&problem);
                response(code_of(refusal.status()), HttpResponse::DeniedResponse(denied(refusal)))
            }
        };
        Ok(Response::new(answer))
    }
}

async fn decide_check(check: &CheckRequest, context: &mut Context) -> Result<OkHttpResponse, Problem> {
    let Ok((original, received)) = read(check) else {
        context.reject(Rejection::Unreadable);
        return Err(Rejection::Unreadable.problem());
    };
    let source = check.get_client_address().and_then(|address| address.parse().ok());
    context.note_original(original.method(), original.target());
    context.note_origin(source, original.method(), &received);
    let non_canonical = identity_headers::count_identity_headers(&received, &context.state().handles.metrics);
    let identity = Box::pin(decide(&original, context)).await?;
    let mut allowed = OkHttpResponse {
        headers_to_remove: non_canonical.iter().map(ToString::to_string).collect(),
        ..OkHttpResponse::default()
    };
    for (name, value) in &identity {
        allowed.headers.push(overwrite(name, value.as_bytes()));
    }
    let keeps_credentials = context.permitted().is_some_and(|(_, rule)| rule.policy.keep_credentials);
    if !keeps_credentials {
        remove_credentials(&received, &context.settings().cookie.name, &mut allowed);
    }
    Ok(allowed)
}

/// Returns the original request as the guard sees it, and all its headers.
fn read(check: &CheckRequest) -> Result<(Original, HeaderMap), UnreadableOriginal> {
    let http = check.attributes.as_ref().and_then(|attributes| attributes.request.as_ref()?.http.as_ref());
    let http = http.ok_or(UnreadableOriginal)?;
    let received = headers_of(http)?;
    let original = Original::from_parts(&http.method, &http.path, &http.host, &received)?;
    Ok((original, received))
}

// Envoy sends one or the other (`encode_raw_headers`); only the list tells repeated headers apart.
fn headers_of(http: &HttpRequest) -> Result<HeaderMap, UnreadableOriginal> {
    let mut headers = HeaderMap::new();
    let mut add = |name: &str, value: &[u8]| {
        if name.starts_with(':') {
            return Ok(());
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| UnreadableOriginal)?;
        let value = http::HeaderValue::from_bytes(value).map_err(|_| UnreadableOriginal)?;
        headers.try_append(name, value).map(|_| ()).map_err(|_| UnreadableOriginal)
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
