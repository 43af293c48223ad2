//! What every response of a surface carries, and the dialect of what it refuses.
//!
//! One layer renders what a handler refused and what the router itself refused, so that no response
//! leaves in another shape.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SecureRandom;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CONTENT_LENGTH};
use http::{HeaderValue, Method, StatusCode};
use http_body::Body as _;
use tokio::time::Instant;
use tower::Layer;

use crate::api::dialect::{Dialect, in_words, render_for_both};
use crate::api::problem::{Problem, What};
use crate::api::request_id::RequestId;
use crate::metrics::Metrics;
use crate::model::surface::SurfaceId;
use crate::telemetry::with_causes;

/// The operation of a request that none has: an unknown path, or another method.
const NO_OP: &str = "none";

/// How a surface answers.
#[derive(Clone)]
pub(super) struct Speaker {
    /// Which one it is.
    pub(super) surface: SurfaceId,
    /// The shape of its errors.
    pub(super) dialect: Dialect,
    /// Whether its prefix is shared with a surface whose callers read `nest`: then a path that
    /// neither has is answered for both.
    pub(super) shared: bool,
    /// Counts and times its answers.
    pub(super) metrics: Arc<Metrics>,
    /// Makes request ids for requests that came without one.
    pub(super) random: Arc<dyn SecureRandom + Send + Sync>,
}

/// Names the operation that answered: an extension of its response.
#[derive(Clone, Copy)]
pub(super) struct AnsweredBy(pub(super) &'static str);

/// Returns `operations` with every refusal of theirs in the surface's dialect.
///
/// Around the router and not a layer of it: the router adds `Allow` after its layers have run.
pub(super) fn speaking(operations: Router, speaker: Speaker) -> Router {
    Router::new().fallback_service(from_fn_with_state(speaker, speak).layer(operations))
}

async fn speak(State(speaker): State<Speaker>, request: Request, next: Next) -> Response {
    let request_id = request.extensions().get().copied().unwrap_or_else(|| RequestId::random(&*speaker.random));
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let began = Instant::now();
    let mut response = next.run(request).await;
    let op = response.extensions_mut().remove::<AnsweredBy>().map_or(NO_OP, |AnsweredBy(op)| op);
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        log(&problem, speaker.dialect, request_id);
        response = speaker.dialect.render(&problem, request_id).map(Body::from);
    } else if response.status() == StatusCode::NOT_FOUND {
        response = speaker.no_route(method.clone(), path, request_id);
    } else if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = speaker.other_method(&method, &response, request_id);
    }
    speaker.dialect.complete(response.headers_mut(), request_id);
    speaker.count(op, response.status(), began.elapsed());
    if method == Method::HEAD { without_body(response) } else { response }
}

impl Speaker {
    // Contracts §3 rule 11.
    fn count(&self, op: &'static str, status: StatusCode, took: Duration) {
        let surface = self.surface.label();
        self.metrics.auth_requests.with_label_values(&[surface, op, status.as_str()]).inc();
        self.metrics.auth_request_duration.with_label_values(&[surface, op]).observe(took.as_secs_f64());
    }

    fn no_route(&self, method: Method, path: String, request_id: RequestId) -> Response {
        let problem = What::NoRoute { method, path }.into();
        let render = |problem| {
            if self.shared { render_for_both(problem, request_id) } else { self.dialect.render(problem, request_id) }
        };
        render(&problem).map(Body::from)
    }

    fn other_method(&self, method: &Method, refused: &Response, request_id: RequestId) -> Response {
        let allow = refused.headers().get(ALLOW).cloned().unwrap_or(HeaderValue::from_static(""));
        if method == Method::OPTIONS {
            return (StatusCode::NO_CONTENT, [(ALLOW, allow)]).into_response();
        }
        self.dialect.render(&What::MethodNotAllowed { allow }.into(), request_id).map(Body::from)
    }
}

// The dialect writes status and body. A router without the layer would be a mistake of ours: 500.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

// The router removes the body only on known paths; the length stays that of GET.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().entry(CONTENT_LENGTH).or_insert(length.into());
    }
    response.map(|_| Body::empty())
}

// Without a cause there is nothing to add to the access log's line, least of all during an outage.
fn log(problem: &Problem, dialect: Dialect, request_id: RequestId) {
    if let Some(cause) = &problem.source
        && dialect.status(&problem.what).is_server_error()
    {
        let (label, cause) = (problem.what.label(), with_causes(cause.as_ref()));
        let words = in_words(&problem.what);
        tracing::warn!(http.request.id = %request_id, "error.type" = label, error.cause = cause, "{words}");
    }
}
