//! `POST /auth/anonymous`: a device becomes a guest session (contracts §5.2).
//!
//! An `Authorization` header is not looked at. The device id is a secret in effect, since a caller
//! who knows it becomes that guest: it is in no error, log line or metric.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::Request;
use serde_json::{Map, Value};

use super::signed_in::{StartedBody, address, refused};
use crate::accounts::SignInMethod;
use crate::api::core::Core;
use crate::api::extract::{ClientAddr, object};
use crate::api::json::Json;
use crate::api::limit::Network;
use crate::api::problem::{Constraint, Problem, What};

/// The longest device id, in Unicode scalar values.
const DEVICE_ID_MAX: usize = 200;
/// What a caller is told who names no device.
pub(super) const REQUIRED: &str = "device_id required";

pub(super) async fn handle(
    State(core): State<Arc<Core>>,
    client: Option<Extension<ClientAddr>>,
    request: Request<Body>,
) -> Result<Json<StartedBody>, Problem> {
    let client = client.map(|Extension(client)| client);
    let device_id = read(&core, client, request)
        .await
        .map_err(|problem| refused(&core, SignInMethod::Anonymous, client, problem))?;
    Ok(core.sign_in.as_guest(&device_id, address(client)).await?.into())
}

async fn read(core: &Core, client: Option<ClientAddr>, request: Request<Body>) -> Result<String, Problem> {
    let body = object(request).await?;
    let device_id = device_id(&body, REQUIRED)?;
    core.limits.anonymous.check(&Network::of(client))?;
    Ok(device_id.to_owned())
}

/// Returns the device that a body names; `required` is what a body without one is told.
pub(super) fn device_id<'a>(body: &'a Map<String, Value>, required: &'static str) -> Result<&'a str, Problem> {
    let refused = |broken, words| Err(What::field("device_id", broken, words).into());
    match body.get("device_id") {
        None | Some(Value::Null) => refused(Constraint::Required, Some(required)),
        Some(Value::String(text)) if text.trim().is_empty() => refused(Constraint::Required, Some(required)),
        Some(Value::String(text)) if text.chars().nth(DEVICE_ID_MAX).is_some() => {
            refused(Constraint::Range("1-200 characters"), None)
        }
        Some(Value::String(text)) => Ok(text),
        Some(_) => refused(Constraint::Type("string"), None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dialect::in_words;

    fn read(value: Value) -> Result<String, String> {
        let body = Map::from_iter([("device_id".to_owned(), value), ("other".to_owned(), Value::Null)]);
        device_id(&body, REQUIRED).map(str::to_owned).map_err(|problem| in_words(&problem.what).into_owned())
    }

    #[test]
    fn length_is_counted_in_characters_not_bytes() {
        for text in ["x", "8A6E0804-2BD0-4672-B79D-D97027F9071A", &"x".repeat(200), &"é".repeat(200), &"😀".repeat(200)]
        {
            assert_eq!(read(text.into()), Ok(text.to_owned()));
        }
        for text in ["x".repeat(201), "😀".repeat(201)] {
            assert_eq!(read(text.into()), Err("device_id must be 1-200 characters".to_owned()));
        }
    }

    #[test]
    fn an_absent_or_blank_id_is_asked_for() {
        assert_eq!(in_words(&device_id(&Map::new(), REQUIRED).unwrap_err().what), "device_id required");
        for value in [Value::Null, "".into(), "  \t\n".into(), "\u{2003}".into(), " ".repeat(300).into()] {
            assert_eq!(read(value.clone()), Err("device_id required".to_owned()), "{value}");
        }
    }

    #[test]
    fn another_type_is_refused() {
        for value in [1.into(), true.into(), Value::Array(vec![]), Value::Object(Map::new())] {
            assert_eq!(read(value.clone()), Err("device_id must be a string".to_owned()), "{value}");
        }
    }
}
