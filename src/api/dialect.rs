//! Renders a problem: one table a dialect (contracts §3.1), headers alike in all of them.
//!
//! The tables are exhaustive matches without a catch-all arm: a new problem does not compile until
//! each dialect says something about it. `snapshot.txt` shows every cell.

mod cell;
mod clerk;
mod detail;
mod envelope;
mod nest;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use serde::Serialize;

use crate::api::json::{JSON, json_text};
use crate::api::problem::{Problem, What};
use crate::api::request_id::RequestId;
pub use crate::model::Dialect;
use crate::wire::headers::X_REQUEST_ID;

use self::cell::Cell;
pub use self::detail::text as in_words;

/// How long callers are asked to wait after a 503, in seconds (contracts §3.1).
const UNAVAILABLE_RETRY_AFTER: u64 = 3;

/// The 404 body that the readers of `detail` and of `nest` understand (contracts §2.3).
#[derive(Serialize)]
struct ForBoth<'a> {
    #[serde(flatten)]
    nest: nest::NestBody<'a>,
    #[serde(flatten)]
    detail: detail::DetailBody<'a>,
}

impl Dialect {
    /// Returns the whole response for `problem`.
    pub fn render(self, problem: &Problem, request_id: RequestId) -> Response<Bytes> {
        let cell = match self {
            Self::Detail => detail::cell(&problem.what),
            Self::Envelope => envelope::cell(&problem.what),
            Self::Nest => nest::cell(&problem.what),
            Self::Clerk => clerk::cell(&problem.what, request_id),
        };
        self.respond(cell, &problem.what, request_id)
    }

    /// Returns the status that callers are given for `what`.
    pub fn status(self, what: &What) -> StatusCode {
        match self {
            Self::Detail => detail::status(what),
            Self::Envelope => envelope::status(what),
            Self::Nest => nest::status(what),
            Self::Clerk => clerk::status(what),
        }
    }

    /// Adds what every response of Doorward's own carries (contracts §3 rule 1).
    pub fn complete(self, headers: &mut HeaderMap, request_id: RequestId) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(X_REQUEST_ID, request_id.header_value());
        if self == Self::Clerk {
            headers.insert(clerk::X_CLERK_TRACE_ID, clerk::trace_id_value(request_id));
        }
    }

    fn respond(self, cell: Cell, what: &What, request_id: RequestId) -> Response<Bytes> {
        let mut response = Response::new(cell.body);
        *response.status_mut() = cell.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, JSON);
        if let Some(challenge) = challenge(what) {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        if let Some(seconds) = retry_after(what) {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let What::MethodNotAllowed { allow } = what {
            headers.insert(ALLOW, allow.clone());
        }
        self.complete(headers, request_id);
        response
    }
}

/// Returns the response for a path that none of the surfaces has whose callers read `detail` and `nest`.
pub fn render_for_both(problem: &Problem, request_id: RequestId) -> Response<Bytes> {
    let what = &problem.what;
    let both = ForBoth { nest: nest::body(what), detail: detail::body(what) };
    let cell = Cell { status: detail::status(what), body: json_text(&both) };
    Dialect::Detail.respond(cell, what, request_id)
}

// RFC 6750 §3: a challenge names an error only when there was a token to be wrong.
fn challenge(what: &What) -> Option<&'static str> {
    match what {
        What::MissingToken | What::BadCredentials(_) => Some("Bearer"),
        What::Expired | What::InvalidToken(_) => Some("Bearer error=\"invalid_token\""),
        What::BadRequest
        | What::Forbidden(_)
        | What::NoRoute { .. }
        | What::NotFound(_)
        | What::MethodNotAllowed { .. }
        | What::Conflict(_)
        | What::TooLarge
        | What::UnsupportedMediaType { .. }
        | What::MalformedBody
        | What::InvalidFields(_)
        | What::WeakPassword(_)
        | What::RefusedWebhook(_)
        | What::RateLimited { .. }
        | What::Internal
        | What::BadGateway(_)
        | What::TimedOut(_)
        | What::Unavailable(_) => None,
    }
}

fn retry_after(what: &What) -> Option<u64> {
    match what {
        What::RateLimited { retry_after } => Some(*retry_after),
        What::Unavailable(_) => Some(UNAVAILABLE_RETRY_AFTER),
        What::BadRequest
        | What::MissingToken
        | What::Expired
        | What::InvalidToken(_)
        | What::BadCredentials(_)
        | What::Forbidden(_)
        | What::NoRoute { .. }
        | What::NotFound(_)
        | What::MethodNotAllowed { .. }
        | What::Conflict(_)
        | What::TooLarge
        | What::UnsupportedMediaType { .. }
        | What::MalformedBody
        | What::InvalidFields(_)
        | What::WeakPassword(_)
        | What::RefusedWebhook(_)
        | What::Internal
        | What::BadGateway(_)
        | What::TimedOut(_) => None,
    }
}

#[cfg(test)]
mod tests;
