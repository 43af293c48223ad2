//! The demo's application: answers every request with what it received of it.
//!
//! It knows nothing of sessions. Whatever identity it prints came in headers.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::json;

/// Returns the application: 200 and one line of JSON with `method`, `path` and `headers`, each
/// header name with all its values, whatever the request.
pub fn routes() -> Router {
    Router::new().fallback(echo)
}

async fn echo(request: Request) -> impl IntoResponse {
    let mut headers: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (name, value) in request.headers() {
        headers.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let body = json!({ "method": request.method().as_str(), "path": path, "headers": headers });
    ([(CONTENT_TYPE, "application/json")], format!("{body}\n"))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn it_prints_what_it_received() {
        let request = Request::post("/a/b?c=d")
            .header("X-User-ID", "user_alice")
            .header("x-client-id", "default")
            .header("x-user-id", "mallory")
            .body(Body::empty())
            .unwrap();
        let response = routes().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()[CONTENT_TYPE], "application/json");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let expected = json!({
            "method": "POST",
            "path": "/a/b?c=d",
            "headers": { "x-client-id": ["default"], "x-user-id": ["user_alice", "mallory"] },
        });
        assert_eq!(body, format!("{expected}\n"));
    }
}
