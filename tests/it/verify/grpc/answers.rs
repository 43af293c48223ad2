//! What Envoy is told.

use std::collections::HashMap;

use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::service::auth::v3::CheckRequest;
use envoy_types::pb::envoy::service::auth::v3::attribute_context::HttpRequest;

use super::{Asked, about, allowed, assert_same, denied, fields, forwarded, question, status_of};
use crate::support::client::sign_in_guest;
use crate::support::stage::USER;
use crate::verify::{DECISIONS, IDENTITY};

#[tokio::test]
async fn the_rules_decide_about_the_original_request() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let token = format!("Bearer {}", stage.user);
    let (nobody, user): (&[_], &[_]) = (&[], &[("authorization", token.as_str())]);
    let unreadable = [
        ("GET", "/open/../app", 400, 400),
        ("GET", "/open//a", 400, 400),
        ("GET", "/open%2f..%2fapp", 400, 400),
        ("GET", "/open/a#b", 400, 400),
        ("GET", "*", 400, 400),
        ("GET", "http://a/open/a", 400, 400),
        ("GET", "", 400, 400),
        ("", "/open/a", 400, 400),
        ("GET /", "/open/a", 400, 400),
    ];
    for (method, path, stranger, signed_in) in DECISIONS.into_iter().chain(unreadable) {
        assert_eq!(envoy.ask(method, path, nobody).await.0, stranger, "{method} {path}");
        assert_eq!(envoy.ask(method, path, user).await.0, signed_in, "{method} {path}");
    }
    // What a client says of another request is no part of the question.
    for name in ["x-forwarded-uri", "x-original-uri", "x-forwarded-method", "x-original-url"] {
        assert_eq!(envoy.ask("GET", "/app", &[(name, "/open/a")]).await.0, 401, "{name}");
    }
    assert_eq!(stage.upstream.count(), 0);
}

#[tokio::test]
async fn an_allowed_request_is_given_every_identity_header_and_loses_its_credentials() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let token = format!("Bearer {}", stage.user);
    let session = format!("a=1; session={}; b=2", stage.user);
    let alone = format!("session={}", stage.user);
    for (path, sent, user, removed, cookie) in [
        ("/app", vec![("authorization", token.as_str())], USER, vec!["authorization"], None),
        ("/app", vec![("cookie", alone.as_str())], USER, vec!["cookie"], None),
        ("/app", vec![("cookie", session.as_str())], USER, vec![], Some("a=1; b=2")),
        ("/app", vec![("authorization", token.as_str()), ("cookie", "a=1")], USER, vec!["authorization"], None),
        (
            "/open/a",
            vec![("authorization", token.as_str()), ("cookie", session.as_str())],
            "",
            vec!["authorization"],
            Some("a=1; b=2"),
        ),
        ("/optional/a", vec![], "", vec![], None),
        ("/kept/a", vec![("authorization", token.as_str()), ("cookie", session.as_str())], USER, vec![], None),
    ] {
        let (_, answer) = envoy.ask("GET", path, &sent).await;
        let allowed = allowed(&answer);
        let tenant = if user.is_empty() { "" } else { "default" };
        let identity = [user, tenant, "", "", "", ""];
        let mut expected: Vec<(String, String)> =
            IDENTITY.iter().zip(identity).map(|(name, value)| ((*name).to_owned(), value.to_owned())).collect();
        expected.extend(cookie.map(|cookie| ("cookie".to_owned(), cookie.to_owned())));
        expected.sort();
        let mut told = fields(&allowed.headers);
        told.sort();
        assert_eq!(told, expected, "{path}");
        assert_eq!(allowed.headers_to_remove, removed, "{path}");
    }
}

#[tokio::test]
async fn no_spelling_of_an_identity_header_is_left() {
    let config = "identity_headers: { session_id: true, roles: true, kind: true, actor: true }";
    let Asked { stage, envoy, .. } = Asked::start(config).await;
    let token = format!("Bearer {}", stage.user);
    let forged = [
        "x-user-id",
        "x_user_id",
        "x-client-id",
        "x_client_id",
        "x-user_id",
        "x.user.id",
        "x!user!id",
        "xuserid",
        "x_user_roles",
        "x-actor-id",
        "x--user-kind",
    ];
    for path in ["/app", "/open/a", "/optional/a"] {
        let mut sent: Vec<(&str, &str)> = forged.iter().map(|name| (*name, "mallory")).collect();
        sent.extend([("authorization", token.as_str()), ("x-user-identity", "mine"), ("accept", "text/html")]);
        let (_, answer) = envoy.ask("GET", path, &sent).await;
        let arrives = forwarded(&sent, allowed(&answer));
        assert!(arrives.iter().all(|(_, value)| value != "mallory"), "{arrives:?}");
        let names: Vec<&str> = arrives.iter().map(|(name, _)| name.as_str()).collect();
        let mut expected = [IDENTITY.as_slice(), &["accept", "x-user-identity"]].concat();
        expected.sort_unstable();
        assert_eq!(names, expected, "{path}");
        let kind = arrives.iter().find(|(name, _)| name == "x-user-kind").expect("it is there");
        assert_eq!(kind.1, if path == "/open/a" { "" } else { "user" });
    }
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    assert!(metrics.contains("doorward_identity_headers_stripped_total{header=\"x-user-id\"} 18\n"), "{metrics}");
}

#[tokio::test]
async fn each_refusal_is_the_guards_own() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let ended = sign_in_guest(&stage.doorward, "device").await;
    assert_eq!(stage.doorward.client().delete("/auth/session").bearer(&ended).send().await.status, 200);
    let bearer = |token: &str| format!("Bearer {token}");
    let cookie = format!("session={}", stage.user);
    for (method, path, name, value) in [
        ("GET", "/app", "x-nothing", "1".to_owned()),
        ("GET", "/app", "authorization", "Basic YTpi".to_owned()),
        ("GET", "/app", "authorization", bearer("junk")),
        ("GET", "/app", "authorization", bearer("a.b.c")),
        ("GET", "/app", "authorization", bearer(&ended)),
        ("GET", "/app", "authorization", format!("{0},{0}", bearer(&stage.user))),
        ("GET", "/app", "cookie", format!("{cookie}; {cookie}")),
        ("POST", "/app", "cookie", cookie.clone()),
        ("GET", "/users/a", "authorization", bearer(&stage.guest)),
        ("GET", "/admins/a", "authorization", bearer(&stage.user)),
        ("GET", "/app/../x", "x-nothing", "1".to_owned()),
    ] {
        let direct = stage.request(&format!("{method} {path}"), &[format!("{name}: {value}")]).await;
        let (_, answer) = envoy.ask(method, path, &[(name, &value)]).await;
        assert_same(denied(&answer), &direct.response.expect("an answer"));
    }
    assert_eq!(stage.upstream.count(), 0);
}

#[tokio::test]
async fn a_cookie_authorises_unsafe_requests_only_from_the_same_origin() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let cookie = format!("session={}", stage.user);
    let (own, evil) = (("origin", "https://app.example"), ("origin", "https://evil.example"));
    let with = |more: &[(&'static str, &'static str)]| [&[("cookie", cookie.as_str())], more].concat();
    assert_eq!(envoy.ask("POST", "/app", &with(&[own])).await.0, 200);
    assert_eq!(envoy.ask("POST", "/app", &with(&[evil])).await.0, 403);
    assert_eq!(envoy.ask("POST", "/app", &with(&[])).await.0, 403);
    assert_eq!(envoy.ask("POST", "/app", &with(&[evil, ("x-forwarded-host", "evil.example")])).await.0, 403);
    assert_eq!(envoy.ask("GET", "/app", &with(&[evil])).await.0, 200);
    assert_eq!(envoy.ask("GET", "/app", &with(&[evil, ("upgrade", "websocket")])).await.0, 403);
    assert_eq!(envoy.ask("GET", "/app", &with(&[own, ("upgrade", "websocket")])).await.0, 200);
}

#[tokio::test]
async fn repeated_headers_told_as_a_list_are_seen_as_they_came() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let ask = async |headers: &[(&str, &[u8])]| {
        let header = |(name, value): &(&str, &[u8])| core::HeaderValue {
            key: (*name).to_owned(),
            raw_value: value.to_vec(),
            ..core::HeaderValue::default()
        };
        let list = core::HeaderMap { headers: headers.iter().map(header).collect() };
        let mut http = HttpRequest { header_map: Some(list), ..HttpRequest::default() };
        (http.method, http.path, http.host) = ("GET".to_owned(), "/app".to_owned(), "app.example".to_owned());
        // With a list there, this is not read.
        http.headers = HashMap::from([("authorization".to_owned(), format!("Bearer {}", stage.user))]);
        envoy.check(&about(http)).await
    };
    let bearer = format!("Bearer {}", stage.user);
    let session = format!("session={}", stage.user);
    let (bearer, session) = (bearer.as_bytes(), session.as_bytes());
    assert_eq!(status_of(&ask(&[]).await), 401);
    assert_eq!(status_of(&ask(&[("authorization", bearer)]).await), 200);
    assert_eq!(status_of(&ask(&[("authorization", bearer), ("authorization", bearer)]).await), 401);
    assert_eq!(status_of(&ask(&[("authorization", b"Bearer \xff")]).await), 401);
    assert_eq!(status_of(&ask(&[("cookie", session), ("cookie", session)]).await), 401);
    assert_eq!(status_of(&ask(&[("x-a", b"a\r\nb")]).await), 400);
    let answer = ask(&[("cookie", b"a=1"), ("cookie", session), ("cookie", b"b=\xff")]).await;
    let cookie =
        allowed(&answer).headers.iter().filter_map(|option| option.header.as_ref()).find(|h| h.key == "cookie");
    assert_eq!(cookie.expect("it is rewritten").raw_value, b"a=1; b=\xff");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused_and_nothing_panics() {
    let Asked { stage, envoy, .. } = Asked::start("").await;
    let mut empty = question("GET", "/open/a", &[]);
    empty.attributes.as_mut().expect("there").request.as_mut().expect("there").http = None;
    for question in [
        CheckRequest::default(),
        empty,
        about(HttpRequest::default()),
        question("GET", "/open/a", &[("bad name", "x")]),
        question("GET", "/open/a", &[("", "x")]),
        question("GET", "/open/a", &[("x-a", "a\r\nx-user-id: b")]),
        question("GET", "/open/a", &[("x-a", "a\0b")]),
        question("GET", "/open/é", &[]),
        question("GET", "/open/\0", &[]),
        question("G\u{e9}T", "/open/a", &[]),
        question("GET", &format!("/{}", "a".repeat(70_000)), &[]),
    ] {
        let answer = envoy.check(&question).await;
        assert_eq!(
            (status_of(&answer), denied(&answer).body.as_str()),
            (400, r#"{"detail":"Bad Request"}"#),
            "{question:?}"
        );
    }
    // Bytes that are no message: a failure of the call, which Envoy must not take for a yes.
    for bytes in [b"\xff\xff\xff".as_slice(), b"\x0a\xff", &[0x0a, 0x7f, 1, 2], &vec![b'a'; 2 * 1024 * 1024]] {
        assert!(super::end(envoy.begin(bytes).await).await.is_err());
    }
    assert_eq!(envoy.ask("GET", "/open/a", &[]).await.0, 200, "the connection is still good");
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    assert!(metrics.contains("doorward_panics_total 0\n"), "{metrics}");
}
