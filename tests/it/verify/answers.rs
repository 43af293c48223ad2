//! What an answer says: who calls, or exactly what the guard says; and never nothing about identity.

use doorward::time::{Clock, SystemClock};

use super::{ENABLED, IDENTITY, ask, assert_allows, assert_refuses};
use crate::support::client::sign_in_guest;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::redis::Redis;
use crate::support::stage::{Stage, USER};
use crate::support::upstream::Upstream;

#[tokio::test]
async fn each_refusal_is_the_guards_own() {
    let stage = Stage::start(ENABLED).await;
    let ended = sign_in_guest(&stage.doorward, "device").await;
    let gone = stage.doorward.client().delete("/auth/session").bearer(&ended).send().await;
    assert_eq!(gone.status, 200);
    let bearer = |token: &str| format!("Authorization: Bearer {token}");
    let doubled = format!("{}\r\n{}", stage.user_field(), stage.user_field());
    let cookies = format!("Cookie: session={0}; session={0}", stage.user);
    let foreign = format!("Cookie: session={}\r\nOrigin: https://evil.example", stage.user);
    for (start, field) in [
        ("GET /app", "X-Nothing: 1".to_owned()),
        ("GET /app", "Authorization: Basic YTpi".to_owned()),
        ("GET /app", bearer("junk")),
        ("GET /app", bearer("a.b.c")),
        ("GET /app", bearer(&ended)),
        ("GET /app", doubled),
        ("GET /app", cookies),
        ("GET /optional/a", bearer("junk")),
        ("GET /users/a", stage.guest_field()),
        ("GET /admins/a", stage.user_field()),
        ("POST /app", foreign),
    ] {
        let direct = stage.request(start, &[&field]).await.response.expect("an answer");
        assert!([401, 403].contains(&direct.status), "{field}: {direct:?}");
        let (method, path) = start.split_once(' ').expect("two words");
        let answer = ask(&stage, &format!("{method} /_doorward/verify{path}"), &[&field]).await;
        assert_refuses(&answer, direct.status, direct.json()["detail"].as_str().expect("text"));
        for name in ["www-authenticate", "retry-after", "x-content-type-options"] {
            assert_eq!(answer.headers.all(name), direct.headers.all(name), "{field}: {name}");
        }
    }
}

#[tokio::test]
async fn every_identity_header_is_named_and_empty_when_there_is_nothing_to_say() {
    let all = "identity_headers: { session_id: true, roles: true, kind: true, actor: true }";
    for (config, configured) in [(ENABLED.to_owned(), false), (format!("{ENABLED}\n{all}"), true)] {
        let stage = Stage::start(&config).await;
        // What the asking proxy passes on of what a client made up is no part of the answer.
        let forged: Vec<String> = IDENTITY.iter().map(|name| format!("{name}: mallory")).collect();
        for (path, field) in [
            ("/open/a", stage.user_field()),
            ("/optional/a", "X-Nothing: 1".to_owned()),
            ("/app", stage.user_field()),
            ("/app", stage.guest_field()),
        ] {
            let fields = [forged.as_slice(), std::slice::from_ref(&field)].concat();
            let answer = ask(&stage, &format!("GET /_doorward/verify{path}"), &fields).await;
            assert_eq!(answer.status, 200);
            let value = |name| match answer.headers.all(name).as_slice() {
                [value] => (*value).to_owned(),
                other => panic!("{name} once, not {other:?}"),
            };
            assert!(IDENTITY.iter().all(|name| value(name) != "mallory"), "{answer:?}");
            let (named, user) = (path == "/app", field == stage.user_field());
            assert_eq!(value("x-user-id").is_empty(), !named);
            assert_eq!(value("x-client-id"), if named { "default" } else { "" });
            assert_eq!(value("x-session-id").is_empty(), !(named && configured));
            let kind = if user { "user" } else { "anonymous" };
            assert_eq!(value("x-user-kind"), if named && configured { kind } else { "" });
            assert_eq!((value("x-user-roles"), value("x-actor-id")), (String::new(), String::new()));
        }
        let metrics = stage.doorward.admin_get("/metrics").await.text();
        assert!(metrics.contains("doorward_identity_headers_stripped_total{header=\"x-user-id\"} 4\n"), "{metrics}");
    }
}

#[tokio::test]
async fn a_spelling_that_an_answer_cannot_replace_is_refused() {
    let stage = Stage::start(ENABLED).await;
    for name in [
        "X_User_ID",
        "x_client_id",
        "X-User_ID",
        "X.User.ID",
        "x!user!id",
        "XUserID",
        "x--client--id",
        "X_User_Roles",
        "X_Actor_ID",
    ] {
        for path in ["/app", "/open/a"] {
            let fields = [format!("{name}: mallory"), stage.user_field()];
            let answer = ask(&stage, &format!("GET /_doorward/verify{path}"), &fields).await;
            assert_refuses(&answer, 403, "Insufficient permissions");
        }
    }
    let fields = ["X-USER-ID: mallory".to_owned(), "x-client-id: evil".to_owned(), stage.user_field()];
    assert_allows(&ask(&stage, "GET /_doorward/verify/app", &fields).await, USER, "default");
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    let series = "doorward_auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"identity_header\"} 18\n";
    assert!(metrics.contains(series), "{metrics}");
}

#[tokio::test]
async fn a_cookie_authorises_unsafe_requests_only_from_the_same_origin() {
    let stage = Stage::start(&format!("{ENABLED}\ncookie: {{ allowed_origins: ['https://spa.example'] }}")).await;
    let cookie = format!("Cookie: session={}", stage.user);
    let ask_about = async |method: &str, fields: &[&str]| {
        let told = [format!("X-Forwarded-Method: {method}"), "X-Forwarded-Uri: /app".to_owned(), cookie.clone()];
        let fields: Vec<String> = told.into_iter().chain(fields.iter().map(|field| (*field).to_owned())).collect();
        ask(&stage, "GET /_doorward/verify", &fields).await.status
    };
    let host = "X-Forwarded-Host: app.example";
    let url = "X-Original-URL: https://app.example/app";
    for method in ["POST", "DELETE", "PROPFIND"] {
        assert_eq!(ask_about(method, &[host, "Origin: https://app.example"]).await, 200);
        assert_eq!(ask_about(method, &["X-Forwarded-Host: APP.example", "Origin: https://app.example"]).await, 200);
        assert_eq!(ask_about(method, &[url, "Origin: https://app.example"]).await, 200);
        assert_eq!(ask_about(method, &[host, url, "Origin: https://app.example"]).await, 200);
        assert_eq!(ask_about(method, &[&format!("Origin: http://{}", stage.host())]).await, 200, "without one, Host");
        assert_eq!(ask_about(method, &[host, "Origin: https://spa.example"]).await, 200);
        assert_eq!(ask_about(method, &[host, "Sec-Fetch-Site: same-origin"]).await, 200);
        assert_eq!(ask_about(method, &[host]).await, 403);
        assert_eq!(ask_about(method, &[host, "Origin: https://evil.example"]).await, 403);
        assert_eq!(ask_about(method, &[host, &format!("Origin: http://{}", stage.host())]).await, 403);
        assert_eq!(ask_about(method, &[host, "Sec-Fetch-Site: cross-site"]).await, 403);
    }
    let evil = "Origin: https://evil.example";
    assert_eq!(ask_about("GET", &[host, evil]).await, 200, "a GET that changes nothing");
    // Proxies drop `Upgrade` on the way to here; a handshake is one all the same.
    for field in ["Upgrade: websocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Version: 13"] {
        assert_eq!(ask_about("GET", &[host, evil, field]).await, 403, "{field}");
        assert_eq!(ask_about("GET", &[host, "Origin: https://app.example", field]).await, 200, "{field}");
    }
}

#[tokio::test]
async fn a_question_about_a_stream_begins_a_new_lifetime_of_the_session() {
    let routes = "routes: [{ path: /ws, auth: required, stream: true }, { path: '/**', auth: required }]";
    let config = format!("{ENABLED}\n{routes}\nsessions: {{ ttl: 5s }}");
    let doorward = Doorward::builder().config(&config).start().await;
    let (streaming, other) = (sign_in_guest(&doorward, "streaming").await, sign_in_guest(&doorward, "other").await);
    let clock = SystemClock::new();
    let ask = async |path: &str, token: &str| {
        doorward.client().get(&format!("/_doorward/verify{path}")).bearer(token).send().await
    };
    let old_enough = async || (clock.monotonic().0 >= 3_000).then_some(());
    eventually("the sessions to be three seconds old", old_enough).await;
    assert_eq!(ask("/ws", &streaming).await.status, 200);
    assert_eq!(ask("/app", &other).await.status, 200);
    for (token, outlived) in [(&other, Some(&streaming)), (&streaming, None)] {
        let over = async || {
            let answer = ask("/app", token).await;
            (answer.status != 200).then_some(answer)
        };
        assert_refuses(&eventually("the session to expire", over).await, 401, "Token expired");
        if let Some(outlived) = outlived {
            assert_eq!(ask("/app", outlived).await.status, 200, "it has a second lifetime");
        }
    }
}

#[tokio::test]
async fn what_ended_is_refused_at_once_and_an_outage_is_no_refusal() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let builder = || Doorward::builder().store(&redis.url()).upstream(upstream.url()).config(ENABLED);
    let (asked, other) = (builder().start().await, builder().start().await);
    let ask = async |token: &str| asked.client().get("/_doorward/verify/app").bearer(token).send().await;
    let (ended, kept) = (sign_in_guest(&other, "device").await, sign_in_guest(&other, "device").await);
    for token in [&ended, &kept] {
        assert_eq!(ask(token).await.status, 200);
    }
    assert_eq!(other.client().delete("/auth/session").bearer(&ended).send().await.status, 200);
    let refused = async || {
        let answer = ask(&ended).await;
        (answer.status != 200).then_some(answer)
    };
    let answer = eventually("the revocation to be heard", refused).await;
    assert_refuses(&answer, 401, "Invalid token: session revoked");
    assert_eq!(ask(&kept).await.status, 200);
    let cold = sign_in_guest(&other, "device").await;
    redis.pause();
    let answer = ask(&cold).await;
    redis.resume();
    assert_refuses(&answer, 503, "Session store unavailable");
    assert_eq!(answer.headers.all("retry-after"), ["3"]);
    assert_eq!(answer.headers.all("www-authenticate"), Vec::<&str>::new());
    assert_eq!(upstream.count(), 0);
}
