//! What a request says: its token, its JSON body, who sent it and what it is called in the log.
//!
//! A token has exactly one place and one shape (RFC 6750 §2.1); two headers, or bytes that no
//! token has, are refused rather than repaired. A body is one JSON object without repeated keys,
//! so that no two readers can disagree about what it said.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::rand::SecureRandom;
use axum::body::Body;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Map, Value};

use crate::api::error::{Error, Kind};
use crate::secret::random_bytes;
use crate::wire::json::parse_object;

/// The longest token that is looked at, in bytes (contracts §3 rule 3).
const TOKEN_MAX: usize = 8192;
/// The largest JSON body that is read, in bytes (contracts §3 rule 2).
const BODY_MAX: usize = 64 * 1024;

/// Why a request has no usable bearer token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BearerError {
    /// No `Authorization` header, another scheme, or nothing after the scheme.
    Missing,
    /// Several headers, or a text that cannot be a token.
    Invalid,
}

/// Names one exchange in logs and in `X-Request-ID`: 16 lowercase hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

/// The caller's address as the proxy knows it. A request extension; absent behind a unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

impl RequestId {
    /// Returns a new random id, or zero if there is no randomness: an id is not a secret.
    pub fn random(random: &dyn SecureRandom) -> Self {
        Self(random_bytes::<8>(random).map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }

    /// Returns a number in [0, 1) that depends on nothing but the id: for sampling.
    pub fn sample_value(self) -> f64 {
        // The upper 53 bits, as many as a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let upper = (self.0 >> 11) as f64;
        upper / 9_007_199_254_740_992.0
    }

    /// Returns the id as a header value.
    ///
    /// # Panics
    ///
    /// Never: hex digits are a valid header value.
    pub fn header_value(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.digits()).expect("hex digits are a valid header value")
    }

    // By hand: the formatting machinery costs ten times as much, and every response has one.
    fn digits(self) -> [u8; 16] {
        let nibble = |place: usize| u8::try_from(self.0 >> (60 - 4 * place) & 0xF).unwrap_or_default();
        std::array::from_fn(|place| match nibble(place) {
            digit @ 0..=9 => b'0' + digit,
            letter => b'a' + letter - 10,
        })
    }
}

impl From<u64> for RequestId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

/// Returns the bearer token of a request (contracts §3 rule 3).
pub fn bearer(headers: &HeaderMap) -> Result<&str, BearerError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().ok_or(BearerError::Missing)?.as_bytes();
    if values.next().is_some() {
        return Err(BearerError::Invalid);
    }
    // A tab ends the scheme too: `Bearer<TAB>x` is a bad bearer header, not some other scheme's.
    let end = value.iter().position(|byte| b" \t".contains(byte)).unwrap_or(value.len());
    let (scheme, rest) = value.split_at(end);
    if !scheme.eq_ignore_ascii_case(b"bearer") {
        return Err(BearerError::Missing);
    }
    let spaces = rest.iter().take_while(|&&byte| byte == b' ').count();
    let token = rest.get(spaces..).unwrap_or_default();
    if token.is_empty() {
        return Err(BearerError::Missing);
    }
    if token.len() > TOKEN_MAX || !is_b64token(token) {
        return Err(BearerError::Invalid);
    }
    std::str::from_utf8(token).map_err(|_| BearerError::Invalid)
}

/// Returns whether a token has a JWT's two dots; our own have none, whatever their version.
pub fn is_jwt_shaped(token: &str) -> bool {
    token.bytes().filter(|&byte| byte == b'.').count() == 2
}

/// Returns the JSON object in a request's body; an absent body is an empty object (contracts §3 rule 2).
pub async fn object(request: Request<Body>) -> Result<Map<String, Value>, Error> {
    let (head, body) = request.into_parts();
    let bytes = whole(body, BODY_MAX).await?;
    if bytes.is_empty() {
        return Ok(Map::new());
    }
    if !is_json(&head.headers) {
        return Err(Kind::UnsupportedMediaType.into());
    }
    parse_object(&bytes).ok_or_else(|| Kind::Unprocessable.into())
}

/// Returns a body of at most `bytes_max` bytes, as they were sent.
pub(super) async fn whole(body: Body, bytes_max: usize) -> Result<Bytes, Error> {
    Ok(Limited::new(body, bytes_max).collect().await.map_err(unreadable)?.to_bytes())
}

// RFC 6750 §2.1: 1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="
fn is_b64token(text: &[u8]) -> bool {
    let end = text.iter().rposition(|&byte| byte != b'=').map_or(0, |last| last + 1);
    let body = text.get(..end).unwrap_or_default();
    let is_plain =
        |byte: &u8| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    !body.is_empty() && body.iter().all(is_plain)
}

/// Returns whether the one content type says JSON.
pub(super) fn is_json(headers: &HeaderMap) -> bool {
    let mut types = headers.get_all(CONTENT_TYPE).iter().map(HeaderValue::as_bytes);
    let essence = |value: &[u8]| value.split(|&byte| byte == b';').next().unwrap_or_default().trim_ascii().to_vec();
    let first = types.next().is_some_and(|value| essence(value).eq_ignore_ascii_case(b"application/json"));
    first && types.next().is_none()
}

fn unreadable(error: Box<dyn std::error::Error + Send + Sync>) -> Error {
    let kind = if error.is::<LengthLimitError>() { Kind::TooLarge } else { Kind::BadRequest };
    Error { source: Some(error.into()), ..kind.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authorization(values: &[&[u8]]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(AUTHORIZATION, HeaderValue::from_bytes(value).unwrap());
        }
        headers
    }

    async fn read(content_type: Option<&str>, body: impl Into<Body>) -> Result<Map<String, Value>, Error> {
        let mut request = Request::new(body.into());
        if let Some(content_type) = content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.parse().unwrap());
        }
        object(request).await
    }

    async fn refusal(content_type: Option<&str>, body: impl Into<Body>) -> (Kind, String) {
        let error = read(content_type, body).await.unwrap_err();
        (error.kind, error.message.into_owned())
    }

    #[test]
    fn one_token_in_one_header_is_read() {
        let longest = "x".repeat(TOKEN_MAX);
        let cases = [
            ("Bearer abc".to_owned(), "abc"),
            ("bearer abc".to_owned(), "abc"),
            ("BEARER    a.b-c_d~e+f/g==".to_owned(), "a.b-c_d~e+f/g=="),
            (format!("Bearer {longest}"), &longest),
        ];
        for (value, token) in cases {
            assert_eq!(bearer(&authorization(&[value.as_bytes()])), Ok(token));
        }
    }

    #[test]
    fn no_token_is_missing() {
        let cases: [&[&[u8]]; 8] =
            [&[], &[b""], &[b"Bearer"], &[b"Bearer "], &[b"Bearer    "], &[b"Basic abc"], &[b"Bearerabc"], &[b" "]];
        for values in cases {
            assert_eq!(bearer(&authorization(values)), Err(BearerError::Missing), "{values:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_token_is_invalid() {
        let too_long = format!("Bearer {}", "x".repeat(TOKEN_MAX + 1));
        let cases: [&[&[u8]]; 12] = [
            &[b"Bearer\tabc"],
            &[b"Bearer \tabc"],
            &[b"Bearer\t abc"],
            &[b"Bearer abc", b"Bearer abc"],
            &[b"Bearer abc", b"Basic abc"],
            &[b"Bearer a b"],
            &[b"Bearer abc, Bearer def"],
            &[b"Bearer abc "],
            &[b"Bearer \"abc\""],
            &[b"Bearer =abc"],
            &[b"Bearer \xc3\xa9"],
            &[too_long.as_bytes()],
        ];
        for values in cases {
            assert_eq!(bearer(&authorization(values)), Err(BearerError::Invalid), "{values:?}");
        }
    }

    #[tokio::test]
    async fn a_json_object_is_read_whatever_the_parameters_of_its_type() {
        for content_type in ["application/json", "Application/JSON; charset=utf-8", "application/json;x=y"] {
            assert_eq!(read(Some(content_type), r#"{"a":1}"#).await.unwrap()["a"], 1, "{content_type}");
        }
    }

    #[tokio::test]
    async fn an_absent_body_is_an_empty_object_whatever_the_type() {
        for content_type in [None, Some("application/json"), Some("text/plain")] {
            assert!(read(content_type, Body::empty()).await.unwrap().is_empty(), "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn another_type_is_refused() {
        let expected = (Kind::UnsupportedMediaType, "Unsupported media type".to_owned());
        for content_type in [None, Some("text/plain"), Some("application/jsonp"), Some("application/json, text/plain")]
        {
            assert_eq!(refusal(content_type, "{}").await, expected, "{content_type:?}");
        }
    }

    #[tokio::test]
    async fn two_types_are_refused() {
        let mut request = Request::new(Body::from("{}"));
        for content_type in ["application/json", "text/plain"] {
            request.headers_mut().append(CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        assert_eq!(object(request).await.unwrap_err().kind, Kind::UnsupportedMediaType);
    }

    #[tokio::test]
    async fn anything_but_one_object_without_repeated_keys_is_malformed() {
        let expected = (Kind::Unprocessable, "Invalid JSON body".to_owned());
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
        let expected = (Kind::TooLarge, "Request body too large".to_owned());
        assert_eq!(refusal(Some("application/json"), body_of(BODY_MAX + 1)).await, expected);
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_a_bad_request() {
        let broken = futures_util::stream::once(async { Err::<bytes::Bytes, _>(std::io::Error::other("reset")) });
        assert_eq!(refusal(Some("application/json"), Body::from_stream(broken)).await.0, Kind::BadRequest);
    }

    #[test]
    fn a_request_id_is_sixteen_lowercase_hex_digits() {
        assert_eq!(RequestId::from(0xABC).to_string(), "0000000000000abc");
        let random = aws_lc_rs::rand::SystemRandom::new();
        assert_ne!(RequestId::random(&random), RequestId::random(&random));
    }
}
