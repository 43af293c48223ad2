//! What the surface answers before it needs the sessions service.

use std::sync::Arc;

use axum::body::Body;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use super::signed_in::{StartedBody, audit};
use crate::api::core::Core;
use crate::api::extract::ClientAddr;
use crate::api::json::json_text;
use crate::api::limit::Network;
use crate::api::tests::{core, surfaces};
use crate::api::{RequestId, mount};
use crate::config::telemetry::Level;
use crate::model::{Principal, PrincipalKind, Session, SessionId, Shard};
use crate::telemetry::audit::Action;
use crate::telemetry::tests::json_lines;
use crate::time::Timestamp;

fn request(method: &str, path: &str) -> Request<Body> {
    Request::builder().method(method).uri(path).body(Body::empty()).unwrap()
}

fn with_token(method: &str, path: &str, token: &str) -> Request<Body> {
    let mut request = request(method, path);
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    request
}

fn with_json(body: &'static str) -> Request<Body> {
    let builder = Request::builder().method("POST").uri("/auth/anonymous");
    builder.header(CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap()
}

async fn send(core: &Arc<Core>, request: Request<Body>) -> (u16, HeaderMap, String) {
    let router = mount::router(core, &surfaces());
    let (head, body) = router.oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn refusal(request: Request<Body>) -> (u16, String) {
    let (status, headers, body) = send(&core(), request).await;
    assert_eq!(headers[CONTENT_TYPE], "application/json");
    assert_eq!(headers[CACHE_CONTROL], "no-store");
    assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff");
    let id = headers["x-request-id"].to_str().unwrap();
    assert_eq!(id.len(), 16);
    assert!(id.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{id}");
    assert_eq!(headers.contains_key(WWW_AUTHENTICATE), status == 401);
    (status, body)
}

fn detail(status: u16, text: &str) -> (u16, String) {
    (status, format!(r#"{{"detail":"{text}"}}"#))
}

const LOGOUTS: [(&str, &str); 3] = [("DELETE", "/auth/session"), ("POST", "/auth/revoke"), ("POST", "/auth/logout")];

#[tokio::test]
async fn a_request_without_a_token_is_challenged_without_an_error() {
    for (method, path) in LOGOUTS.into_iter().chain([("POST", "/auth/session")]) {
        assert_eq!(refusal(request(method, path)).await, detail(401, "Missing Bearer token"), "{method} {path}");
        let (_, headers, _) = send(&core(), request(method, path)).await;
        assert_eq!(headers[WWW_AUTHENTICATE], "Bearer");
    }
}

#[tokio::test]
async fn two_authorization_headers_are_invalid() {
    for (method, path) in LOGOUTS.into_iter().chain([("POST", "/auth/session")]) {
        let mut twice = with_token(method, path, "a.b.c");
        twice.headers_mut().append(AUTHORIZATION, HeaderValue::from_static("Bearer a.b.c"));
        assert_eq!(refusal(twice).await, detail(401, "Invalid token: malformed"), "{method} {path}");
    }
}

#[tokio::test]
async fn only_a_jwt_is_exchanged() {
    for token in ["dw_k3Zq", "opaque", "a.b", "a.b.c.d"] {
        let answer = refusal(with_token("POST", "/auth/session", token)).await;
        assert_eq!(answer, detail(401, "Invalid token: expected a Clerk JWT"), "{token}");
    }
    let (_, headers, _) = send(&core(), with_token("POST", "/auth/session", "opaque")).await;
    assert_eq!(headers[WWW_AUTHENTICATE], "Bearer error=\"invalid_token\"");
}

#[tokio::test]
async fn only_a_session_token_is_ended() {
    for (method, path) in LOGOUTS {
        let answer = refusal(with_token(method, path, "a.b.c")).await;
        assert_eq!(answer, detail(401, "Invalid token: expected a session token"), "{method} {path}");
    }
}

#[tokio::test]
async fn a_guest_must_name_a_device_with_any_authorization() {
    let mut unnamed = with_token("POST", "/auth/anonymous", "a b");
    unnamed.headers_mut().append(AUTHORIZATION, HeaderValue::from_static("Basic x"));
    assert_eq!(refusal(unnamed).await, detail(422, "device_id required"));
    assert_eq!(refusal(with_json("{}")).await, detail(422, "device_id required"));
    assert_eq!(refusal(with_json(r#"{"device_id":7}"#)).await, detail(422, "device_id must be a string"));
    assert_eq!(refusal(with_json("[]")).await, detail(422, "Invalid JSON body"));
    let twice = r#"{"device_id":"a","device_id":"b"}"#;
    assert_eq!(refusal(with_json(twice)).await, detail(422, "Invalid JSON body"));
}

#[tokio::test]
async fn a_body_of_another_type_or_size_is_refused() {
    let form = Request::builder().method("POST").uri("/auth/anonymous").body(Body::from("device_id=x")).unwrap();
    assert_eq!(refusal(form).await, detail(415, "Unsupported media type"));
    let large = Request::builder().method("POST").uri("/auth/anonymous").body(Body::from(vec![b' '; 65_537])).unwrap();
    assert_eq!(refusal(large).await, detail(413, "Request body too large"));
}

#[tokio::test]
async fn guests_are_limited_per_network_after_their_body_was_read() {
    let core = core();
    let client = ClientAddr("192.0.2.1".parse().unwrap());
    core.limits.anonymous.check(&Network::of(Some(client))).unwrap();
    let mut second = with_json(r#"{"device_id":"x"}"#);
    second.extensions_mut().insert(client);
    let (status, headers, body) = send(&core, second).await;
    assert_eq!((status, body), detail(429, "Too many requests"));
    assert_eq!(headers[RETRY_AFTER], "60");
    let mut malformed = with_json("{}");
    malformed.extensions_mut().insert(client);
    assert_eq!(send(&core, malformed).await.0, 422);
    assert_eq!(core.metrics.rate_limited.with_label_values(&["anonymous"]).get(), 1);
    assert_eq!(core.metrics.login_attempts.with_label_values(&["anonymous", "rate_limited"]).get(), 1);
    assert_eq!(core.metrics.login_attempts.with_label_values(&["anonymous", "unprocessable"]).get(), 1);
}

#[tokio::test]
async fn an_unknown_path_answers_in_the_shape_of_both_surfaces() {
    let paths = ["/auth/x", "/auth/session/", "/auth/Session", "/auth//session", "/auth/sess%69on", "/auth"];
    for path in paths {
        let body =
            format!(r#"{{"statusCode":404,"message":"Cannot GET {path}","error":"Not Found","detail":"Not Found"}}"#);
        assert_eq!(refusal(request("GET", &format!("{path}?token=secret"))).await, (404, body));
    }
}

#[tokio::test]
async fn another_method_is_told_what_is_allowed() {
    for (method, path, allowed) in [
        ("GET", "/auth/session", "POST,DELETE"),
        ("PUT", "/auth/anonymous", "POST"),
        ("DELETE", "/auth/logout", "POST"),
    ] {
        assert_eq!(refusal(request(method, path)).await, detail(405, "Method Not Allowed"), "{method} {path}");
        assert_eq!(send(&core(), request(method, path)).await.1[ALLOW], allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    for path in ["/auth/session", "/auth/x"] {
        let (get, _, body) = send(&core(), request("GET", path)).await;
        let (head, headers, empty) = send(&core(), request("HEAD", path)).await;
        assert_eq!(headers[CONTENT_LENGTH], body.len().to_string(), "{path}");
        assert_eq!((head, empty.as_str()), (get, ""), "{path}");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
    }
}

#[tokio::test]
async fn options_needs_no_token() {
    let (status, headers, body) = send(&core(), request("OPTIONS", "/auth/session")).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(headers[ALLOW], "POST,DELETE");
    assert!(!headers.contains_key(CONTENT_TYPE), "{headers:?}");
}

#[tokio::test]
async fn the_request_keeps_the_id_that_the_proxy_gave_it() {
    let mut named = request("GET", "/auth/x");
    named.extensions_mut().insert(RequestId::from(0xfeed));
    assert_eq!(send(&core(), named).await.1["x-request-id"], "000000000000feed");
}

#[tokio::test]
async fn attempts_are_counted_by_outcome_from_zero() {
    let core = core();
    send(&core, with_token("POST", "/auth/session", "opaque")).await;
    let attempts = |method, outcome| core.metrics.login_attempts.with_label_values(&[method, outcome]).get();
    assert_eq!(attempts("clerk", "invalid_token"), 1);
    let text = core.metrics.render().unwrap();
    for (method, outcome) in [("clerk", "success"), ("clerk", "expired"), ("anonymous", "unavailable")] {
        let series = format!("doorward_login_attempts_total{{method=\"{method}\",outcome=\"{outcome}\"}} 0");
        assert!(text.contains(&series), "{series}");
    }
}

#[test]
fn the_audit_log_names_ids_only() {
    let principal =
        Principal { kind: PrincipalKind::User, id: "user_2b".parse().unwrap(), tenant: "default".parse().unwrap() };
    let session = Session {
        id: SessionId::from(uuid::Uuid::nil()),
        roles: vec!["org:admin".parse().unwrap()],
        provider_session: Some("sess_1".to_owned()),
        ..Session::plain(principal, Shard::of(0), Timestamp(0), Timestamp(1))
    };
    let client = ClientAddr("192.0.2.1".parse().unwrap());
    let lines = json_lines(Level::Error, |_| audit(Action::SessionEnded, &session, Some(client)));
    let expected = json!({
        "@timestamp": "2026-01-01T00:00:00.123Z",
        "log.level": "info",
        "log.logger": "audit",
        "event.action": "session-ended",
        "session.id": "00000000-0000-0000-0000-000000000000",
        "user.id": "user_2b",
        "user.kind": "user",
        "organization.id": "default",
        "client.ip": "192.0.2.1",
    });
    assert_eq!(lines, [expected]);
}

#[test]
fn a_started_session_is_answered_with_exactly_two_keys() {
    let body = json_text(&StartedBody { token: "dw_x".to_owned(), expires_in: 1800 });
    assert_eq!(&body[..], br#"{"token":"dw_x","expires_in":1800}"#);
}
