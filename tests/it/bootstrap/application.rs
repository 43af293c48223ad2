//! An application with documents: one a user, made when it is asked to.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{Barrier, Semaphore};
use tokio::task::JoinSet;

use crate::support::within;

/// A running application; it ends on drop.
pub(super) struct Application {
    url: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    documents: Mutex<HashMap<String, Vec<Value>>>,
    /// Each request that makes a document: method, idempotency key and user.
    makings: Mutex<Vec<(String, String, String)>>,
    /// Opens when all three sections have asked.
    meeting: Barrier,
    gate: Semaphore,
    at_the_gate: Semaphore,
}

impl Application {
    pub(super) async fn start() -> Self {
        let shared = Arc::new(Shared {
            documents: Mutex::default(),
            makings: Mutex::default(),
            meeting: Barrier::new(3),
            gate: Semaphore::new(0),
            at_the_gate: Semaphore::new(0),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let routes = Router::new()
            .route("/profile", get(find).put(put).post(post))
            .route("/never", get(async || StatusCode::NOT_FOUND).put(async || StatusCode::NO_CONTENT))
            .route("/meeting", get(meet))
            .route("/gate", get(wait))
            .with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            axum::serve(listener, routes).await.expect("axum serves until it is dropped");
        });
        Self { url, shared, _tasks: tasks }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns every request that makes a document so far.
    pub(super) fn makings(&self) -> Vec<(String, String, String)> {
        self.shared.makings.lock().expect("no holder panics").clone()
    }

    /// Returns a user's documents: more than one if one was made twice by POST.
    pub(super) fn documents(&self, user: &str) -> Vec<Value> {
        self.shared.documents.lock().expect("no holder panics").get(user).cloned().unwrap_or_default()
    }

    /// Waits until a request for `/gate` has come.
    pub(super) async fn asked(&self) {
        let come = within("a request at the gate", self.shared.at_the_gate.acquire()).await;
        come.expect("it is never closed").forget();
    }

    /// Lets one request for `/gate` be answered.
    pub(super) fn open(&self) {
        self.shared.gate.add_permits(1);
    }
}

impl Shared {
    fn note(&self, method: &str, headers: &HeaderMap) -> String {
        let text = |name| headers[name].to_str().expect("visible ASCII").to_owned();
        let user = text("x-user-id");
        let making = (method.to_owned(), text("idempotency-key"), user.clone());
        self.makings.lock().expect("no holder panics").push(making);
        user
    }
}

async fn find(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let user = headers["x-user-id"].to_str().expect("visible ASCII");
    let documents = shared.documents.lock().expect("no holder panics");
    match documents.get(user).and_then(|documents| documents.first()) {
        Some(document) => document.to_string().into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn put(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> StatusCode {
    let user = shared.note("PUT", &headers);
    let document = serde_json::from_str(&body).expect("a JSON document");
    shared.documents.lock().expect("no holder panics").insert(user, vec![document]);
    StatusCode::NO_CONTENT
}

async fn post(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: String) -> StatusCode {
    let user = shared.note("POST", &headers);
    let document = serde_json::from_str(&body).expect("a JSON document");
    shared.documents.lock().expect("no holder panics").entry(user).or_default().push(document);
    StatusCode::CREATED
}

async fn meet(State(shared): State<Arc<Shared>>) -> String {
    shared.meeting.wait().await;
    json!({ "met": true }).to_string()
}

async fn wait(State(shared): State<Arc<Shared>>) -> String {
    shared.at_the_gate.add_permits(1);
    shared.gate.acquire().await.expect("it is never closed").forget();
    json!({}).to_string()
}
