//! `{"errors": [{"message", "long_message", "code", "meta"}], "clerk_trace_id"}`: surface D.
//!
//! `message`, `long_message` and `code` are always there: two of Clerk's own clients fail on an
//! error without them. A session's credential does not occur on surface D; on a route of the guard
//! an expired or revoked one is answered like a key that is not good (contracts §0.7).

use std::borrow::Cow;

use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;

use super::cell::Cell;
use super::detail;
use crate::api::json::json_text;
use crate::api::problem::{Clash, Constraint, FieldFault, Resource, What, Why};
use crate::api::request_id::RequestId;

/// Repeats `clerk_trace_id` on every response.
pub(super) const X_CLERK_TRACE_ID: HeaderName = HeaderName::from_static("x-clerk-trace-id");

#[derive(Serialize)]
struct ClerkBody<'a> {
    errors: Vec<Item<'a>>,
    clerk_trace_id: String,
}

#[derive(Serialize)]
struct Item<'a> {
    message: Cow<'a, str>,
    long_message: Cow<'a, str>,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Meta>,
}

#[derive(Serialize)]
struct Meta {
    param_name: &'static str,
}

pub(super) fn cell(what: &What, request_id: RequestId) -> Cell {
    let body = ClerkBody { errors: items(what), clerk_trace_id: trace_id(request_id) };
    Cell { status: status(what), body: json_text(&body) }
}

/// Returns the request's id as 32 digits, padded as 64-bit trace ids are.
fn trace_id(request_id: RequestId) -> String {
    format!("{:0>32}", request_id.to_string())
}

pub(super) fn trace_id_value(request_id: RequestId) -> HeaderValue {
    HeaderValue::try_from(trace_id(request_id)).expect("hex digits are a valid header value")
}

pub(super) fn status(what: &What) -> StatusCode {
    match what {
        What::BadRequest | What::MalformedBody | What::RefusedWebhook(_) => StatusCode::BAD_REQUEST,
        What::MissingToken | What::Expired | What::InvalidToken(_) | What::BadCredentials(_) => {
            StatusCode::UNAUTHORIZED
        }
        What::Forbidden(_) => StatusCode::FORBIDDEN,
        What::NoRoute { .. } | What::NotFound(_) => StatusCode::NOT_FOUND,
        What::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
        What::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        What::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        What::InvalidFields(_) | What::Conflict(_) | What::WeakPassword(_) => StatusCode::UNPROCESSABLE_ENTITY,
        What::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
        What::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        What::BadGateway(_) => StatusCode::BAD_GATEWAY,
        What::TimedOut(_) => StatusCode::GATEWAY_TIMEOUT,
        What::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn items(what: &What) -> Vec<Item<'_>> {
    vec![match what {
        What::BadRequest => item("Bad request", "The request could not be read.", "bad_request"),
        What::MissingToken => item(
            "Invalid Authorization header format",
            "Invalid Authorization header format. Must be 'Bearer <YOUR_API_KEY>'",
            "authorization_header_format_invalid",
        ),
        What::Expired | What::InvalidToken(_) | What::BadCredentials(_) => {
            const KEY: &str =
                "The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.";
            item(KEY, KEY, "clerk_key_invalid")
        }
        What::Forbidden(why) => forbidden(*why),
        // A method that the path has not is told like a path that is not there; only the status differs.
        What::NoRoute { .. } | What::MethodNotAllowed { .. } => {
            item("not found", "Resource not found", "resource_not_found")
        }
        What::NotFound(resource) => not_found(resource),
        What::Conflict(clash) => taken(clash),
        What::TooLarge => item("Request body invalid", "Request body too large", "request_body_invalid"),
        What::UnsupportedMediaType { actual } => unsupported(actual.as_deref()),
        What::MalformedBody => item(
            "Request body invalid",
            "The request body is invalid. Please consult the API documentation for more information.",
            "request_body_invalid",
        ),
        What::InvalidFields(faults) => return faults.iter().map(field).collect(),
        What::WeakPassword(fault) => {
            let text = detail::weak_password(*fault);
            about("password", item(text, text, "form_password_not_strong_enough"))
        }
        What::RefusedWebhook(fault) => {
            let text = detail::refused_webhook(*fault);
            item(text, text, "request_body_invalid")
        }
        What::RateLimited { .. } => {
            item("Too many requests", "Too many requests. Please try again later.", "too_many_requests")
        }
        What::Internal | What::BadGateway(_) | What::TimedOut(_) => item(
            "Oops, an unexpected error occurred",
            "There was an internal error on our servers. We've been notified and are working on fixing it.",
            "internal_clerk_error",
        ),
        What::Unavailable(_) => item(
            "System under maintenance",
            "We are currently undergoing maintenance and only essential operations are permitted. We will be back shortly.",
            "maintenance_mode",
        ),
    }]
}

fn item<'a>(message: impl Into<Cow<'a, str>>, long: impl Into<Cow<'a, str>>, code: &'static str) -> Item<'a> {
    Item { message: message.into(), long_message: long.into(), code, meta: None }
}

fn about<'a>(param_name: &'static str, item: Item<'a>) -> Item<'a> {
    Item { meta: Some(Meta { param_name }), ..item }
}

fn forbidden(why: Why) -> Item<'static> {
    const CODE: &str = "authorization_invalid";
    match why {
        Why::CrossOrigin => item("Cross-origin request refused", "Cross-origin request refused", CODE),
        Why::Permissions | Why::License | Why::ForeignSessions | Why::ForeignSession | Why::ForeignPassword => {
            item("Unauthorized request", "You are not authorized to perform this request", CODE)
        }
    }
}

fn not_found(resource: &Resource) -> Item<'static> {
    let (message, long) = match resource {
        Resource::Session(id) => ("Session not found", format!("No session was found with id {id}")),
        Resource::Device(id) => ("Client not found", format!("No client was found with id {id}")),
        Resource::User(id) => ("not found", format!("No user was found with id {id}")),
        Resource::Contact => ("Resource not found", "Resource not found".to_owned()),
        Resource::Template(name) => ("JWT template not found", format!("No JWT template exists with name: {name}")),
    };
    item(message, long, "resource_not_found")
}

fn taken(clash: &Clash) -> Item<'static> {
    let text = match clash {
        Clash::Device(_) => "That device is taken. Please try another.".into(),
        Clash::Contact(_) => detail::clashing(clash),
    };
    item(text.clone(), text, "form_identifier_exists")
}

fn unsupported(actual: Option<&str>) -> Item<'static> {
    let actual = actual.map_or(String::new(), |actual| format!(" {actual}"));
    let long = format!("Content-Type{actual} is unsupported. You should use application/json instead.");
    item("Content-Type is unsupported", long, "unsupported_content_type")
}

fn field(fault: &FieldFault) -> Item<'static> {
    let name = fault.name;
    let (message, long, code) = match fault.broken {
        Constraint::Required => ("is missing", format!("{name} must be included."), "form_param_missing"),
        Constraint::Type(kind) => ("is invalid", format!("`{name}` must be a `{kind}`."), "form_param_type_invalid"),
        Constraint::Format(form) => ("is invalid", format!("{name} must be {form}."), "form_param_format_invalid"),
        Constraint::Range(range) => ("is invalid", format!("{name} must be {range}"), "form_param_value_invalid"),
    };
    about(name, item(message, long, code))
}
