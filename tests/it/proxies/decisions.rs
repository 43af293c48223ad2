//! Who may pass, and what of Doorward's answer a client is shown.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::front::Tells;
use super::identity::{assert_named, assert_unnamed};
use super::stage::{Stage, bearer};
use crate::support::stage::{Asked, USER};
use crate::support::within;

/// Headers by which other software lets a client name another request than it makes.
const OTHER_REQUEST: [&str; 12] = [
    "X-Forwarded-Uri: /open/a",
    "X-Forwarded-Method: GET",
    "X-Original-URI: /open/a",
    "X-Original-Method: GET",
    "X-Original-URL: http://127.0.0.1/open/a",
    "X-Original-Url: /open/a",
    "X-Rewrite-URL: /open/a",
    "X-Forwarded-Path: /open/a",
    "X-Forwarded-Prefix: /open",
    "X-Envoy-Original-Path: /open/a",
    "X-HTTP-Method-Override: GET",
    "Forwarded: for=127.0.0.1;host=evil.example;proto=https",
];

/// Targets that lead to an open path if one reads them loosely, and to none otherwise.
const TRICKS: [&str; 34] = [
    "/open/../app",
    "/open/%2e%2e/app",
    "/open/%2E%2e/app",
    "/open/.%2e/app",
    "/open/..%2fapp",
    "/open/..%5capp",
    "/open/%252e%252e/app",
    "/open/..;/app",
    "/open/..;x=1/app",
    "/open/..%3b/app",
    "/open%2f..%2fapp",
    "/open/..//app",
    "/open//../app",
    "/open/./../app",
    "/open\\..\\app",
    "/open/..\\app",
    "/app?/open/a",
    "/app?x=/open/a",
    "/app%3f/open/a",
    "/app;/open/a",
    "/app/../open/../app",
    "//app",
    "/./app",
    "/app/.",
    "/app%00/open/a",
    "/OPEN/a",
    "/auth/../app",
    "/auth/%2e%2e/app",
    "/auth/..;/app",
    "/auth%2f..%2fapp",
    "/webhooks/clerk/../../app",
    "/_doorward/verify/open/a",
    "/_doorward/verify?/open/a",
    "http://127.0.0.1/app",
];

/// 401 and 403, with the challenge, and with Doorward's own words where the proxy can.
pub(super) async fn refusals_are_shown_and_nothing_arrives(stage: &Stage) {
    let (missing, bad) = ("Bearer", "Bearer error=\"invalid_token\"");
    let (user, guest) = (stage.user_field(), stage.guest_field());
    let same = "Sec-Fetch-Site: same-origin".to_owned();
    for (fields, detail, challenge) in [
        (vec![], "Missing Bearer token", missing),
        (vec!["Authorization: Basic YTpi".to_owned()], "Missing Bearer token", missing),
        (vec![bearer("junk")], "Invalid token: malformed", bad),
        (vec![bearer("a.b.c")], "Invalid token: expected a session token", bad),
        (vec!["Cookie: session=junk".to_owned(), same.clone()], "Invalid token: malformed", bad),
        (vec![format!("Cookie: session={}; session={}", stage.user, stage.guest)], "Invalid token: malformed", bad),
    ] {
        for start in ["GET /app", "GET /", "DELETE /app?x=/open/a", "HEAD /app"] {
            let asked = stage.request(start, &fields).await;
            asked.refused_with(401);
            let response = asked.response.as_ref().expect("an answer");
            assert_eq!(response.headers.all("www-authenticate"), [challenge], "{fields:?} {start}: {asked:?}");
            assert!(response.headers.all("set-cookie").is_empty(), "no refusal deletes a cookie");
            if !start.starts_with("HEAD") {
                says(stage, &asked, detail, "Not authenticated");
            }
        }
    }
    // Some proxies refuse these themselves.
    for second in [&guest, &user, "Authorization: Bearer junk", "Authorization: Basic YTpi"] {
        for fields in [[user.as_str(), second], [second, user.as_str()]] {
            let asked = stage.request("GET /app", &fields).await;
            assert!(matches!(asked.status(), 400 | 401) && asked.seen.is_empty(), "{fields:?}: {asked:?}");
        }
    }
    for (start, field) in [("GET /users/a", guest), ("GET /admins/a", user.clone()), ("POST /admins/a", user.clone())] {
        let asked = stage.request(start, &[field]).await;
        asked.refused_with(403);
        says(stage, &asked, "Insufficient permissions", "Insufficient permissions");
    }
    assert_named(stage.request("GET /users/a", &[user]).await.forwarded(), USER);
}

/// A rule for GET opens nothing to other methods, whatever the client calls its method.
pub(super) async fn rules_hold_for_their_methods(stage: &Stage) {
    assert_unnamed(stage.request("GET /read-only", &[""; 0]).await.forwarded());
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "PROPFIND"] {
        for forged in OTHER_REQUEST {
            let asked = stage.request(&format!("{method} /read-only"), &[forged, "Content-Length: 0"]).await;
            assert!((400..=501).contains(&asked.status()) && asked.seen.is_empty(), "{method} {forged}: {asked:?}");
        }
    }
    let asked = stage.request("DELETE /read-only", &[stage.user_field()]).await;
    assert_named(asked.forwarded(), USER);
    assert_eq!(asked.forwarded().method, "DELETE");
}

/// Answers of the application are no refusals, whatever their status.
pub(super) async fn errors_of_the_application_pass(stage: &Stage) {
    for status in [400, 401, 403, 404, 500, 502, 503] {
        let asked = stage.request(&format!("GET /status/{status}"), &[stage.user_field()]).await;
        assert_eq!((asked.status(), asked.seen.len()), (status, 1), "{asked:?}");
        let answer = asked.response.as_ref().expect("an answer").json();
        assert_eq!(answer["target"], format!("/status/{status}"), "{asked:?}");
    }
}

/// Only the application reads bodies.
pub(super) async fn bodies_arrive_whole(stage: &Stage) {
    let body = b"0123456789abcdef".repeat(16 * 1024);
    let length = format!("Content-Length: {}", body.len());
    for start in ["POST /app", "PUT /open/a"] {
        let asked = stage.send(start, &[length.clone(), stage.user_field()], &body).await;
        assert!(asked.forwarded().complete && asked.forwarded().body == body, "{start}");
    }
    let chunks = b"5\r\nfirst\r\n7\r\n-second\r\n0\r\n\r\n";
    let fields = ["Transfer-Encoding: chunked".to_owned(), stage.user_field()];
    let asked = stage.send("POST /app", &fields, chunks).await;
    assert_eq!(asked.forwarded().body, b"first-second");
    let small = ["Content-Length: 5"];
    stage.send("POST /app", &small, b"first").await.refused_with(401);
}

/// After logout the next request is refused.
pub(super) async fn a_session_ends_at_once(stage: &Stage) {
    let token = stage.sign_in_guest("a device that leaves").await;
    assert_named(stage.request("GET /app", &[bearer(&token)]).await.forwarded(), "anon:");
    let ended = stage.front.client().delete("/auth/session").bearer(&token).send().await;
    assert_eq!(ended.status, 200, "{ended:?}");
    let asked = stage.request("GET /app", &[bearer(&token)]).await;
    asked.refused_with(401);
    says(stage, &asked, "Invalid token: session revoked", "Not authenticated");
    stage.request("GET /app", &[stage.user_field()]).await.forwarded();
}

/// A handshake is a GET that no browser asks permission for: a cookie needs the right origin.
pub(super) async fn web_sockets_are_guarded(stage: &Stage) {
    let client = stage.front.client();
    let (own, cookie) = (format!("http://{}", stage.host()), format!("session={}", stage.user));
    let bearer = format!("Bearer {}", stage.user);
    for headers in [vec![("authorization", bearer.as_str())], vec![("cookie", &cookie), ("origin", &own)]] {
        let before = stage.application.count();
        let opened = client.web_socket("/ws", &headers).await;
        let mut socket = opened.unwrap_or_else(|refusal| panic!("{headers:?}: {refusal:?}"));
        socket.send(Message::text("hello")).await.expect("the socket is open");
        let echo = within("an echo", socket.next()).await;
        assert!(matches!(&echo, Some(Ok(message)) if message.to_text().is_ok_and(|text| text == "hello")), "{echo:?}");
        assert_named(&stage.application.requests_after(before)[0], USER);
    }
    let before = stage.application.count();
    let evil = "https://evil.example";
    for (headers, status) in [
        (vec![], 401),
        (vec![("cookie", cookie.as_str()), ("origin", evil)], 403),
        (vec![("cookie", cookie.as_str()), ("origin", evil), ("x-forwarded-host", "evil.example")], 403),
        (vec![("cookie", cookie.as_str())], 403),
    ] {
        let refusal = client.web_socket("/ws", &headers).await.expect_err("a refusal");
        assert_eq!(refusal.status, status, "{headers:?}");
    }
    assert_eq!(stage.application.count(), before);
}

/// Headers that name another request neither open nor close anything.
pub(super) async fn what_clients_say_of_the_request_changes_nothing(stage: &Stage) {
    let together = OTHER_REQUEST.map(str::to_owned).to_vec();
    let mut lists: Vec<Vec<String>> = OTHER_REQUEST.iter().map(|forged| vec![(*forged).to_owned()]).collect();
    lists.extend(OTHER_REQUEST.iter().map(|forged| vec![(*forged).to_owned(), (*forged).to_owned()]));
    lists.extend(OTHER_REQUEST.iter().map(|forged| vec![forged.replace('-', "_")]));
    lists.push(together);
    for forged in lists {
        for start in ["GET /app", "POST /read-only", "GET /users/a"] {
            stage.request(start, &forged).await.refused_with(401);
        }
        let with_session = [forged.as_slice(), &[stage.user_field()]].concat();
        let asked = stage.request("POST /app?q", &with_session).await;
        assert_named(asked.forwarded(), USER);
        assert_eq!(asked.forwarded().target, "/app?q", "{forged:?}");
        stage.request("GET /admins/a", &with_session).await.refused_with(403);
        assert_unnamed(stage.request("GET /open/a", &forged).await.forwarded());
    }
}

/// Nothing arrives but what a rule opened to its sender, and that without anything left to resolve.
pub(super) async fn tricks_with_paths_open_nothing(stage: &Stage) {
    for target in TRICKS {
        for method in ["GET", "POST"] {
            let asked = stage.request(&format!("{method} {target}"), &["Content-Length: 0"]).await;
            only_below("/open/", &asked, target);
        }
        let admin = target.replace("app", "admins/a");
        let asked = stage.request(&format!("GET {admin}"), &[stage.guest_field()]).await;
        for seen in &asked.seen {
            assert!(!resolved(&seen.target).starts_with("/admins"), "{admin}: {asked:?}");
        }
    }
}

fn only_below(open: &str, asked: &Asked, target: &str) {
    match asked.seen.as_slice() {
        [] => assert!((400..500).contains(&asked.status()), "{target}: {asked:?}"),
        [seen] => {
            assert!(seen.target.starts_with(open), "{target}: {asked:?}");
            assert_eq!(resolved(&seen.target), seen.target, "{target}: {asked:?}");
        }
        _ => panic!("{target}: {asked:?}"),
    }
}

/// Returns what the most lenient application could take a target for.
fn resolved(target: &str) -> String {
    let path = target.split('?').next().unwrap_or_default().replace('\\', "/");
    let path = path.replace("%2f", "/").replace("%2F", "/").replace("%5c", "/").replace("%2e", ".").replace("%2E", ".");
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/').map(|name| name.split([';', '%']).next().unwrap_or_default()) {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    format!("/{}", names.join("/"))
}

/// Nothing on the way rewrites a target that has one reading only.
pub(super) async fn paths_arrive_as_they_were_sent(stage: &Stage) {
    for target in [
        "/",
        "/app/",
        "/app/a%20b",
        "/app/%C3%A9",
        "/app/a;v=1",
        "/app?",
        "/app?x=%2f..%2f&y=%00;z",
        "/app?x=http://127.0.0.1/open/a",
        "/app/~user/!$&'()*+,=:@",
    ] {
        let asked = stage.request(&format!("GET {target}"), &[stage.user_field()]).await;
        assert_named(asked.forwarded(), USER);
        assert_eq!(asked.forwarded().target, target);
    }
}

/// Fails the test unless the body has Doorward's `detail`, or the proxy's where it has its own.
fn says(stage: &Stage, asked: &Asked, detail: &str, instead: &str) {
    let detail = if stage.proxy.tells == Tells::Status { instead } else { detail };
    assert_eq!(asked.text(), serde_json::json!({ "detail": detail }).to_string(), "{asked:?}");
    let response = asked.response.as_ref().expect("an answer");
    assert_eq!(response.headers.all("content-type"), ["application/json"], "{asked:?}");
}
