//! The `detail` dialect as this surface speaks it: 404 has no second reader here.

use std::sync::Arc;

use aws_lc_rs::rand::SecureRandom;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use http::{Method, StatusCode};

use crate::api::error::{Error, complete, detail_body, with_body};
use crate::api::extract::RequestId;
use crate::api::session::dialect::{log, other_method, without_body};

pub(super) async fn speak(
    State(random): State<Arc<dyn SecureRandom + Send + Sync>>,
    request: Request,
    next: Next,
) -> Response {
    let request_id = request.extensions().get().copied().unwrap_or_else(|| RequestId::random(&*random));
    let method = request.method().clone();
    let mut response = next.run(request).await;
    if let Some(error) = response.extensions_mut().remove::<Error>() {
        log(&error, request_id);
        response = with_body(&error, detail_body(&error.message)).map(Body::from);
    } else if response.status() == StatusCode::METHOD_NOT_ALLOWED {
        response = other_method(&method);
    }
    complete(response.headers_mut(), request_id);
    if method == Method::HEAD { without_body(response) } else { response }
}
