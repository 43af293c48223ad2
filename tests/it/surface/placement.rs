//! The surface is where the configuration puts it, and nowhere else.

use serde_json::json;

use crate::support::doorward::Doorward;
use crate::support::upstream::Upstream;

const OPEN: &str = "routes: [{ path: '/**', auth: none }]";

#[tokio::test]
async fn a_surface_that_moved_leaves_its_old_paths_to_the_application() {
    let upstream = Upstream::start().await;
    let moved = "surfaces: { session_exchange: { prefix: /v1/auth } }";
    let doorward = Doorward::builder().upstream(upstream.url()).config(OPEN).config(moved).start().await;
    let client = doorward.client();
    let device = json!({ "device_id": "a-guest's-device" });
    let started = client.post("/v1/auth/anonymous").json(&device).send().await;
    assert_eq!(started.status, 200, "{started:?}");
    let token = started.json()["token"].as_str().expect("a token").to_owned();
    assert_eq!(upstream.count(), 0);
    assert_eq!(client.post("/auth/anonymous").json(&device).send().await.json()["target"], "/auth/anonymous");
    assert_eq!(client.get("/v1/authors").send().await.json()["target"], "/v1/authors");
    let nothing = client.get("/v1/auth/x").send().await;
    let body = r#"{"statusCode":404,"message":"Cannot GET /v1/auth/x","error":"Not Found","detail":"Not Found"}"#;
    assert_eq!((nothing.status, nothing.text().as_str()), (404, body));
    assert_eq!(client.delete("/v1/auth/session").bearer(&token).send().await.status, 200);
    let metrics = doorward.admin_get("/metrics").await.text();
    for series in [
        r#"auth_requests_total{op="anonymous",status="200",surface="session_exchange"} 1"#,
        r#"auth_requests_total{op="logout",status="200",surface="session_exchange"} 1"#,
        r#"auth_requests_total{op="none",status="404",surface="session_exchange"} 1"#,
        r#"auth_requests_total{op="exchange",status="503",surface="session_exchange"} 0"#,
        r#"auth_request_duration_seconds_count{op="logout",surface="session_exchange"} 1"#,
        r#"http_requests_total{code="404",handler="session_exchange",route="none"} 1"#,
    ] {
        assert!(metrics.contains(&format!("doorward_{series}\n")), "{series} in {metrics}");
    }
}

#[tokio::test]
async fn a_surface_that_is_switched_off_has_no_paths() {
    let upstream = Upstream::start().await;
    let off = "surfaces: { session_exchange: { enabled: false } }";
    let doorward = Doorward::builder().upstream(upstream.url()).config(OPEN).config(off).start().await;
    let client = doorward.client();
    for path in ["/auth/anonymous", "/auth", "/auth/x"] {
        assert_eq!(client.post(path).send().await.json()["target"], path);
    }
    // Doorward's own corner is never the application's.
    assert_eq!(client.get("/_doorward/x").send().await.status, 404);
    assert_eq!(client.post("/webhooks/clerk").send().await.status, 404);
    assert_eq!(upstream.count(), 3);
}
