//! How the request that is asked about is told: in every way that proxies have, and in one way only.

use http::Method;

use super::{DECISIONS, ENABLED, ask, assert_allows, assert_refuses};
use crate::support::stage::{Stage, USER};

/// Ways to tell of a request for `target`, as start line and fields.
fn ways(method: &str, target: &str) -> [(String, Vec<String>); 6] {
    let bare = || format!("{method} /_doorward/verify");
    let get = || "GET /_doorward/verify".to_owned();
    [
        (format!("{method} /_doorward/verify{target}"), vec![]),
        (get(), vec![format!("X-Forwarded-Method: {method}"), format!("X-Forwarded-Uri: {target}")]),
        (get(), vec![format!("X-Original-Method: {method}"), format!("X-Original-URI: {target}")]),
        (get(), vec![format!("X-Original-Method: {method}"), format!("X-Original-URL: https://app.example{target}")]),
        (bare(), vec![format!("X-Forwarded-Method: {method}"), format!("X-Original-URI: {target}")]),
        (
            format!("{method} /_doorward/verify{target}"),
            vec![
                format!("X-Forwarded-Method: {method}"),
                format!("X-Forwarded-Uri: {target}"),
                format!("X-Original-Method: {method}"),
                format!("X-Original-URI: {target}"),
                format!("X-Original-URL: http://app.example{target}"),
            ],
        ),
    ]
}

#[tokio::test]
async fn the_rules_decide_about_the_original_request_however_it_is_told() {
    let stage = Stage::start(ENABLED).await;
    for (method, target, stranger, user) in DECISIONS {
        for (start, fields) in ways(method, target) {
            let answer = ask(&stage, &start, &fields).await;
            match stranger {
                200 => assert_allows(&answer, "", ""),
                _ => assert_refuses(&answer, 401, "Missing Bearer token"),
            }
            let named = [fields.as_slice(), &[stage.user_field()]].concat();
            let answer = ask(&stage, &start, &named).await;
            match user {
                200 if ["/open/a", "/open/a?x=1", "/%6fpen/a"].contains(&target) => assert_allows(&answer, "", ""),
                200 if (method, target) == ("GET", "/read-only") => assert_allows(&answer, "", ""),
                200 => assert_allows(&answer, USER, "default"),
                _ => assert_refuses(&answer, 403, "Insufficient permissions"),
            }
        }
    }
}

#[tokio::test]
async fn whatever_could_be_read_in_two_ways_is_refused() {
    let stage = Stage::start(ENABLED).await;
    let (method, uri) = ("X-Forwarded-Method: GET", "X-Forwarded-Uri: /open/a");
    let (method2, uri2) = ("X-Original-Method: GET", "X-Original-URI: /open/a");
    let bare = "GET /_doorward/verify";
    for (start, fields) in [
        // Nothing is guessed.
        (bare, vec![]),
        (bare, vec![method]),
        (bare, vec![uri]),
        (bare, vec![uri2]),
        (bare, vec!["X-Original-URL: http://a/open/a"]),
        (bare, vec!["X-Forwarded-Path: /open/a", method]),
        (bare, vec!["X_Forwarded_Uri: /open/a", method]),
        ("GET /_doorward/verify?/open/a", vec![method]),
        // Everything that is said agrees.
        (bare, vec![method, uri, "X-Original-URI: /app"]),
        (bare, vec![method, "X-Forwarded-Uri: /app", uri2]),
        (bare, vec![method, uri, "X-Original-URI: /open/a?b"]),
        (bare, vec![method, uri, "X-Original-URL: http://a/app"]),
        (bare, vec![method, uri, "X-Original-Method: POST"]),
        (bare, vec![method2, uri2, "X-Forwarded-Method: get"]),
        ("GET /_doorward/verify/open/a", vec!["X-Forwarded-Uri: /app"]),
        ("GET /_doorward/verify/app", vec![uri]),
        ("GET /_doorward/verify/open/a", vec!["X-Original-URI: /app"]),
        ("GET /_doorward/verify/open/a", vec!["X-Forwarded-Method: POST"]),
        ("POST /_doorward/verify/open/a", vec![method]),
        (bare, vec![method, "X-Forwarded-Host: a", "X-Original-URL: http://b/open/a"]),
        // Once.
        (bare, vec![method, method, uri]),
        (bare, vec![method, uri, uri]),
        (bare, vec![method, uri, "X-Forwarded-Uri: /app"]),
        (bare, vec![method2, uri2, uri2]),
        (bare, vec![method, uri, "X-Forwarded-Host: a", "X-Forwarded-Host: a"]),
        // A method is a method, a URL is a URL.
        (bare, vec!["X-Forwarded-Method:", uri]),
        (bare, vec!["X-Forwarded-Method: GET POST", uri]),
        (bare, vec!["X-Forwarded-Method: GET, GET", uri]),
        (bare, vec![method, "X-Original-URL: /open/a"]),
        (bare, vec![method, "X-Original-URL: http:///open/a"]),
        (bare, vec![method, "X-Original-URL: http://a"]),
        (bare, vec![method, "X-Original-URL: http://a@b/open/a"]),
        (bare, vec![method, "X-Original-URL: http://a?/open/a"]),
        (bare, vec![method, "X-Original-URL: ftp://a/open/a"]),
        (bare, vec![method, "X-Original-URL: javascript:/open/a"]),
    ] {
        let fields = [vec![stage.user_field()], fields.into_iter().map(str::to_owned).collect()].concat();
        let answer = ask(&stage, start, &fields).await;
        assert_refuses(&answer, 400, "Bad Request");
    }
}

#[tokio::test]
async fn a_path_that_would_not_be_forwarded_is_not_vouched_for() {
    let stage = Stage::start(ENABLED).await;
    let long = format!("/open/{}", "a".repeat(20_000));
    let targets: [&[u8]; 34] = [
        b"",
        b"*",
        b"?",
        b"open/a",
        b"//open/a",
        b"/open//a",
        b"/open/../app",
        b"/open/./a",
        b"/open/..",
        b"/open/%2e%2e/app",
        b"/open/.%2E/app",
        b"/open/..;/app",
        b"/open/..%3bx/app",
        b"/open%2fa",
        b"/open%5ca",
        b"/open\\a",
        b"/open/a#b",
        b"/open/a?b#c",
        b"/open/a%",
        b"/open/a%2",
        b"/open/a%zz",
        b"/open/a%00",
        b"/open/a%0d%0aX: y",
        b"/open/a b",
        b"/open/a\tb",
        b"/open/\xc3\xa9",
        b"/open/\xff",
        b"/open/a?\xff",
        b"/open/%252e%252e/app",
        b"http://a/open/a",
        b"https://a/open/a",
        b"/open/a, /open/a",
        b"a:80",
        b"/open/<a>",
    ];
    for target in targets.into_iter().chain([b"/open/\x7fa".as_slice(), b"/open/`a`"]) {
        for field in ["X-Forwarded-Uri: ", "X-Original-URI: "] {
            let told = [field.as_bytes(), target].concat();
            let fields = [stage.user_field().into_bytes(), b"X-Forwarded-Method: GET".to_vec(), told];
            let asked = stage.request("GET /_doorward/verify", &fields).await;
            let answer = asked.response.unwrap_or_else(|| panic!("no answer to {:?}", String::from_utf8_lossy(target)));
            assert_eq!(answer.status, 400, "{:?}: {answer:?}", String::from_utf8_lossy(target));
        }
        // A blank in a request line ends the target, or is escaped before anybody sees it.
        if target.starts_with(b"/") && !target.contains(&b' ') {
            let start = [b"GET /_doorward/verify".as_slice(), target].concat();
            let head = [start.as_slice(), b" HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
            let asked = stage.ask(&head).await;
            assert!([0, 400].contains(&asked.status()) && asked.seen.is_empty(), "{asked:?}");
        }
    }
    let fields = ["X-Forwarded-Method: GET".to_owned(), format!("X-Forwarded-Uri: {long}")];
    assert_allows(&ask(&stage, "GET /_doorward/verify", &fields).await, "", "");
    let fields = ["X-Forwarded-Method: GET".to_owned(), format!("X-Forwarded-Uri: {long}{long}{long}{long}")];
    let asked = stage.request("GET /_doorward/verify", &fields).await;
    assert!(asked.seen.is_empty() && asked.status() != 200, "{asked:?}");
}

#[tokio::test]
async fn below_the_reserved_path_nothing_is_ever_forwarded() {
    let routes = "routes: [{ path: '/**', auth: none }]";
    for config in [routes.to_owned(), format!("{ENABLED}\n{routes}")] {
        let stage = Stage::start(&config).await;
        for path in [
            "/_doorward",
            "/_doorward/",
            "/_doorward/verif",
            "/_doorward/verifyx",
            "/_doorward/verify.json",
            "/_doorward/verify;a",
            "/_doorward/verify%2a",
            "/_doorward/metrics",
            "/%5fdoorward/x",
        ] {
            let answer = ask(&stage, &format!("GET {path}"), &[stage.user_field()]).await;
            assert_eq!((answer.status, answer.text().as_str()), (404, r#"{"detail":"Not Found"}"#), "{path}");
        }
        assert_eq!(stage.request("GET /_doorwardx", &[""; 0]).await.forwarded().target, "/_doorwardx");
    }
}

#[tokio::test]
async fn any_method_may_ask_and_a_body_is_not_read() {
    let stage = Stage::start(ENABLED).await;
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"] {
        let told = ["X-Forwarded-Method: POST".to_owned(), "X-Forwarded-Uri: /app".to_owned(), stage.user_field()];
        for length in [None, Some("Content-Length: 0".to_owned())] {
            let fields: Vec<String> = told.iter().cloned().chain(length).collect();
            assert_allows(&ask(&stage, &format!("{method} /_doorward/verify"), &fields).await, USER, "default");
        }
        let answer = ask(&stage, &format!("{method} /_doorward/verify/app"), &[stage.user_field()]).await;
        assert_allows(&answer, USER, "default");
    }
    let inner = String::from_utf8(stage.head("GET /open/smuggled", &[""; 0])).expect("text");
    let fields = [stage.user_field(), format!("Content-Length: {}", inner.len())];
    let head = stage.head("POST /_doorward/verify/app", &fields);
    let asked = stage.ask([head, inner.into_bytes()].concat()).await;
    assert_allows(&asked.response.expect("an answer"), USER, "default");
    assert_eq!(stage.upstream.count(), 0, "the body was not read as a request");
}

#[tokio::test]
async fn http2_asks_as_http1_does() {
    let stage = Stage::start(ENABLED).await;
    let token = stage.user_field().split_once(": ").expect("a field").1.to_owned();
    let (told, who) = (("x-forwarded-uri", b"/app".as_slice()), ("authorization", token.as_bytes()));
    let answer = stage.h2("/_doorward/verify/app?a=b", &[who]).await.response.expect("an answer");
    assert_allows(&answer, USER, "default");
    let answer = stage.h2("/_doorward/verify", &[told, ("x-forwarded-method", b"PUT"), who]).await.response;
    assert_allows(&answer.expect("an answer"), USER, "default");
    let answer = stage.h2_method(Method::POST, "/_doorward/verify/app", &[]).await.response.expect("an answer");
    assert_refuses(&answer, 401, "Missing Bearer token");
    let answer = stage.h2("/_doorward/verify", &[told, who]).await.response.expect("an answer");
    assert_refuses(&answer, 400, "Bad Request");
    // The name of the server is `:authority` there.
    let host = format!("http://{}", stage.host());
    let cookie = format!("session={}", stage.user);
    for (origin, status) in [(host.as_str(), 200), ("http://evil.example", 403)] {
        let fields = [("cookie", cookie.as_bytes()), ("origin", origin.as_bytes())];
        let answer = stage.h2_method(Method::POST, "/_doorward/verify/app", &fields).await.response;
        assert_eq!(answer.expect("an answer").status, status, "{origin}");
    }
}

#[tokio::test]
async fn only_what_is_asked_at_the_path_of_questions_is_answered_as_one_when_it_cannot_be_read() {
    let stage = Stage::start(ENABLED).await;
    for path in ["/_doorward/verify//app", "/_doorward/verify/../verify"] {
        assert_refuses(&ask(&stage, &format!("GET {path}"), &[""; 0]).await, 400, "Bad Request");
    }
    for path in ["/_doorward//verify", "/_doorward/verifyx//app", "/_doorwardx//app"] {
        let answer = ask(&stage, &format!("GET {path}"), &[""; 0]).await;
        assert_eq!((answer.status, answer.headers.all("x-user-id")), (400, vec![]), "{path}");
    }
}
