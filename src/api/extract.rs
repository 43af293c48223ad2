//! What a request says in its body, and who sent it.
//!
//! A body is one JSON object without repeated keys, so that no two readers can disagree about what
//! it said.

use std::net::IpAddr;

use axum::body::Body;
use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use crate::api::problem::{Problem, What};
use crate::wire::json::parse_object;

/// The largest JSON body that is read, in bytes (contracts §3 rule 2).
const BODY_MAX: usize = 64 * 1024;
/// How much of a content type is repeated to its sender, in bytes.
const TYPE_MAX: usize = 255;

/// The caller's address as the proxy knows it. A request extension; absent behind a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// Returns the JSON object in a request's body; an absent body is an empty object (contracts §3 rule 2).
pub async fn object(request: Request<Body>) -> Result<Map<String, Value>, Problem> {
    let (head, body) = request.into_parts();
    let bytes = whole(body, BODY_MAX).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    if !is_json(&head.headers) {
        return Err(unsupported(&head.headers).into());
    }
    parse_object(&bytes).ok_or_else(|| What::MalformedBody.into())
}

/// Returns a body of at most `bytes_max` bytes, as they were sent.
pub(super) async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, Problem> {
    Ok(Limited::new(body, bytes_max).collect().await.map_err(unreadable)?.to_bytes())
}

/// Returns whether the one content type says JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    let essence = |value: &[u8]| value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_vec();
    let first = types.next().is_some_and(|value| essence(value).eq_ignore_ascii_case(b"application/json"));
    first && types.next().is_none()
}

/// Returns what to say of a body that is not JSON.
pub(super) fn unsupported(headers: &HeaderMap) -> What {
    let actual = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    // Repeated to its sender: as much of it as a real type needs (RFC 6838 §4.2 allows 127 + 1 + 127).
    let actual = actual.map(|actual| actual.chars().take(TYPE_MAX).collect());
    What::UnsupportedMediaType { actual }
}

fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> Problem {
    let what = if error.is::<LengthLimitError>() { What::TooLarge } else { What::BadRequest };
    Problem { what, source: Some(error.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dialect::in_words;

    async fn read(content_type: Option<&str>, body: impl Into<Body>) -> Result<Map<String, Value>, Problem> {
        let mut request = Request::new(body.into());
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        object(request).await
    }

    async fn refusal(content_type: Option<&str>, body: impl Into<Body>) -> (What, String) {
        let what = read(content_type, body).await.unwrap_err().what;
        let words = in_words(&what).into_owned();
        (what, words)
    }

    #[tokio::test]
    async fn a_json_object_is_read_with_any_parameters_of_its_type() {
        for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"] {
            assert_eq!(read(Some(content_type), r#"{"a":1}"#).await.unwrap()["a"], 1, "{content_type}");
        }
    }

    #[tokio::test]
    async fn an_absent_body_is_an_empty_object_of_any_type() {
        for content_type in [None, Some("application/json"), Some("text/plain")] {
            assert!(read(content_type, Body::empty()).await.unwrap().is_empty(), "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn another_type_is_refused() {
        for content_type in [None, Some("text/plain"), Some("application/jsonp"), Some("application/json, text/plain")]
        {
            let what = What::UnsupportedMediaType { actual: content_type.map(str::to_owned) };
            let expected = (what, "Unsupported media type".to_owned());
            assert_eq!(refusal(content_type, "{}").await, expected, "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn two_types_are_refused() {
        let mut request = Request::new(Body::from("{}"));
        for content_type in ["application/json", "text/plain"] {
            request.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        assert_eq!(object(request).await.unwrap_err().what.label(), "unsupported_media_type");
    }

    #[tokio::test]
    async fn anything_but_one_object_without_repeated_keys_is_malformed() {
        let expected = (What::MalformedBody, "Invalid JSON body".to_owned());
        let bodies: [&[u8]; 11] = [
            b"[]",
            b"null",
            b"\"x\"",
            b"{",
            b"{} {}",
            b"{}x",
            b" ",
            b"{\"a\":\"\xff\"}",
            b"{\"a\":\"\\ud800\"}",
            br#"{"device_id":"a","device_id":"b"}"#,
            br#"{"data":{"a":1,"a":2}}"#,
        ];
        for body in bodies {
            assert_eq!(refusal(Some("application/json"), body).await, expected, "{body:?}");
        }
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let body_of = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - r#"{"a":""}"#.len()));
        assert!(read(Some("application/json"), body_of(BODY_MAX)).await.is_ok());
        let expected = (What::TooLarge, "Request body too large".to_owned());
        assert_eq!(refusal(Some("application/json"), body_of(BODY_MAX + 1)).await, expected);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_bad_request() {
        let broken = futures_util::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("reset")) });
        assert_eq!(refusal(Some("application/json"), Body::from_stream(broken)).await.0, What::BadRequest);
    }
}
