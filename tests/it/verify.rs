//! What other proxies are told about requests of theirs, over HTTP and over gRPC.

mod answers;
mod grpc;
mod surroundings;
mod telling;

use crate::support::client::Response;
use crate::support::stage::Stage;

/// This machine asks.
const ENABLED: &str = "trusted_proxies: ['127.0.0.1/32']\nforward_auth: { enabled: true }";

/// Every identity header, as an answer names it.
const IDENTITY: [&str; 6] = ["x-user-id", "x-client-id", "x-session-id", "x-user-roles", "x-user-kind", "x-actor-id"];

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
