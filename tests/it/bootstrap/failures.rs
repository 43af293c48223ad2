//! A source that fails: required means no answer, optional means a named gap.

use serde_json::{Value, json};

use super::{Database, PATIENT, ask, defaults, json_answer};
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::ports::free_port;
use crate::support::upstream::Upstream;
use crate::surface::answers::assert_refused;

/// Answers that are no document.
fn broken(upstream: &Upstream) {
    let answer =
        |status: &str, body: &str| format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1024 * 1024));
    for (path, response) in [
        ("/error", answer("500 Broken", "{}")),
        (
            "/redirect",
            format!("HTTP/1.1 302 Found\r\nlocation: {}/good\r\ncontent-length: 2\r\n\r\n{{}}", upstream.url()),
        ),
        ("/missing", answer("404 Not Found", "{}")),
        ("/empty", answer("204 No Content", "")),
        ("/list", answer("200 OK", "[]")),
        ("/null", answer("200 OK", "null")),
        ("/text", answer("200 OK", "hello")),
        ("/half", answer("200 OK", "{\"a\":")),
        ("/twice", answer("200 OK", r#"{"data":{"a":1,"a":2}}"#)),
        ("/large", answer("200 OK", &large)),
        ("/garbage", "this is not HTTP\r\n\r\n".to_owned()),
        ("/closing/short", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}".to_owned()),
    ] {
        upstream.respond(path, &response);
    }
    upstream.respond("/good", &json_answer(&json!({ "plan": "pro" })));
}

const BROKEN: [&str; 12] = [
    "/error",
    "/redirect",
    "/missing",
    "/empty",
    "/list",
    "/null",
    "/text",
    "/half",
    "/twice",
    "/large",
    "/garbage",
    "/closing/short",
];

#[tokio::test]
async fn a_required_section_that_fails_is_502_or_504_and_an_optional_one_is_named() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    broken(&upstream);
    let start = async |config: &str| {
        let builder = Doorward::builder().idp(&idp).upstream(upstream.url()).config(PATIENT);
        builder.config(config).start().await
    };
    for path in BROKEN {
        // One process for both: the profile is required, the others are not.
        let section = |path: &str| format!("{{ source: http, http: {{ path: '{path}' }} }}");
        let optional = format!(
            "bootstrap: {{ profile: {}, subscription: {}, secrets: {} }}",
            section("/good"),
            section(path),
            section(path)
        );
        let doorward = start(&optional).await;
        let answer = ask(&doorward, &idp.mint_for("user_jordan")).await;
        assert_eq!(
            (answer.status, answer.headers.all("x-bootstrap-degraded")),
            (200, vec!["subscription,secrets"]),
            "{path}"
        );
        let body = answer.json();
        assert_eq!((&body["subscription"], &body["secrets"]), (&Value::Null, &Value::Null), "{path}");
        assert_eq!(
            (body["profile"]["plan"].as_str(), body.as_object().map(serde_json::Map::len)),
            (Some("pro"), Some(3))
        );
    }
    let required =
        BROKEN.map(|path| format!("bootstrap: {{ profile: {{ source: http, http: {{ path: '{path}' }} }} }}"));
    for config in required {
        let doorward = start(&config).await;
        let refused = ask(&doorward, &idp.mint_for("user_jordan")).await;
        assert_refused(&refused, 502, "Bootstrap source unavailable: profile");
    }
}

#[tokio::test]
async fn a_source_has_its_own_time() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let hanging = "bootstrap: { secrets: { source: http, http: { path: /hang }, timeout: 50ms } }";
    let builder = || Doorward::builder().idp(&idp).upstream(upstream.url()).config(PATIENT).config(hanging);
    let doorward = builder().start().await;
    let answer = ask(&doorward, &idp.mint_for("user_jordan")).await;
    assert_eq!((answer.status, answer.headers.all("x-bootstrap-degraded")), (200, vec!["secrets"]));
    let mut expected = defaults();
    expected["secrets"] = Value::Null;
    assert_eq!(answer.json(), expected);
    let doorward = builder().config("bootstrap: { secrets: { required: true } }").start().await;
    let refused = ask(&doorward, &idp.mint_for("user_jordan")).await;
    assert_refused(&refused, 504, "Bootstrap source timed out: secrets");
}

#[tokio::test]
async fn an_application_that_is_not_there_is_unavailable() {
    let idp = Idp::start().await;
    let closed = format!("http://127.0.0.1:{}", free_port());
    for url in [closed.as_str(), "http://no-such-host.invalid"] {
        let config = "bootstrap: { profile: { source: http, http: { path: /profile } } }";
        let doorward = Doorward::builder().idp(&idp).upstream(url).config(PATIENT).config(config).start().await;
        let refused = ask(&doorward, &idp.mint_for("user_jordan")).await;
        assert_refused(&refused, 502, "Bootstrap source unavailable: profile");
    }
}

#[tokio::test]
async fn a_database_that_is_away_or_refuses_is_told_of() {
    let idp = Idp::start().await;
    let away = Doorward::builder().idp(&idp).database("postgres://unused@127.0.0.1:1/none").config(PATIENT);
    let doorward = away.config("directory: { timeout: 100ms }").start().await;
    let refused = ask(&doorward, &idp.mint_for("user_jordan")).await;
    assert_refused(&refused, 504, "Bootstrap source timed out: profile");
    let config = "bootstrap: { \
        profile: { source: sql, sql: { select: 'select body from nowhere where owner = $1' } }, \
        subscription: { source: sql, sql: { select: 'select 1 where 1 = 0' } } }";
    for database in Database::both().await {
        let builder = || database.of(Doorward::builder().idp(&idp).config(PATIENT).config(config));
        let doorward = builder().start().await;
        let refused = ask(&doorward, &idp.mint_for("user_jordan")).await;
        assert_refused(&refused, 502, "Bootstrap source unavailable: profile");
        doorward.wait_log("nowhere").await;
        let doorward = builder().config("bootstrap: { profile: { required: false } }").start().await;
        let answer = ask(&doorward, &idp.mint_for("user_jordan")).await;
        assert_eq!((answer.status, answer.headers.all("x-bootstrap-degraded")), (200, vec!["profile,subscription"]));
        assert_eq!(answer.json()["profile"], Value::Null);
    }
}
