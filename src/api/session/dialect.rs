//! The `detail` dialect, and what every response of the surface carries.
//!
//! One layer renders whatever a handler refused and whatever the router itself refused, so that no
//! response leaves in another shape. The 404 under `/auth` satisfies the readers of two surfaces.

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, StatusCode};
use http_body::Body as _;
use serde::Serialize;

use crate::api::error::{Error, Kind, complete, detail_body, json_text, with_body};
use crate::api::extract::RequestId;
use crate::telemetry::with_causes;

/// The 404 body that both surfaces under `/auth` understand (contracts §2.3).
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NoRoute<'a> {
    status_code: u16,
    message: &'a str,
    error: &'a str,
    detail: &'a str,
}

pub(in crate::api) async fn speak(
    State(random): State<Arc<dyn SecureRandom + Send + Sync>>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request.extensions().get().copied().unwrap_or_else(|| RequestId::random(&*random));
    let method = request.method().clone();
    // Without the query: callers put secrets there by mistake, and responses are logged.
    let path = request.uri().path().to_owned();
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<Error>() {
        log(&error, request_id);
        response = with_body(&error, detail_body(&error.message)).map(Body::from);
    } else if response.status() == StatusCode::NOT_FOUND {
        response = with_body(&Kind::NotFound.into(), no_route(&method, &path)).map(Body::from);
    } else if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = other_method(&method);
    }
    complete(response.headers_mut(), request_id);
    if method == Method::HEAD { without_body(response) } else { response }
}

// The router removes the body only on known paths; the length stays that of GET.
fn without_body(mut response: Response) -> Response {
    if let Some(length) = response.body().size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
    response.map(|_| Body::empty())
}

// The router adds `Allow` to what this returns.
fn other_method(method: &Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let error = Error::from(Kind::MethodNotAllowed);
    with_body(&error, detail_body(&error.message)).map(Body::from)
}

fn no_route(method: &Method, path: &str) -> Bytes {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let message = format!("Cannot {method} {path}");
    json_text(&NoRoute { status_code: 404, message: &message, error: "Not Found", detail: "Not Found" })
}

// Without a cause there is nothing to add to the access log's line, least of all during an outage.
fn log(error: &Error, request_id: RequestId) {
    if let Some(cause) = &error.source
        && error.kind.status().is_server_error()
    {
        let (kind, cause) = (error.kind.label(), with_causes(cause.as_ref()));
        tracing::warn!(http.request.id = %request_id, "error.type" = kind, error.cause = cause, "{error}");
    }
}
