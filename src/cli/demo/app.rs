//! The demo's application: keeps notes, and echoes every other request.
//!
//! It has no sessions: the caller's identity comes in headers. Only Doorward, which proves itself by a
//! secret, may give one person's notes to another.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::secret::Secret;

/// The rebind hook, where Doorward gives notes to another owner.
pub const REBIND_PATH: &str = "/rebind";
/// More notes, or longer ones, are refused, to bound the demo's memory.
const NOTES_MAX: usize = 1000;
const NOTE_BYTES_MAX: usize = 1000;

/// The application.
struct DemoApp {
    secret: Secret,
    kept: Mutex<KeptNotes>,
}

#[derive(Default)]
struct KeptNotes {
    notes: Vec<Note>,
    /// How many notes each rebind moved, by its idempotency key: a repeated one moves nothing.
    rebinds: BTreeMap<String, usize>,
}

#[derive(Clone, Serialize)]
struct Note {
    owner: String,
    text: String,
}

/// The body of Doorward's call of the rebind hook (contracts §12.3).
#[derive(Deserialize)]
struct RebindCall {
    from: String,
    to: String,
    idempotency_key: String,
}

/// Returns the application: `POST /notes` keeps the body, `GET /notes` lists the caller's; 200 and one
/// line of JSON with `method`, `path` and `headers` for anything else.
pub fn routes(secret: Secret) -> Router {
    let app = Arc::new(DemoApp { secret, kept: Mutex::default() });
    Router::new().route("/notes", get(list).post(keep)).route(REBIND_PATH, post(rebind)).with_state(app).fallback(echo)
}

async fn keep(State(app): State<Arc<DemoApp>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some(owner) = caller(&headers) else { return StatusCode::UNAUTHORIZED.into_response() };
    let note = Note { owner, text: String::from_utf8_lossy(&body).into_owned() };
    let mut kept = app.kept.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.notes.len() >= NOTES_MAX || note.text.len() > NOTE_BYTES_MAX {
        return StatusCode::INSUFFICIENT_STORAGE.into_response();
    }
    kept.notes.push(note.clone());
    (StatusCode::CREATED, line(&note)).into_response()
}

async fn list(State(app): State<Arc<DemoApp>>, headers: HeaderMap) -> Response {
    let Some(owner) = caller(&headers) else { return StatusCode::UNAUTHORIZED.into_response() };
    let kept = app.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let own: Vec<&Note> = kept.notes.iter().filter(|note| note.owner == owner).collect();
    line(&own)
}

async fn rebind(State(app): State<Arc<DemoApp>>, headers: HeaderMap, body: Bytes) -> Response {
    let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    // In constant time, so that its duration shows nothing of the secret.
    if shown.map(|shown| Secret::new(shown.to_owned())).as_ref() != Some(&app.secret) {
        return StatusCode::FORBIDDEN.into_response();
    }
    let Ok(RebindCall { from, to, idempotency_key }) = serde_json::from_slice(&body) else {
        return StatusCode::UNPROCESSABLE_ENTITY.into_response();
    };
    let mut kept = app.kept.lock().unwrap_or_else(PoisonError::into_inner);
    let KeptNotes { notes, rebinds } = &mut *kept;
    if rebinds.len() >= NOTES_MAX {
        return StatusCode::INSUFFICIENT_STORAGE.into_response();
    }
    let rows = *rebinds.entry(idempotency_key).or_insert_with(|| {
        let moved = notes.iter_mut().filter(|note| note.owner == from);
        moved.map(|note| note.owner.clone_from(&to)).count()
    });
    line(&json!({ "rows": rows }))
}

async fn echo(request: Request) -> Response {
    let mut headers: BTreeMap<&str, Vec<_>> = BTreeMap::new();
    for (name, value) in request.headers() {
        headers.entry(name.as_str()).or_default().push(String::from_utf8_lossy(value.as_bytes()));
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    line(&json!({ "method": request.method().as_str(), "path": path, "headers": headers }))
}

// Every request comes through Doorward, which names the caller in this header.
fn caller(headers: &HeaderMap) -> Option<String> {
    headers.get("x-user-id").and_then(|value| value.to_str().ok()).map(str::to_owned)
}

fn line(value: &impl Serialize) -> Response {
    let text = json!(value);
    ([(CONTENT_TYPE, "application/json")], format!("{text}\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    async fn ask(app: &Router, request: Request) -> (u16, String) {
        let response = app.clone().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    fn notes(user: &str, text: Option<&str>) -> Request {
        let method = if text.is_some() { "POST" } else { "GET" };
        let request = Request::builder().method(method).uri("/notes").header("X-User-ID", user);
        request.body(Body::from(text.unwrap_or_default().to_owned())).unwrap()
    }

    #[tokio::test]
    async fn it_prints_what_it_received() {
        let request = Request::post("/a/b?c=d")
            .header("X-User-ID", "user_alice")
            .header("x-client-id", "default")
            .header("x-user-id", "mallory")
            .body(Body::empty())
            .unwrap();
        let response = routes(Secret::new("secret".to_owned())).oneshot(request).await.unwrap();
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

    #[tokio::test]
    async fn notes_belong_to_their_author_until_doorward_rebinds_them() {
        let app = routes(Secret::new("secret".to_owned()));
        let made = ask(&app, notes("anon:1", Some("buy milk"))).await;
        assert_eq!(made, (201, "{\"owner\":\"anon:1\",\"text\":\"buy milk\"}\n".to_owned()));
        ask(&app, notes("anon:2", Some("not mine"))).await;
        assert_eq!(ask(&app, notes("user_alice", None)).await, (200, "[]\n".to_owned()));
        let rebind = |secret: &str, key: &str| {
            let body = json!({ "from": "anon:1", "to": "user_alice", "idempotency_key": key });
            let request = Request::post(REBIND_PATH).header(AUTHORIZATION, format!("Bearer {secret}"));
            request.body(Body::from(body.to_string())).unwrap()
        };
        assert_eq!(ask(&app, rebind("guess", "a")).await.0, 403);
        for (key, rows) in [("a", 1), ("a", 1), ("b", 0)] {
            assert_eq!(ask(&app, rebind("secret", key)).await, (200, format!("{{\"rows\":{rows}}}\n")), "{key}");
        }
        let owned = "[{\"owner\":\"user_alice\",\"text\":\"buy milk\"}]\n".to_owned();
        assert_eq!(ask(&app, notes("user_alice", None)).await, (200, owned));
        assert_eq!(ask(&app, notes("anon:1", None)).await, (200, "[]\n".to_owned()));
        let unnamed = Request::get("/notes").body(Body::empty()).unwrap();
        assert_eq!(ask(&app, unnamed).await.0, 401);
        let long = "x".repeat(NOTE_BYTES_MAX + 1);
        assert_eq!(ask(&app, notes("user_alice", Some(&long))).await.0, 507);
    }
}
