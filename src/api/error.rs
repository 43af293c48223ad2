//! The one error value of the HTTP layer, and the `detail` body of the surfaces that use it.
//!
//! A [`Kind`] decides status, challenge and metric label in one exhaustive match; the message is
//! what the `detail` dialect shows. 401 says no, 503 says that nobody can know now; no conversion
//! below turns one into the other.

use std::borrow::Cow;
use std::sync::Arc;

use axum::response::IntoResponse;
use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::api::extract::{BearerError, RequestId};
use crate::directory::DirectoryError;
use crate::identity::IdentityError;
use crate::session::{Refusal, StartError};
use crate::wire::headers::X_REQUEST_ID;

/// How long callers are asked to wait after a 503, in seconds (contracts §3.1).
const UNAVAILABLE_RETRY_AFTER: u64 = 3;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Why a request was not answered as asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What went wrong, for machines.
    pub kind: Kind,
    /// What went wrong, for the caller: never a secret.
    pub message: Cow<'static, str>,
    /// What caused it, for the log.
    #[source]
    pub source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// The closed set of outcomes that are not a success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request could not be read.
    BadRequest,
    /// No token was sent.
    MissingToken,
    /// The token is not good.
    InvalidToken,
    /// The token was good once.
    Expired,
    /// The caller is known and may not.
    Forbidden,
    /// Nothing is there.
    NotFound,
    /// Something is there, but not for this method.
    MethodNotAllowed,
    /// Somebody else has it.
    Conflict,
    /// The body is larger than the endpoint reads.
    TooLarge,
    /// The body is not of a type that the endpoint reads.
    UnsupportedMediaType,
    /// The body was read and says nothing usable.
    Unprocessable,
    /// Too many requests in a short time.
    RateLimited {
        /// Seconds until a request may pass.
        retry_after: u64,
    },
    /// A fault of ours.
    Internal,
    /// The application cannot be reached, or answered nonsense.
    BadGateway,
    /// The application took too long.
    GatewayTimeout,
    /// Something that the answer depends on cannot be asked now.
    Unavailable,
}

/// All that follows from a [`Kind`].
struct Facts {
    status: StatusCode,
    label: &'static str,
    text: &'static str,
    challenge: Option<&'static str>,
}

/// The body of the `detail` dialect.
#[derive(Serialize)]
struct Detail<'a> {
    detail: &'a str,
}

impl Error {
    /// Returns an error of `kind` that tells the caller `message`.
    pub fn new(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// Returns the same error with its cause, which the log shows and the caller does not see.
    #[must_use]
    pub fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }
}

impl Kind {
    /// Returns the status of the response.
    pub fn status(self) -> StatusCode {
        self.facts().status
    }

    /// Returns the stable name for metrics and logs.
    pub fn label(self) -> &'static str {
        self.facts().label
    }

    /// Returns the seconds to put into `Retry-After`, if the response has one.
    pub fn retry_after(self) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after } => Some(retry_after),
            Self::Unavailable => Some(UNAVAILABLE_RETRY_AFTER),
            _ => None,
        }
    }

    // RFC 6750 §3: a challenge names an error only when there was a token to be wrong.
    #[rustfmt::skip]
    fn facts(self) -> Facts {
        const NO_TOKEN: Option<&str> = Some("Bearer");
        const BAD_TOKEN: Option<&str> = Some("Bearer error=\"invalid_token\"");
        let (status, label, text, challenge) = match self {
            Self::BadRequest => (StatusCode::BAD_REQUEST, "bad_request", "Bad Request", None),
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "missing_token", "Missing Bearer token", NO_TOKEN),
            Self::InvalidToken => (StatusCode::UNAUTHORIZED, "invalid_token", "Invalid token: malformed", BAD_TOKEN),
            Self::Expired => (StatusCode::UNAUTHORIZED, "expired", "Token expired", BAD_TOKEN),
            Self::Forbidden => (StatusCode::FORBIDDEN, "forbidden", "Insufficient permissions", None),
            Self::NotFound => (StatusCode::NOT_FOUND, "not_found", "Not Found", None),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "Method Not Allowed", None),
            Self::Conflict => (StatusCode::CONFLICT, "conflict", "Conflict", None),
            Self::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "too_large", "Request body too large", None),
            Self::UnsupportedMediaType =>
                (StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", "Unsupported media type", None),
            Self::Unprocessable => (StatusCode::UNPROCESSABLE_ENTITY, "unprocessable", "Invalid JSON body", None),
            Self::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limited", "Too many requests", None),
            Self::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal Server Error", None),
            Self::BadGateway => (StatusCode::BAD_GATEWAY, "bad_gateway", "Bad Gateway", None),
            Self::GatewayTimeout => (StatusCode::GATEWAY_TIMEOUT, "gateway_timeout", "Gateway Timeout", None),
            Self::Unavailable =>
                (StatusCode::SERVICE_UNAVAILABLE, "unavailable", "Session store unavailable", None),
        };
        Facts { status, label, text, challenge }
    }
}

impl From<Kind> for Error {
    fn from(kind: Kind) -> Self {
        Self::new(kind, kind.facts().text)
    }
}

impl From<BearerError> for Error {
    fn from(error: BearerError) -> Self {
        match error {
            BearerError::Missing => Kind::MissingToken.into(),
            BearerError::Invalid => Kind::InvalidToken.into(),
        }
    }
}

impl From<IdentityError> for Error {
    fn from(error: IdentityError) -> Self {
        let kind = match error {
            IdentityError::Expired => Kind::Expired,
            IdentityError::Invalid(_) => Kind::InvalidToken,
            IdentityError::KeysNotLoaded => Kind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let kind = match refusal {
            Refusal::Malformed | Refusal::Unknown | Refusal::Revoked => Kind::InvalidToken,
            Refusal::Expired => Kind::Expired,
            Refusal::Unavailable => Kind::Unavailable,
        };
        Self::new(kind, refusal.to_string())
    }
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        let kind = match error {
            StartError::Superseded | StartError::AlreadyUsed => Kind::InvalidToken,
            StartError::Unavailable => Kind::Unavailable,
        };
        Self::new(kind, error.to_string())
    }
}

// Whether the database is away or broken, nobody can say what the answer would have been.
impl From<DirectoryError> for Error {
    fn from(error: DirectoryError) -> Self {
        Self::from(Kind::Unavailable).because(error)
    }
}

// The body is the dialect's to write: a surface without one sends the bare status.
impl IntoResponse for Error {
    fn into_response(self) -> axum::response::Response {
        let mut response = self.kind.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Returns the whole response for `error` in the `detail` dialect (contracts §3.1, columns A and G).
pub fn render_detail(error: &Error, request_id: RequestId) -> Response<Bytes> {
    let mut response = with_body(error, detail_body(&error.message));
    complete(response.headers_mut(), request_id);
    response
}

/// Returns the head that every dialect gives `error`, with `body` as its JSON text.
pub(super) fn with_body(error: &Error, body: Bytes) -> Response<Bytes> {
    let mut response = Response::new(body);
    *response.status_mut() = error.kind.status();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, JSON);
    if let Some(challenge) = error.kind.facts().challenge {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }
    if let Some(seconds) = error.kind.retry_after() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Returns the `detail` dialect's body.
pub(super) fn detail_body(message: &str) -> Bytes {
    json_text(&Detail { detail: message })
}

/// Adds what every response of Doorward's own carries (contracts §3 rule 1).
pub(super) fn complete(headers: &mut HeaderMap, request_id: RequestId) {
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_REQUEST_ID, request_id.header_value());
}

/// Returns `value` as JSON text.
pub(super) fn json_text(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("structs of strings and numbers always serialise").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::Reason;

    const EVERY_KIND: [Kind; 16] = [
        Kind::BadRequest,
        Kind::MissingToken,
        Kind::InvalidToken,
        Kind::Expired,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::MethodNotAllowed,
        Kind::Conflict,
        Kind::TooLarge,
        Kind::UnsupportedMediaType,
        Kind::Unprocessable,
        Kind::RateLimited { retry_after: 7 },
        Kind::Internal,
        Kind::BadGateway,
        Kind::GatewayTimeout,
        Kind::Unavailable,
    ];

    fn detail(error: impl Into<Error>) -> (u16, String) {
        let response = render_detail(&error.into(), RequestId::from(0xab));
        let body: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(body.as_object().unwrap().len(), 1);
        (response.status().as_u16(), body["detail"].as_str().unwrap().to_owned())
    }

    #[test]
    fn every_response_carries_the_common_headers() {
        for kind in EVERY_KIND {
            let response = render_detail(&kind.into(), RequestId::from(0xab));
            let headers = response.headers();
            assert_eq!(headers[CONTENT_TYPE], "application/json", "{kind:?}");
            assert_eq!(headers[CACHE_CONTROL], "no-store", "{kind:?}");
            assert_eq!(headers[X_CONTENT_TYPE_OPTIONS], "nosniff", "{kind:?}");
            assert_eq!(headers[X_REQUEST_ID], "00000000000000ab", "{kind:?}");
            assert_eq!(headers.contains_key(WWW_AUTHENTICATE), kind.status() == StatusCode::UNAUTHORIZED, "{kind:?}");
        }
    }

    #[test]
    fn labels_are_distinct() {
        let labels: std::collections::HashSet<_> = EVERY_KIND.iter().map(|kind| kind.label()).collect();
        assert_eq!(labels.len(), EVERY_KIND.len());
    }

    #[test]
    fn a_challenge_names_an_error_only_when_a_token_was_sent() {
        let challenge =
            |kind: Kind| render_detail(&kind.into(), RequestId::from(0)).headers()[WWW_AUTHENTICATE].clone();
        assert_eq!(challenge(Kind::MissingToken), "Bearer");
        assert_eq!(challenge(Kind::InvalidToken), "Bearer error=\"invalid_token\"");
        assert_eq!(challenge(Kind::Expired), "Bearer error=\"invalid_token\"");
    }

    #[test]
    fn callers_are_told_when_to_come_back() {
        let retry_after =
            |kind: Kind| render_detail(&kind.into(), RequestId::from(0)).headers().get(RETRY_AFTER).cloned();
        assert_eq!(retry_after(Kind::Unavailable).unwrap(), "3");
        assert_eq!(retry_after(Kind::RateLimited { retry_after: 7 }).unwrap(), "7");
        assert_eq!(retry_after(Kind::InvalidToken), None);
    }

    #[test]
    fn every_refusal_has_its_contracted_text() {
        let text = str::to_owned;
        assert_eq!(detail(BearerError::Missing), (401, text("Missing Bearer token")));
        assert_eq!(detail(BearerError::Invalid), (401, text("Invalid token: malformed")));
        assert_eq!(detail(IdentityError::Expired), (401, text("Token expired")));
        assert_eq!(detail(IdentityError::Invalid(Reason::UnknownKey)), (401, text("Invalid token: unknown key")));
        assert_eq!(detail(IdentityError::KeysNotLoaded), (503, text("JWKS not loaded")));
        assert_eq!(detail(Refusal::Expired), (401, text("Token expired")));
        assert_eq!(detail(Refusal::Revoked), (401, text("Invalid token: session revoked")));
        assert_eq!(detail(Refusal::Unknown), (401, text("Invalid token: unknown session")));
        assert_eq!(detail(Refusal::Unavailable), (503, text("Session store unavailable")));
        assert_eq!(detail(StartError::AlreadyUsed), (401, text("Invalid token: already used")));
        assert_eq!(detail(StartError::Superseded), (401, text("Invalid token: session revoked")));
        assert_eq!(detail(StartError::Unavailable), (503, text("Session store unavailable")));
    }

    #[test]
    fn a_message_cannot_break_out_of_its_json() {
        assert_eq!(&detail_body("a\"b\\\n")[..], br#"{"detail":"a\"b\\\n"}"#);
    }

    #[test]
    fn the_cause_stays_out_of_the_response() {
        let error = Error::from(Kind::Internal).because(std::io::Error::other("disk on fire"));
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "disk on fire");
        assert_eq!(detail(error), (500, "Internal Server Error".to_owned()));
    }
}
