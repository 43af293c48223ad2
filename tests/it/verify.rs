//! What other proxies are told about requests of theirs, over HTTP and over gRPC.

mod answers;
pub(crate) mod grpc;
mod surroundings;
mod telling;

use crate::support::client::Response;
use crate::support::stage::Stage;

/// This machine asks.
const ENABLED: &str = "trusted_proxies: ['127.0.0.1/32']\nforward_auth: { enabled: true }";

/// Every identity header, as an answer names it.
const IDENTITY: [&str; 6] = ["x-user-id", "x-client-id", "x-session-id", "x-user-roles", "x-user-kind", "x-actor-id"];

/// Requests, with the status for a stranger and for a signed-in user.
const DECISIONS: [(&str, &str, u16, u16); 21] = [
    ("GET", "/app", 401, 200),
    ("GET", "/", 401, 200),
    ("GET", "/open/a?x=1", 200, 200),
    ("POST", "/open/a", 200, 200),
    ("GET", "/optional/a", 200, 200),
    ("GET", "/read-only", 200, 200),
    ("POST", "/read-only", 401, 200),
    ("DELETE", "/read-only", 401, 200),
    ("get", "/read-only", 401, 200),
    ("PROPFIND", "/app", 401, 200),
    ("GET", "/users/a", 401, 200),
    ("GET", "/admins/a", 401, 403),
    // The query never takes part (GHSA-7rh7-c77v-6434).
    ("GET", "/app?x=/open/a", 401, 200),
    ("GET", "/app?/../open/a", 401, 200),
    ("GET", "/app?/open/a?b", 401, 200),
    ("GET", "/app%3F/open/a", 401, 200),
    ("GET", "/%6fpen/a", 200, 200),
    // Doorward's own, should the proxy ask instead of sending them on: nobody's without a session.
    ("GET", "/auth/session", 401, 200),
    ("POST", "/webhooks/clerk", 401, 200),
    ("GET", "/_doorward/verify", 401, 200),
    ("GET", "/_doorward/verify/open/a", 401, 200),
];

/// Asks about a request; fails the test when anything reaches the application.
async fn ask(stage: &Stage, start: &str, fields: &[impl AsRef<[u8]>]) -> Response {
    let asked = stage.request(start, fields).await;
    assert!(asked.seen.is_empty(), "{asked:?}");
    asked.response.expect("an answer")
}

/// Fails the test unless the answer lets a request through that `user` sends for `tenant`.
#[track_caller]
fn assert_allows(answer: &Response, user: &str, tenant: &str) {
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.text(), "");
    assert_eq!(answer.headers.all("x-user-id"), [user], "{answer:?}");
    assert_eq!(answer.headers.all("x-client-id"), [tenant], "{answer:?}");
    for name in IDENTITY {
        assert_eq!(answer.headers.all(name).len(), 1, "{name}: {answer:?}");
    }
    assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    assert_eq!(answer.headers.all("set-cookie"), Vec::<&str>::new());
}

/// Fails the test unless the answer refuses with exactly this `detail`, and names nobody.
#[track_caller]
fn assert_refuses(answer: &Response, status: u16, detail: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.text(), serde_json::json!({ "detail": detail }).to_string());
    assert_eq!(answer.headers.all("content-type"), ["application/json"]);
    assert_eq!(answer.headers.all("cache-control"), ["no-store"]);
    assert_eq!(answer.headers.all("x-user-id"), [""], "{answer:?}");
    assert_eq!(answer.headers.all("x-client-id"), [""], "{answer:?}");
}
