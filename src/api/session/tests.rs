//! What the surface answers before it needs the sessions service.

use std::time::Duration;

use axum::body::Body;
use http::header::{
    ALLOW, AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::json;
use tower::ServiceExt;

use super::*;
use crate::api::extract::RequestId;
use crate::api::limit::Network;
use crate::config;
use crate::config::telemetry::Level;
use crate::model::{Principal, PrincipalKind, SessionId, Shard, TokenKey, TokenKeys};
use crate::session::{Policy, Setup};
use crate::store::KEEP_ENDED;
use crate::store::redis::RedisStore;
use crate::telemetry::tests::json_lines;
use crate::time::{Clock, ManualClock, Timestamp};

// No store to reach and no keys to verify with: whoever gets that far is told so.
fn app() -> App {
    let metrics = Arc::new(Metrics::new().unwrap());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_800_000_000_000)));
    let random = Arc::new(aws_lc_rs::rand::SystemRandom::new());
    let environment = [
        ("DOORWARD__SESSIONS__STORE", "redis://127.0.0.1:1"),
        ("DOORWARD__DIRECTORY__URL", "postgres://nobody@127.0.0.1:1/none"),
        ("DOORWARD__SESSIONS__TOKEN__KEYS", "[{id: 1, secret: 0123456789abcdef0123456789abcdef}]"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let config = config::Config::load(&[], &environment).unwrap().config;
    let key = TokenKey::new(1, &[7; 32]).unwrap();
    let sessions = Sessions::new(Setup {
        store: RedisStore::connect(&config.sessions, KEEP_ENDED, clock.clone(), metrics.clone()).unwrap(),
        keys: TokenKeys::new("dw_".to_owned(), key.clone(), Vec::new()),
        guest_key: key.clone(),
        policy: Policy::from_config(&config),
        cache: config.sessions.cache.clone(),
        clock: clock.clone(),
        random: random.clone(),
        metrics: metrics.clone(),
    });
    let directory = Arc::new(Directory::open(&config.directory).unwrap());
    let headers = config.identity_headers;
    let bootstrap = BootstrapComposer::new(&config, directory.clone(), Box::new(move || headers), metrics.clone());
    let guests = Arc::new(Guests::new(key, config.tenants.default.clone(), clock.clone()));
    let (rebind_clock, rebind_metrics) = (clock.clone(), metrics.clone());
    let rebinds =
        Rebinds::new(&config, directory.clone(), sessions.clone(), guests.clone(), true, rebind_clock, rebind_metrics);
    App {
        sessions,
        bootstrap: Arc::new(bootstrap.unwrap()),
        directory,
        hears_of_ends: false,
        guests,
        rebinds: Arc::new(rebinds.unwrap()),
        rebind_fields: Arc::new(config.rebind.fields.clone()),
        clock: clock.clone(),
        providers: Arc::new(Providers::new(&config, &clock, &metrics).unwrap()),
        limits: Arc::new(Limits::new(&limits(), &clock, &metrics)),
        metrics,
        random,
    }
}

fn limits() -> config::Limits {
    let second = Duration::from_secs(1);
    config::Limits {
        workers: 0,
        max_connections: 0,
        header_timeout: second,
        header_bytes_max: 0,
        body_bytes_max: 0,
        body_read_timeout: second,
        write_timeout: second,
        keepalive: second,
        h2c: false,
        anonymous_per_minute: 1,
        exchange_per_minute: 1,
    }
}

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

async fn send(app: App, request: Request<Body>) -> (u16, HeaderMap, String) {
    let (head, body) = router(app).oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (head.status.as_u16(), head.headers, String::from_utf8(body.to_vec()).unwrap())
}

async fn refusal(request: Request<Body>) -> (u16, String) {
    let (status, headers, body) = send(app(), request).await;
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
        let (_, headers, _) = send(app(), request(method, path)).await;
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
    let (_, headers, _) = send(app(), with_token("POST", "/auth/session", "opaque")).await;
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
async fn a_guest_must_name_a_device_whatever_its_authorization_says() {
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
    let app = app();
    let client = ClientAddr("192.0.2.1".parse().unwrap());
    app.limits.anonymous.check(&Network::of(Some(client))).unwrap();
    let mut second = with_json(r#"{"device_id":"x"}"#);
    second.extensions_mut().insert(client);
    let (status, headers, body) = send(app.clone(), second).await;
    assert_eq!((status, body), detail(429, "Too many requests"));
    assert_eq!(headers[RETRY_AFTER], "60");
    let mut malformed = with_json("{}");
    malformed.extensions_mut().insert(client);
    assert_eq!(send(app.clone(), malformed).await.0, 422);
    assert_eq!(app.metrics.rate_limited.with_label_values(&["anonymous"]).get(), 1);
    assert_eq!(app.metrics.login_attempts.with_label_values(&["anonymous", "rate_limited"]).get(), 1);
    assert_eq!(app.metrics.login_attempts.with_label_values(&["anonymous", "unprocessable"]).get(), 1);
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
        assert_eq!(send(app(), request(method, path)).await.1[ALLOW], allowed, "{method} {path}");
    }
}

#[tokio::test]
async fn head_answers_as_get_without_a_body() {
    for path in ["/auth/session", "/auth/x"] {
        let (get, _, body) = send(app(), request("GET", path)).await;
        let (head, headers, empty) = send(app(), request("HEAD", path)).await;
        assert_eq!(headers[CONTENT_LENGTH], body.len().to_string(), "{path}");
        assert_eq!((head, empty.as_str()), (get, ""), "{path}");
        assert_eq!(headers[CONTENT_TYPE], "application/json");
    }
}

#[tokio::test]
async fn options_needs_no_token() {
    let (status, headers, body) = send(app(), request("OPTIONS", "/auth/session")).await;
    assert_eq!((status, body.as_str()), (204, ""));
    assert_eq!(headers[ALLOW], "POST,DELETE");
    assert!(!headers.contains_key(CONTENT_TYPE), "{headers:?}");
}

#[tokio::test]
async fn the_request_keeps_the_id_that_the_proxy_gave_it() {
    let mut named = request("GET", "/auth/x");
    named.extensions_mut().insert(RequestId::from(0xfeed));
    assert_eq!(send(app(), named).await.1["x-request-id"], "000000000000feed");
}

#[tokio::test]
async fn attempts_are_counted_by_outcome_from_zero() {
    let app = app();
    send(app.clone(), with_token("POST", "/auth/session", "opaque")).await;
    let attempts = |method, outcome| app.metrics.login_attempts.with_label_values(&[method, outcome]).get();
    assert_eq!(attempts("clerk", "invalid_token"), 1);
    let text = app.metrics.render().unwrap();
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
