//! `{"detail": text}`: surface A, the webhooks, and the guard where nothing else is configured.

use std::borrow::Cow;

use http::StatusCode;
use serde::Serialize;

use super::cell::Cell;
use crate::api::json::json_text;
use crate::api::problem::{
    Awaited, Clash, CredentialFault, Dependency, FieldFault, PasswordFault, TokenFault, WebhookFault, What, Why,
};

#[derive(Serialize)]
pub(super) struct DetailBody<'a> {
    detail: Cow<'a, str>,
}

pub(super) fn cell(what: &What) -> Cell {
    Cell { status: status(what), body: json_text(&body(what)) }
}

pub(super) fn body(what: &What) -> DetailBody<'_> {
    DetailBody { detail: text(what) }
}

pub(super) fn status(what: &What) -> StatusCode {
    match what {
        What::BadRequest | What::WeakPassword(_) | What::RefusedWebhook(_) => StatusCode::BAD_REQUEST,
        What::MissingToken | What::Expired | What::InvalidToken(_) | What::BadCredentials(_) => {
            StatusCode::UNAUTHORIZED
        }
        What::Forbidden(_) => StatusCode::FORBIDDEN,
        What::NoRoute { .. } | What::NotFound(_) => StatusCode::NOT_FOUND,
        What::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        What::Conflict(_) => StatusCode::CONFLICT,
        What::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        What::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        What::MalformedBody | What::InvalidFields(_) => StatusCode::UNPROCESSABLE_ENTITY,
        What::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        What::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        What::BadGateway(_) => StatusCode::BAD_GATEWAY,
        What::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        What::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Returns the problem in the words of the `detail` dialect, which logs use too.
pub fn text(what: &What) -> Cow<'_, str> {
    let fixed = match what {
        What::BadRequest => "Bad Request",
        What::MissingToken => "Missing Bearer token",
        What::Expired => "Token expired",
        What::InvalidToken(TokenFault::NotAUser(kind)) => {
            let kind = kind.as_str();
            return format!("Rebind requires an authenticated user token; got {kind} session").into();
        }
        What::InvalidToken(fault) => return format!("Invalid token: {}", fault.reason()).into(),
        What::BadCredentials(CredentialFault::Mismatch | CredentialFault::Unverified) => "Invalid credentials",
        What::Forbidden(Why::License) => "License required",
        What::Forbidden(
            Why::Permissions | Why::CrossOrigin | Why::ForeignSessions | Why::ForeignSession | Why::ForeignPassword,
        ) => "Insufficient permissions",
        What::NoRoute { .. } | What::NotFound(_) => "Not Found",
        What::MethodNotAllowed { .. } => "Method Not Allowed",
        What::Conflict(clash) => return clashing(clash),
        What::TooLarge => "Request body too large",
        What::UnsupportedMediaType { .. } => "Unsupported media type",
        What::MalformedBody => "Invalid JSON body",
        What::InvalidFields(faults) => return first(faults),
        What::WeakPassword(fault) => weak_password(*fault),
        What::RefusedWebhook(fault) => refused_webhook(*fault),
        What::RateLimited { .. } => "Too many requests",
        What::Internal => "Internal Server Error",
        What::BadGateway(Awaited::Application) => "Bad Gateway",
        What::TimedOut(Awaited::Application) => "Gateway Timeout",
        What::BadGateway(Awaited::Bootstrap(section)) => return source_unavailable(section),
        What::TimedOut(Awaited::Bootstrap(section)) => return source_timed_out(section),
        What::Unavailable(Dependency::Keys) => "JWKS not loaded",
        What::Unavailable(Dependency::Store) => "Session store unavailable",
        What::Unavailable(Dependency::Rebind) => "Rebind could not be completed",
    };
    fixed.into()
}

// Words that contracts give an operation, whichever dialect its callers read.

pub(super) fn clashing(clash: &Clash) -> Cow<'static, str> {
    match clash {
        Clash::Device(device) => format!("device {device} already rebound to a different user").into(),
        Clash::Contact(kind) => format!("That {kind} is taken. Please try another.").into(),
    }
}

pub(super) fn weak_password(fault: PasswordFault) -> &'static str {
    match fault {
        PasswordFault::Classes => {
            "Passwords must contain at least 8 characters, including uppercase, lowercase, numbers and special character."
        }
        PasswordFault::Guessable => "Password is too easy to guess",
    }
}

pub(super) fn refused_webhook(fault: WebhookFault) -> &'static str {
    match fault {
        WebhookFault::Signature => "Invalid webhook signature",
        WebhookFault::Payload => "Invalid webhook payload",
    }
}

pub(super) fn source_unavailable(section: &str) -> Cow<'static, str> {
    format!("Bootstrap source unavailable: {section}").into()
}

pub(super) fn source_timed_out(section: &str) -> Cow<'static, str> {
    format!("Bootstrap source timed out: {section}").into()
}

fn first(faults: &[FieldFault]) -> Cow<'static, str> {
    faults.first().map_or("Bad Request".into(), |fault| fault.to_string().into())
}
