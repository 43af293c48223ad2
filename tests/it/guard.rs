//! The guard: who passes, what the application is told, and what is said to those who do not pass.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use doorward::model::{TokenKey, TokenKeys, TokenKind};
use doorward::time::{Clock, SystemClock, Timestamp};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::support::client::{RawConnection, Response, sign_in, sign_in_guest};
use crate::support::dice::Dice;
use crate::support::doorward::Doorward;
use crate::support::redis::Redis;
use crate::support::stage::{Stage, USER};
use crate::support::tokens::stray;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};

/// The key that [`Doorward`] gets in tests with Redis.
const REDIS_SECRET: &str = "integration-tests-only-0123456789abcdef";

/// How many garbage tokens are sent; a bench with more is not a test.
const GARBAGE: usize = 20_000;

/// What goes on by itself, whoever calls: the heart beats through these commands.
const HEARTBEAT: [&str; 3] = ["hmget", "publish", "role"];

fn keys_of(secret: &str) -> TokenKeys {
    TokenKeys::new("dw_".to_owned(), TokenKey::new(1, secret.as_bytes()).expect("long enough"), Vec::new())
}

fn mint(expires_at: Timestamp) -> String {
    stray(&keys_of(REDIS_SECRET), TokenKind::Access, expires_at)
}

fn in_an_hour() -> Timestamp {
    SystemClock::new().now().plus(Duration::from_hours(1))
}

/// Fails the test unless `response` is exactly what the guard says with this `detail`.
fn assert_says(response: &Response, status: u16, detail: &str, challenge: Option<&str>) {
    assert_eq!(response.status, status, "{response:?}");
    assert_eq!(response.text(), format!(r#"{{"detail":"{detail}"}}"#));
    assert_eq!(response.headers.all("www-authenticate"), challenge.into_iter().collect::<Vec<_>>());
    assert_eq!(response.headers.all("content-type"), ["application/json"]);
    assert_eq!(response.headers.all("cache-control"), ["no-store"]);
    assert_eq!(response.headers.all("x-content-type-options"), ["nosniff"]);
    let id = response.header("x-request-id").unwrap_or_default();
    assert!(id.len() == 16 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    assert_eq!(response.headers.all("set-cookie"), Vec::<&str>::new(), "no refusal deletes a cookie");
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

#[tokio::test]
async fn each_refusal_has_its_exact_answer_and_leaves_the_connection_usable() {
    let redis = Redis::start().await;
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().store(&redis.url()).upstream(upstream.url()).start().await;
    let guest = sign_in_guest(&doorward, "device").await;
    let ended = sign_in_guest(&doorward, "device").await;
    let gone = doorward.client().delete("/auth/session").bearer(&ended).send().await;
    assert_eq!(gone.status, 200);
    let past = Timestamp(0).plus(Duration::from_secs(1_700_000_000));
    let forged = format!("dw_{}", URL_SAFE_NO_PAD.encode([0x11; 54]));
    let (missing, bad) = (Some("Bearer"), Some("Bearer error=\"invalid_token\""));
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    let before = upstream.count();
    for (field, detail, challenge) in [
        ("X-Nothing: 1".to_owned(), "Missing Bearer token", missing),
        ("Authorization: Basic YTpi".to_owned(), "Missing Bearer token", missing),
        ("Cookie: session=".to_owned(), "Missing Bearer token", missing),
        (bearer("junk"), "Invalid token: malformed", bad),
        ("Cookie: session=junk".to_owned(), "Invalid token: malformed", bad),
        (bearer("a.b.c"), "Invalid token: expected a session token", bad),
        (bearer(&forged), "Invalid token: unknown session", bad),
        (bearer(&mint(past)), "Token expired", bad),
        (bearer(&mint(in_an_hour())), "Invalid token: session revoked", bad),
        (bearer(&ended), "Invalid token: session revoked", bad),
    ] {
        for start in ["GET /app", "DELETE /app", "OPTIONS /app", "HEAD /app"] {
            let head = format!("{start} HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: same-origin\r\n{field}\r\n\r\n");
            connection.write(head).await;
            if start.starts_with("HEAD") {
                let response = connection.head_response().await.expect("the connection stays open");
                assert_eq!((response.status, response.headers.all("www-authenticate").len()), (401, 1));
                let length = format!(r#"{{"detail":"{detail}"}}"#).len().to_string();
                assert_eq!(response.header("content-length"), Some(length.as_str()));
            } else {
                let response = connection.response().await.expect("the connection stays open");
                assert_says(&response, 401, detail, challenge);
            }
        }
    }
    assert_eq!(upstream.count(), before, "nobody who was refused reached the application");
    connection.write(format!("GET /app HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", bearer(&guest))).await;
    assert_eq!(connection.response().await.map(|response| response.status), Some(200), "on the same connection");
    redis.pause();
    let cold = format!("GET /app HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", bearer(&mint(in_an_hour())));
    connection.write(cold).await;
    let response = connection.response().await.expect("an answer");
    redis.resume();
    assert_says(&response, 503, "Session store unavailable", None);
    assert_eq!(response.headers.all("retry-after"), ["3"]);
}

#[tokio::test]
async fn a_refused_request_with_a_body_ends_its_connection() {
    let stage = Stage::start("").await;
    let mut connection = RawConnection::open(stage.doorward.proxy_addr()).await;
    let inner = String::from_utf8(stage.head("GET /open/smuggled", &[""; 0])).expect("text");
    let length = format!("Content-Length: {}", inner.len());
    let head = stage.head("POST /app", &[length]);
    connection.write([head, inner.into_bytes()].concat()).await;
    let response = connection.response().await.expect("an answer");
    assert_says(&response, 401, "Missing Bearer token", Some("Bearer"));
    connection.closed().await;
    assert_eq!(stage.upstream.count(), 0, "the body was not read as a request");
}

#[tokio::test]
async fn a_bad_header_is_not_rescued_by_a_good_cookie() {
    let stage = Stage::start("").await;
    let cookie = format!("Cookie: session={}", stage.user);
    for header in ["Bearer junk", "Bearer a.b.c", "Bearer dw_x", "Bearer a b"] {
        let fields = [format!("Authorization: {header}"), cookie.clone()];
        for path in ["/app", "/optional/a"] {
            let asked = stage.request(&format!("GET {path}"), &fields).await;
            assert!(asked.status() == 401 && asked.seen.is_empty(), "{header}: {asked:?}");
        }
    }
    // Another scheme is no token of ours, so the cookie is the credential.
    let fields = ["Authorization: Basic YTpi".to_owned(), cookie];
    assert_eq!(stage.request("GET /app", &fields).await.forwarded().header("x-user-id"), Some(USER));
}

#[tokio::test]
async fn optional_routes_name_whoever_has_a_session_and_refuse_bad_credentials() {
    let stage = Stage::start("").await;
    let seen = stage.request("GET /optional/a", &[""; 0]).await;
    assert_eq!((seen.forwarded().header("x-user-id"), seen.forwarded().header("x-client-id")), (None, None));
    for field in [stage.user_field(), format!("Cookie: session={}", stage.user)] {
        let asked = stage.request("GET /optional/a", &[field]).await;
        assert_eq!(asked.forwarded().headers.all("x-user-id"), [USER]);
        assert_eq!(asked.forwarded().headers.all("x-client-id"), ["default"]);
    }
    stage.request("GET /optional/a", &[bearer("junk")]).await.refused(401, "Invalid token: malformed");
}

#[tokio::test]
async fn guests_and_roles_are_admitted_as_the_route_says() {
    let stage = Stage::start("").await;
    let mut connection = RawConnection::open(stage.doorward.proxy_addr()).await;
    for (path, field) in [("/users/a", stage.guest_field()), ("/admins/a", stage.user_field())] {
        connection.write(stage.head(&format!("GET {path}"), &[field])).await;
        let response = connection.response().await.expect("the connection stays open");
        assert_says(&response, 403, "Insufficient permissions", None);
    }
    assert_eq!(stage.upstream.count(), 0);
    stage.request("GET /users/a", &[stage.user_field()]).await.forwarded();
    stage.request("GET /app", &[stage.guest_field()]).await.forwarded();
}

#[tokio::test]
async fn identity_headers_are_switched_one_by_one_and_come_exactly_once() {
    let optional = ["x-session-id", "x-user-roles", "x-user-kind", "x-actor-id"];
    for (config, sent) in [
        ("identity_headers: { session_id: true }", &optional[..1]),
        ("identity_headers: { roles: true }", &optional[1..2]),
        ("identity_headers: { kind: true }", &optional[2..3]),
        ("identity_headers: { session_id: true, roles: true, kind: true, actor: true }", &optional[..3]),
    ] {
        let stage = Stage::start(config).await;
        let jwt = stage.idp.mint(&serde_json::json!({"sub": "user_7", "o": {"id": "org_7", "rol": "admin"}}));
        let response = stage.doorward.client().post("/auth/session").bearer(&jwt).send().await;
        let token = response.json()["token"].as_str().expect("a token").to_owned();
        let forged = optional.map(|name| format!("{name}: mallory"));
        let fields = [forged.as_slice(), &[bearer(&token), "X-User-ID: mallory".to_owned()]].concat();
        let asked = stage.request("GET /admins/a", &fields).await;
        let seen = asked.forwarded();
        assert_eq!(seen.headers.all("x-user-id"), ["user_7"]);
        assert_eq!(seen.headers.all("x-client-id"), ["org_7"]);
        for name in optional {
            let values = seen.headers.all(name);
            assert_eq!(values.len(), usize::from(sent.contains(&name)), "{config}: {name}");
            match (name, values.first()) {
                ("x-user-roles", Some(roles)) => assert_eq!(*roles, "org:admin"),
                ("x-user-kind", Some(kind)) => assert_eq!(*kind, "user"),
                ("x-session-id", Some(id)) => assert!(uuid::Uuid::parse_str(id).is_ok(), "{id}"),
                _ => {}
            }
        }
        let guest = stage.request("GET /app", &[stage.guest_field()]).await;
        let roles = guest.forwarded().headers.all("x-user-roles");
        assert_eq!(roles, vec![""; usize::from(sent.contains(&"x-user-roles"))], "no role is an empty list");
        assert!(guest.forwarded().headers.all("x-user-kind").iter().all(|kind| *kind == "anonymous"));
    }
}

#[tokio::test]
async fn credentials_are_removed_unless_the_route_keeps_them_and_other_cookies_stay() {
    let stage = Stage::start("").await;
    let fields = [stage.user_field(), format!("Cookie: a=1; session={}; b=2", stage.guest)];
    for path in ["/app", "/optional/a", "/open/a"] {
        let asked = stage.request(&format!("GET {path}"), &fields).await;
        assert_eq!(asked.forwarded().headers.all("authorization"), Vec::<&str>::new(), "{path}");
        assert_eq!(asked.forwarded().headers.all("cookie"), ["a=1; b=2"], "{path}");
    }
    for path in ["/kept/a", "/open-kept/a"] {
        let asked = stage.request(&format!("GET {path}"), &fields).await;
        assert_eq!(asked.forwarded().headers.all("authorization"), [format!("Bearer {}", stage.user)], "{path}");
        let cookie = format!("a=1; session={}; b=2", stage.guest);
        assert_eq!(asked.forwarded().headers.all("cookie"), [cookie], "{path}");
        let expected: &[&str] = if path == "/kept/a" { &[USER] } else { &[] };
        assert_eq!(asked.forwarded().headers.all("x-user-id"), expected);
    }
    let alone = stage.request("GET /app", &[format!("Cookie: session={}", stage.user)]).await;
    assert_eq!(alone.forwarded().headers.all("cookie"), Vec::<&str>::new());
    let elsewhere = [stage.user_field(), "Cookie: session2=x; xsession=y; SESSION=z".to_owned()];
    let asked = stage.request("GET /app", &elsewhere).await;
    assert_eq!(asked.forwarded().headers.all("cookie"), ["session2=x; xsession=y; SESSION=z"]);
}

#[tokio::test]
async fn a_cookie_authorises_unsafe_methods_only_from_the_same_origin() {
    let stage = Stage::start("cookie: { allowed_origins: ['https://app.example.com'] }").await;
    let own = format!("Origin: http://{}", stage.host());
    let cookie = format!("Cookie: session={}", stage.user);
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ];
    let good = [own.as_str(), "Origin: https://app.example.com", "Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: none"];
    let doubled = format!("{own}\r\n{own}");
    let port = format!("Origin: http://{}0", stage.host());
    let evil_own = format!("Origin: https://evil.example\r\n{own}");
    let bad = [
        "X-Nothing: 1",
        "Origin: null",
        "Origin: https://evil.example",
        "Origin: https://evil.example\r\nSec-Fetch-Site: same-origin",
        "Origin: https://app.example.com.evil.example",
        "Origin: http://app.example.com",
        "Origin: https://app.example.com:8443",
        "Origin: https://xapp.example.com",
        "Origin:",
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
        "Sec-Fetch-Site: same-origin\r\nSec-Fetch-Site: cross-site",
        "Referer: https://app.example.com/",
        &doubled,
        &port,
        &evil_own,
    ];
    let unsafe_ones = ["POST /app", "PUT /app", "PATCH /app", "DELETE /app", "POST /optional/a", "PROPFIND /app"];
    for start in unsafe_ones {
        for origin in good {
            let asked = stage.request(start, &[&cookie, origin]).await;
            assert_eq!(asked.forwarded().header("x-user-id"), Some(USER), "{start} {origin}");
        }
        for origin in bad {
            stage.request(start, &[&cookie, origin]).await.refused(403, "Insufficient permissions");
            stage.request(start, &[&stage.user_field(), origin]).await.forwarded();
        }
    }
    for start in ["GET /app", "HEAD /app", "OPTIONS /app"] {
        for origin in bad {
            stage.request(start, &[&cookie, origin]).await.forwarded();
        }
    }
    for origin in bad {
        let fields = [upgrade.as_slice(), &[&cookie, origin]].concat();
        stage.request("GET /ws", &fields).await.refused(403, "Insufficient permissions");
        let with_bearer = stage.user_field();
        let fields = [upgrade.as_slice(), &[&with_bearer, origin]].concat();
        assert_eq!(stage.request("GET /ws", &fields).await.status(), 101, "{origin}");
    }
    for origin in good {
        let fields = [upgrade.as_slice(), &[&cookie, origin]].concat();
        assert_eq!(stage.request("GET /ws", &fields).await.status(), 101, "{origin}");
    }
}

#[tokio::test]
async fn a_cookie_authorises_unsafe_methods_from_the_same_origin_over_http2_too() {
    let stage = Stage::start("").await;
    let cookie = format!("session={}", stage.user);
    let own = format!("http://{}", stage.host());
    for (origin, passes) in [(own.as_str(), true), ("https://evil.example", false)] {
        let fields: [(&str, &[u8]); 2] = [("cookie", cookie.as_bytes()), ("origin", origin.as_bytes())];
        let asked = stage.h2_method(http::Method::POST, "/app", &fields).await;
        if passes {
            assert_eq!(asked.forwarded().header("x-user-id"), Some(USER));
        } else {
            asked.refused(403, "Insufficient permissions");
        }
    }
}

#[tokio::test]
async fn without_cookies_enabled_a_cookie_is_no_credential() {
    let stage = Stage::start("cookie: { enabled: false }").await;
    let cookie = [format!("Cookie: session={}; a=1", stage.user)];
    stage.request("GET /app", &cookie).await.refused(401, "Missing Bearer token");
    assert_eq!(stage.request("GET /optional/a", &cookie).await.forwarded().header("x-user-id"), None);
}

#[tokio::test]
async fn a_token_stays_good_while_its_key_is_listed_and_no_longer() {
    let config = |keys: &[u8]| {
        let keys: Vec<String> = keys
            .iter()
            .map(|id| format!("{{ id: {id}, secret: 'key-number-{id}-of-at-least-32-bytes-in-all' }}"))
            .collect();
        format!("sessions: {{ token: {{ keys: [{}] }} }}", keys.join(", "))
    };
    let stage = Stage::start(&config(&[1])).await;
    let key_of = |token: &str| URL_SAFE_NO_PAD.decode(&token["dw_".len()..]).expect("base64url")[1];
    assert_eq!(key_of(&stage.user), 1);
    // The stage's own overlay is the third file: the base and the routes come before.
    let reload = |keys: &[u8]| {
        std::fs::write(stage.doorward.directory().join("2.yaml"), config(keys)).expect("the directory is writable");
        stage.doorward.signal("HUP");
    };
    reload(&[2, 1]);
    let newer = eventually("tokens of the new key", async || {
        let token = sign_in_guest(&stage.doorward, "device").await;
        (key_of(&token) == 2).then_some(token)
    })
    .await;
    assert_eq!(stage.request("GET /app", &[stage.user_field()]).await.forwarded().header("x-user-id"), Some(USER));
    reload(&[2]);
    let refused = eventually("the old key to be gone", async || {
        let asked = stage.request("GET /app", &[stage.user_field()]).await;
        (asked.status() != 200).then_some(asked)
    })
    .await;
    refused.refused(401, "Invalid token: unknown session");
    stage.request("GET /app", &[bearer(&newer)]).await.forwarded();
}

#[tokio::test]
async fn fifty_callers_with_one_cold_token_cost_one_question_to_the_store() {
    let redis = Redis::start().await;
    let upstream = Upstream::start().await;
    let first = Doorward::builder().store(&redis.url()).upstream(upstream.url()).start().await;
    let second = Doorward::builder().store(&redis.url()).upstream(upstream.url()).start().await;
    for round in 0..4 {
        let token = sign_in_guest(&first, &format!("device-{round}")).await;
        let mut connections = Vec::new();
        for _ in 0..50 {
            connections.push(RawConnection::open(second.proxy_addr()).await);
        }
        let before = redis.calls().await;
        let head = format!("GET /app HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", bearer(&token));
        let asking = connections.iter_mut().map(|connection| async {
            connection.write(&head).await;
            connection.response().await.map(|response| response.status)
        });
        let answers = futures_util::future::join_all(asking).await;
        assert_eq!(answers, vec![Some(200); 50]);
        let since = redis.calls_since(&before).await;
        assert_eq!(since.of("get"), 1, "{since:?}");
    }
}

#[tokio::test]
async fn garbage_tokens_cost_the_store_nothing() {
    let redis = Redis::start().await;
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().store(&redis.url()).upstream(upstream.url()).start().await;
    let before = redis.calls().await;
    let mut senders = JoinSet::new();
    for sender in 0..8_u64 {
        let address = doorward.proxy_addr();
        senders.spawn(async move {
            let mut dice = Dice::new(0x9E37_79B9 + sender);
            let mut connection = RawConnection::open(address).await;
            let mut seen = BTreeSet::new();
            for _ in 0..GARBAGE / 8 {
                let mut bytes: Vec<u8> = (0..54).map(|_| dice.byte()).collect();
                // Most of them get as far as the MAC: the right version and kind, and a key that exists.
                bytes[..2].copy_from_slice(&[0x11, 1]);
                bytes[18..22].copy_from_slice(&[0xFF; 4]);
                let token = match dice.below(8) {
                    0 => URL_SAFE_NO_PAD.encode(&bytes),
                    1 => format!("dw_{}", URL_SAFE_NO_PAD.encode(&bytes[..dice.below(54)])),
                    2 => "a.b.c".to_owned(),
                    _ => format!("dw_{}", URL_SAFE_NO_PAD.encode(&bytes)),
                };
                connection.write(format!("GET /app HTTP/1.1\r\nHost: x\r\n{}\r\n\r\n", bearer(&token))).await;
                let response = connection.response().await.expect("the connection stays open");
                seen.insert((response.status, response.text()));
            }
            seen
        });
    }
    let mut answers = BTreeSet::new();
    while let Some(seen) = senders.join_next().await {
        answers.extend(seen.expect("no sender panics"));
    }
    let expected = ["expected a session token", "malformed", "unknown session"];
    let expected = expected.map(|reason| (401, format!(r#"{{"detail":"Invalid token: {reason}"}}"#)));
    assert_eq!(answers, BTreeSet::from(expected));
    let since = redis.calls_since(&before).await;
    assert!(since.names().all(|name| HEARTBEAT.contains(&name)), "{since:?}");
    assert_eq!(upstream.count(), 0);
}

/// Returns a request head, spoilt in one way or several.
fn spoilt_request(dice: &mut Dice, token: &str) -> Vec<u8> {
    let methods: [&[u8]; 9] = [b"GET", b"POST", b"DELETE", b"OPTIONS", b"CONNECT", b"PRI", b"get", b"", b"\xff"];
    let paths: [&[u8]; 12] = [
        b"/app",
        b"/auth/session",
        b"/auth/anonymous",
        b"/auth/revoke",
        b"/auth/",
        b"/open/a",
        b"/optional/%zz",
        b"*",
        b"",
        b"http://[::1/app",
        b"/\xc3\xa9",
        b"//",
    ];
    let versions: [&[u8]; 6] = [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/2.0", b"HTTP/9.9", b"", b"HTTP/1.1 x"];
    let owned = format!("Authorization: Bearer {token}");
    let fields: [&[u8]; 18] = [
        b"Host: x",
        b"Host: x\r\nHost: y",
        b"Content-Length: 5",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Connection: upgrade",
        b"Upgrade: websocket",
        b"Expect: 100-continue",
        b"Authorization: Bearer \xff\xfe",
        b"Cookie: session=\x80; session",
        b"Content-Type: application/json",
        b": empty",
        b" folded",
        b"X: \x01\x02",
        b"No-Colon",
        owned.as_bytes(),
    ];
    let bodies: [&[u8]; 10] = [
        b"",
        b"{}",
        b"{\"device_id\":",
        b"{\"device_id\":1e999}",
        b"[[[[[[[[[[[[[[[[",
        b"5\r\nabc",
        b"zz\r\n\r\n",
        b"0\r\n\r\n",
        b"\0\0\0",
        b"{\"device_id\":\"\\ud800\",\"device_id\":null}",
    ];
    let mut bytes = [dice.pick(&methods), b" ", dice.pick(&paths), b" ", dice.pick(&versions), b"\r\n"].concat();
    for _ in 0..dice.below(6) {
        bytes.extend([dice.pick(&fields), dice.pick::<&[u8]>(&[b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"])].concat());
    }
    bytes.extend(dice.pick::<&[u8]>(&[b"\r\n", b"\r\n", b"\r\n", b"\n", b""]));
    bytes.extend(dice.pick(&bodies));
    for _ in 0..dice.below(3) {
        let at = dice.below(bytes.len());
        bytes[at] = dice.byte();
    }
    if dice.below(20) == 0 {
        bytes = (0..dice.below(300)).map(|_| dice.byte()).collect();
    }
    if dice.below(20) == 0 {
        bytes.splice(0..0, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".iter().copied());
    }
    bytes
}

#[tokio::test]
async fn no_malformed_request_panics_or_hangs_the_process() {
    let stage = Stage::start("").await;
    let mut senders = JoinSet::new();
    for sender in 0..8_u64 {
        let (address, token) = (stage.doorward.proxy_addr(), stage.user.clone());
        senders.spawn(async move {
            let mut dice = Dice::new(0xF0_55ED + sender);
            for _ in 0..250 {
                let bytes = spoilt_request(&mut dice, &token);
                let what = format!("an answer or an end after {:?}", String::from_utf8_lossy(&bytes));
                let mut stream = TcpStream::connect(address).await.expect("the server listens");
                // Either may fail: the server is free to close at the first wrong byte.
                let _ = stream.write_all(&bytes).await;
                let _ = stream.shutdown().await;
                let mut answer = Vec::new();
                let _ = within(&what, stream.read_to_end(&mut answer)).await;
            }
        });
    }
    while let Some(sent) = senders.join_next().await {
        sent.expect("every request is answered or its connection closed");
    }
    assert!(!stage.doorward.logs().contains("panicked"));
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    let panics = metrics.lines().find(|line| line.starts_with("doorward_panics_total"));
    assert_eq!(panics, Some("doorward_panics_total 0"));
    let token = sign_in(&stage.doorward, &stage.idp, USER).await;
    assert_eq!(stage.request("GET /app", &[bearer(&token)]).await.forwarded().header("x-user-id"), Some(USER));
}
