//! `POST /auth/anonymous`: a device becomes a guest session (contracts §5.2).
//!
//! An `Authorization` header is not looked at. The device id is a secret in effect, since whoever
//! knows it becomes that guest: it is in no error, log line or metric.

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use http::Request;
use serde_json::{Map, Value};

use super::{App, Json, Method, StartedBody, answer};
use crate::api::error::{Error, Kind};
use crate::api::extract::{ClientAddr, object};
use crate::api::limit::Network;
use crate::model::Identity;
use crate::session::{Handout, StartError, Started};

/// The longest device id, in Unicode scalar values.
const DEVICE_ID_MAX: usize = 200;
/// What is asked of a caller who names no device.
pub(super) const REQUIRED: &str = "device_id required";

pub(super) async fn handle(
    State(app): State<App>,
    client: Option<Extension<ClientAddr>>,
    request: Request<Body>,
) -> Result<Json<StartedBody>, Error> {
    let client = client.map(|Extension(client)| client);
    let outcome = start(&app, client, request).await;
    answer(&app, Method::Anonymous, client, outcome)
}

async fn start(app: &App, client: Option<ClientAddr>, request: Request<Body>) -> Result<Started, Error> {
    let body = object(request).await?;
    let device_id = device_id(&body, REQUIRED)?;
    app.limits.anonymous.check(&Network::of(client))?;
    match sign_in(app, device_id).await? {
        // A rebind ended that guest meanwhile: the device has a new one.
        Err(StartError::Superseded) => Ok(sign_in(app, device_id).await??),
        started => Ok(started?),
    }
}

// The guest is asked for before the session starts, and named with the time before that: one that a
// rebind ends in between is refused by the store.
async fn sign_in(app: &App, device_id: &str) -> Result<Result<Started, StartError>, Error> {
    let asked_at = app.clock.now();
    let device = app.guests.device_key(device_id);
    let generation = app.directory.see_guest(app.guests.tenant(), &device, asked_at).await?;
    let guest = Identity { authenticated_at: asked_at, ..app.guests.identity(device_id, generation) };
    Ok(app.sessions.start(&guest, Method::Anonymous.label(), Handout::OPAQUE).await)
}

/// Returns the device that a body names; `required` is what a body without one is told.
pub(super) fn device_id<'a>(body: &'a Map<String, Value>, required: &'static str) -> Result<&'a str, Error> {
    let refused = |text| Err(Error::new(Kind::Unprocessable, text));
    match body.get("device_id") {
        None | Some(Value::Null) => refused(required),
        Some(Value::String(text)) if text.trim().is_empty() => refused(required),
        Some(Value::String(text)) if text.chars().nth(DEVICE_ID_MAX).is_some() => {
            refused("device_id must be 1-200 characters")
        }
        Some(Value::String(text)) => Ok(text),
        Some(_) => refused("device_id must be a string"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(value: Value) -> Result<String, String> {
        let body = Map::from_iter([("device_id".to_owned(), value), ("other".to_owned(), Value::Null)]);
        device_id(&body, REQUIRED).map(str::to_owned).map_err(|error| error.message.into_owned())
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
        assert_eq!(device_id(&Map::new(), REQUIRED).unwrap_err().message, "device_id required");
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
