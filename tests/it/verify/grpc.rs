//! Envoy's questions over gRPC.

mod answers;
mod listener;
mod tracing;

use std::net::SocketAddr;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::{HttpRequest, Peer, Request};
use envoy_types::pb::envoy::service::auth::v3::check_response::HttpResponse;
use envoy_types::pb::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use prost::Message;

use crate::support::client::Response;
use crate::support::h2_client::{H2Call, H2Client};
use crate::support::ports::free_port;
use crate::support::stage::Stage;

/// What Envoy does, as far as Doorward notices.
pub(crate) struct Envoy(H2Client);

/// A gateway that Envoy may ask, and Envoy.
struct Asked {
    stage: Stage,
    port: SocketAddr,
    envoy: Envoy,
}

impl Asked {
    /// Starts both, with `config` laid over.
    async fn start(config: &str) -> Self {
        let port = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let enabled = format!("trusted_proxies: ['127.0.0.1/32']\nforward_auth: {{ grpc: '{port}' }}");
        let stage = Stage::start(&format!("{enabled}\n{config}")).await;
        let envoy = Envoy::connect(port).await;
        Self { stage, port, envoy }
    }
}

impl Envoy {
    /// Connects to where Doorward answers Envoy.
    pub(crate) async fn connect(port: SocketAddr) -> Self {
        Self(H2Client::connect(port).await)
    }

    /// Begins a call with exactly these bytes as its message.
    async fn begin(&self, message: &[u8]) -> H2Call {
        let headers = [("content-type", "application/grpc"), ("te", "trailers")];
        let mut call = self.0.open("/envoy.service.auth.v3.Authorization/Check", &headers).await;
        let length = u32::try_from(message.len()).expect("it is short").to_be_bytes();
        call.send([&[0], length.as_slice(), message].concat());
        call.finish();
        call
    }

    /// Returns the answer to a question, or the code of the failure.
    async fn try_check(&self, question: &CheckRequest) -> Result<CheckResponse, u32> {
        end(self.begin(&question.encode_to_vec()).await).await
    }

    async fn check(&self, question: &CheckRequest) -> CheckResponse {
        self.try_check(question).await.unwrap_or_else(|code| panic!("grpc-status {code}"))
    }

    /// Returns the status of the answer to a client, and the answer.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)]) -> (u16, CheckResponse) {
        let answer = self.check(&question(method, path, headers)).await;
        (status_of(&answer), answer)
    }
}

/// Waits for the rest of a call.
async fn end(mut call: H2Call) -> Result<CheckResponse, u32> {
    let head = call.head().await;
    let mut body = Vec::new();
    while let Ok(Some(piece)) = call.next().await {
        body.extend(piece);
    }
    let code = |text: &str| text.parse::<u32>().expect("a number");
    let failed = head.header("grpc-status").map(code);
    let trailers = if failed.is_some() { None } else { call.trailers().await };
    let code = failed.or_else(|| trailers.map(|all| code(all["grpc-status"].to_str().expect("text"))));
    match code {
        Some(0) => Ok(CheckResponse::decode(body.get(5..).expect("a message")).expect("the message is an answer")),
        code => Err(code.expect("a status")),
    }
}

/// Returns a question about a request, told as Envoy tells it.
fn question(method: &str, path: &str, headers: &[(&str, &str)]) -> CheckRequest {
    let own = [(":method", method), (":path", path), (":authority", "app.example"), (":scheme", "https")];
    about(HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        host: "app.example".to_owned(),
        scheme: "https".to_owned(),
        headers: own.iter().chain(headers).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        ..HttpRequest::default()
    })
}

fn about(http: HttpRequest) -> CheckRequest {
    let address = core::SocketAddress { address: "192.0.2.9".to_owned(), ..core::SocketAddress::default() };
    let address = core::Address { address: Some(core::address::Address::SocketAddress(address)) };
    let source = Peer { address: Some(address), ..Peer::default() };
    let request = Request { http: Some(http), ..Request::default() };
    let attributes = AttributeContext { source: Some(source), request: Some(request), ..AttributeContext::default() };
    CheckRequest { attributes: Some(attributes) }
}

/// Returns the status of the answer to a client.
pub(crate) fn status_of(answer: &CheckResponse) -> u16 {
    let code = answer.status.as_ref().expect("a status").code;
    match &answer.http_response {
        Some(HttpResponse::OkResponse(_)) => {
            assert_eq!(code, 0);
            200
        }
        Some(HttpResponse::DeniedResponse(denied)) => {
            let status = denied.status.as_ref().expect("a status").code;
            let expected = match status {
                400 => 3,
                401 => 16,
                403 => 7,
                503 => 14,
                other => panic!("{other}"),
            };
            assert_eq!(code, expected);
            u16::try_from(status).expect("a status")
        }
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn allowed(answer: &CheckResponse) -> &OkHttpResponse {
    let Some(HttpResponse::OkResponse(allowed)) = &answer.http_response else { panic!("{answer:?}") };
    allowed
}

#[track_caller]
pub(crate) fn denied(answer: &CheckResponse) -> &DeniedHttpResponse {
    let Some(HttpResponse::DeniedResponse(denied)) = &answer.http_response else { panic!("{answer:?}") };
    denied
}

/// Returns header fields that overwrite, and keep an empty value, as name and value.
#[track_caller]
pub(crate) fn fields(headers: &[core::HeaderValueOption]) -> Vec<(String, String)> {
    let field = |option: &core::HeaderValueOption| {
        assert_eq!(option.append_action, i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd));
        assert!(option.keep_empty_value);
        let header = option.header.clone().expect("a header");
        assert!(header.raw_value.is_empty());
        (header.key, header.value)
    };
    headers.iter().map(field).collect()
}

/// Returns what the application gets of `headers` once Envoy has done as told.
#[track_caller]
fn forwarded(headers: &[(&str, &str)], allowed: &OkHttpResponse) -> Vec<(String, String)> {
    let set = fields(&allowed.headers);
    let gone = |name: &str| {
        set.iter().any(|(set, _)| set == name) || allowed.headers_to_remove.iter().any(|gone| gone == name)
    };
    let kept =
        headers.iter().filter(|(name, _)| !gone(name)).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    let mut forwarded: Vec<(String, String)> = kept.chain(set.clone()).collect();
    forwarded.sort();
    forwarded
}

/// Fails the test unless a client is told the same as by the guard.
#[track_caller]
fn assert_same(denied: &DeniedHttpResponse, direct: &Response) {
    assert_eq!(denied.status.as_ref().expect("a status").code, i32::from(direct.status));
    assert_eq!(denied.body, direct.text());
    let told = fields(&denied.headers);
    for name in ["content-type", "cache-control", "www-authenticate", "retry-after", "x-content-type-options"] {
        let values: Vec<&str> =
            told.iter().filter(|(field, _)| field == name).map(|(_, value)| value.as_str()).collect();
        assert_eq!(values, direct.headers.all(name), "{name}");
    }
    assert!(told.iter().any(|(name, value)| name == "x-request-id" && value.len() == 16));
}
