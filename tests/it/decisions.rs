//! A decision is one: the answer, the metric and the line in the access log agree about it, also when
//! the session ends after the guard let the request through.

use http::Method;
use serde_json::Value;

use crate::support::client::{Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::h2_client::H2Client;
use crate::support::upstream::Upstream;

const REVOKED: &str = r#"{"detail":"Invalid token: session revoked"}"#;

/// How a request reaches the application: by the fast path, by pingora's, from HTTP/2.
const WAYS: [&str; 3] = ["fast", "body", "h2"];

/// Returns the access line about a path.
async fn line_about(doorward: &Doorward, path: &str) -> Value {
    eventually("a line in the access log", async || {
        let logs = doorward.logs();
        let mut lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.find(|line| line["log.logger"] == "access" && line["url.path"] == path)
    })
    .await
}

/// Returns every decision that was counted.
async fn counted(doorward: &Doorward) -> Vec<String> {
    let page = doorward.admin_get("/metrics").await.text();
    let decisions = page.lines().filter_map(|line| line.strip_prefix("doorward_auth_decisions_total"));
    decisions.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect()
}

async fn ask(doorward: &Doorward, way: &str, token: &str) -> Response {
    let client = doorward.client();
    let path = format!("/hang?{way}");
    match way {
        "fast" => client.get(&path).bearer(token).send().await,
        "body" => client.post(&path).bearer(token).body("{}").send().await,
        _ => {
            let connection = H2Client::connect(doorward.proxy_addr()).await;
            let bearer = format!("Bearer {token}");
            let answer = connection.request(Method::GET, &path, &[("authorization", bearer.as_bytes())]).await;
            answer.expect("an answer")
        }
    }
}

async fn revoke(doorward: &Doorward, token: &str) {
    assert_eq!(doorward.client().delete("/auth/session").bearer(token).send().await.status, 200);
}

#[tokio::test]
async fn a_session_revoked_before_the_head_is_refused_counted_and_logged_alike() {
    let upstream = Upstream::start().await;
    for way in WAYS {
        let doorward = Doorward::builder().upstream(upstream.url()).start().await;
        let token = sign_in_guest(&doorward, way).await;
        let path = format!("/hang?{way}");
        let revoking = async {
            upstream.wait_for(|request| request.target == path).await;
            assert_eq!(counted(&doorward).await, [""; 0], "{way}: nothing is decided for good");
            revoke(&doorward, &token).await;
        };
        let (answer, ()) = tokio::join!(ask(&doorward, way, &token), revoking);
        assert_eq!((answer.status, answer.text().as_str()), (401, REVOKED), "{way}");
        let line = line_about(&doorward, "/hang").await;
        assert_eq!((&line["auth.outcome"], &line["auth.reason"]), (&"deny".into(), &"revoked".into()), "{way}");
        assert_eq!(line["http.response.status_code"], 401, "{way}");
        assert_eq!(line["error.type"], Value::Null, "{way}: it was refused, not cut");
        let expected = r#"{outcome="deny",principal="none",reason="revoked"} 1"#;
        assert_eq!(counted(&doorward).await, [expected], "{way}");
    }
}

#[tokio::test]
async fn a_session_revoked_after_the_head_was_let_through_and_is_cut() {
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().upstream(upstream.url()).start().await;
    let token = sign_in_guest(&doorward, "events").await;
    let mut events = doorward.client().get("/sse").bearer(&token).stream().await;
    assert!(events.next().await.is_some());
    let allowed = r#"{outcome="allow",principal="anonymous",reason="ok"} 1"#;
    assert_eq!(counted(&doorward).await, [allowed]);
    revoke(&doorward, &token).await;
    assert!(!events.ended().await, "the stream is cut");
    let line = line_about(&doorward, "/sse").await;
    assert_eq!((&line["auth.outcome"], &line["auth.reason"]), (&"allow".into(), &"ok".into()));
    assert_eq!(line["error.type"], "session_cut");
    assert_eq!(counted(&doorward).await, [allowed]);
}
