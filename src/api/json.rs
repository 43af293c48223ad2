//! JSON answers: the exact content type, and the text.

use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use serde::Serialize;

/// The content type of every JSON answer: no parameters, which some clients compare (contracts §3 rule 1).
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A 200 response with a JSON body.
pub(super) struct Json<T>(pub(super) T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, JSON)], json_text(&self.0)).into_response()
    }
}

/// Returns `value` as JSON text.
pub(super) fn json_text(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("structs of strings and numbers always serialise").into()
}
