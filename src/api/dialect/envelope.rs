//! `{"success": false, "error": {"message", "code"}}`: surface B.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;

use super::cell::Cell;
use super::detail;
use crate::api::json::json_text;
use crate::api::problem::{Awaited, CredentialFault, FieldFault, What, Why};

#[derive(Serialize)]
struct EnvelopeBody<'a> {
    success: bool,
    error: Failure<'a>,
}

#[derive(Serialize)]
struct Failure<'a> {
    message: Cow<'a, str>,
    code: &'static str,
}

pub(super) fn cell(what: &What) -> Cell {
    let (message, code) = words(what);
    let body = EnvelopeBody { success: false, error: Failure { message, code } };
    Cell { status: status(what), body: json_text(&body) }
}

pub(super) fn status(what: &What) -> StatusCode {
    match what {
        What::BadRequest
        | What::MalformedBody
        | What::InvalidFields(_)
        | What::WeakPassword(_)
        | What::RefusedWebhook(_) => StatusCode::BAD_REQUEST,
        What::MissingToken | What::Expired | What::InvalidToken(_) | What::BadCredentials(_) => {
            StatusCode::UNAUTHORIZED
        }
        What::Forbidden(_) => StatusCode::FORBIDDEN,
        What::NoRoute { .. } | What::NotFound(_) => StatusCode::NOT_FOUND,
        What::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        What::Conflict(_) => StatusCode::CONFLICT,
        What::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        What::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        What::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        What::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        What::BadGateway(_) => StatusCode::BAD_GATEWAY,
        What::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        What::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn words(what: &What) -> (Cow<'_, str>, &'static str) {
    let (message, code) = match what {
        What::BadRequest => ("Bad request", "BAD_REQUEST"),
        What::MissingToken => ("Authentication required", "UNAUTHORIZED"),
        What::Expired => ("Token has expired", "TOKEN_EXPIRED"),
        What::InvalidToken(_) => ("Invalid token", "INVALID_TOKEN"),
        // One answer for both: which addresses have an account is not told.
        What::BadCredentials(CredentialFault::Mismatch | CredentialFault::Unverified) => {
            ("Invalid email or password", "INVALID_CREDENTIALS")
        }
        What::Forbidden(Why::License) => ("License key required", "LICENSE_REQUIRED"),
        What::Forbidden(Why::CrossOrigin) => ("Cross-origin request refused", "FORBIDDEN"),
        What::Forbidden(Why::Permissions | Why::ForeignSessions | Why::ForeignSession | Why::ForeignPassword) => {
            ("Insufficient permissions", "FORBIDDEN")
        }
        What::NoRoute { .. } | What::NotFound(_) => ("Not found", "NOT_FOUND"),
        What::MethodNotAllowed { .. } => ("Method not allowed", "METHOD_NOT_ALLOWED"),
        What::Conflict(_) => ("Conflict", "CONFLICT"),
        What::TooLarge => ("Request body too large", "PAYLOAD_TOO_LARGE"),
        What::UnsupportedMediaType { .. } => ("Unsupported media type", "UNSUPPORTED_MEDIA_TYPE"),
        What::MalformedBody => ("Request body is not valid JSON", "BAD_REQUEST"),
        What::InvalidFields(faults) => return (first(faults), "VALIDATION_ERROR"),
        What::WeakPassword(fault) => (detail::weak_password(*fault), "WEAK_PASSWORD"),
        What::RefusedWebhook(fault) => (detail::refused_webhook(*fault), "BAD_REQUEST"),
        What::RateLimited { .. } => ("Too many requests", "RATE_LIMITED"),
        What::Internal => ("Internal server error", "INTERNAL_ERROR"),
        What::BadGateway(Awaited::Application) => ("Upstream unavailable", "BAD_GATEWAY"),
        What::TimedOut(Awaited::Application) => ("Upstream timed out", "GATEWAY_TIMEOUT"),
        What::BadGateway(Awaited::Bootstrap(section)) => return (detail::source_unavailable(section), "BAD_GATEWAY"),
        What::TimedOut(Awaited::Bootstrap(section)) => return (detail::source_timed_out(section), "GATEWAY_TIMEOUT"),
        What::Unavailable(_) => ("Authentication service unavailable", "SERVICE_UNAVAILABLE"),
    };
    (message.into(), code)
}

// Contracts §6.1: the first field that fails, its name in front.
fn first(faults: &[FieldFault]) -> Cow<'static, str> {
    faults.first().map_or("Bad request".into(), |fault| format!("{} {}", fault.name, fault.broken).into())
}
