//! `{"statusCode", "message", "error"}`: surface C.

use std::borrow::Cow;

use http::{Method, StatusCode};
use serde::Serialize;

use super::cell::Cell;
use super::detail;
use crate::api::json::json_text;
use crate::api::problem::{Awaited, CredentialFault, FieldFault, Resource, What, Why};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NestBody<'a> {
    status_code: u16,
    message: NestMessage<'a>,
    error: &'static str,
}

/// One text, or one a broken constraint.
#[derive(Serialize)]
#[serde(untagged)]
enum NestMessage<'a> {
    One(Cow<'a, str>),
    Each(Vec<String>),
}

pub(super) fn cell(what: &What) -> Cell {
    Cell { status: status(what), body: json_text(&body(what)) }
}

pub(super) fn body(what: &What) -> NestBody<'_> {
    let (message, error) = words(what);
    NestBody { status_code: status(what).as_u16(), message, error }
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

fn words(what: &What) -> (NestMessage<'_>, &'static str) {
    let (message, error) = match what {
        What::BadRequest => ("Bad Request".into(), "Bad Request"),
        What::MissingToken | What::Expired | What::InvalidToken(_) => ("Unauthorized".into(), "Unauthorized"),
        What::BadCredentials(CredentialFault::Mismatch) => ("Invalid Credentials".into(), "Unauthorized"),
        What::BadCredentials(CredentialFault::Unverified) => ("Please verify your email".into(), "Unauthorized"),
        What::Forbidden(why) => (forbidden(*why).into(), "Forbidden"),
        What::NoRoute { method, path } => (no_route(method, path), "Not Found"),
        What::NotFound(resource) => (not_found(resource).into(), "Not Found"),
        What::MethodNotAllowed { .. } => ("Method Not Allowed".into(), "Method Not Allowed"),
        What::Conflict(clash) => (detail::clashing(clash), "Conflict"),
        What::TooLarge => ("Payload Too Large".into(), "Payload Too Large"),
        What::UnsupportedMediaType { .. } => ("Unsupported Media Type".into(), "Unsupported Media Type"),
        What::MalformedBody => ("Request body is not valid JSON".into(), "Bad Request"),
        What::InvalidFields(faults) => {
            return (NestMessage::Each(faults.iter().map(FieldFault::to_string).collect()), "Bad Request");
        }
        What::WeakPassword(fault) => (detail::weak_password(*fault).into(), "Bad Request"),
        What::RefusedWebhook(fault) => (detail::refused_webhook(*fault).into(), "Bad Request"),
        What::RateLimited { .. } => ("Too Many Requests".into(), "Too Many Requests"),
        What::Internal => ("Something went wrong!".into(), "Internal Server error"),
        What::BadGateway(Awaited::Application) => ("Upstream unavailable".into(), "Bad Gateway"),
        What::TimedOut(Awaited::Application) => ("Upstream timed out".into(), "Gateway Timeout"),
        What::BadGateway(Awaited::Bootstrap(section)) => (detail::source_unavailable(section), "Bad Gateway"),
        What::TimedOut(Awaited::Bootstrap(section)) => (detail::source_timed_out(section), "Gateway Timeout"),
        What::Unavailable(_) => ("Service Unavailable".into(), "Service Unavailable"),
    };
    (NestMessage::One(message), error)
}

fn forbidden(why: Why) -> &'static str {
    match why {
        Why::Permissions => "Insufficient permissions",
        Why::CrossOrigin => "Cross-origin request refused",
        Why::License => "License required",
        Why::ForeignSessions => "You are not allowed to access sessions of another user",
        Why::ForeignSession => "You are not allowed to delete this session",
        Why::ForeignPassword => "You are not allowed to change the password of another user",
    }
}

fn not_found(resource: &Resource) -> &'static str {
    match resource {
        Resource::Session(_) => "User session not found",
        Resource::Device(_) | Resource::User(_) | Resource::Contact | Resource::Template(_) => "Not Found",
    }
}

// A HEAD is told what a GET would be.
fn no_route(method: &Method, path: &str) -> Cow<'static, str> {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    format!("Cannot {method} {path}").into()
}
