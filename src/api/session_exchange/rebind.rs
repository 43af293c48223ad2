//! `POST /auth/rebind`: what a guest made becomes the user's (contracts §5.3).
//!
//! The user is who the token says; a user in the body is not read. The device id is in effect a
//! secret; it is repeated to its sender, and written nowhere.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Request};
use serde::ser::{Serialize, SerializeMap, Serializer};

use super::anonymous::device_id;
use crate::api::bearer::{bearer, is_jwt_shaped};
use crate::api::core::Core;
use crate::api::extract::object;
use crate::api::json::Json;
use crate::api::problem::{Clash, Constraint, Dependency, Problem, TokenFault, What};
use crate::config::rebind::Fields;
use crate::guests::{RebindError, Rebound};
use crate::model::{Principal, PrincipalKind};
use crate::wire::headers::{IDEMPOTENCY_KEY, is_visible_ascii};

/// How long an idempotency key may be.
const KEY_MAX: usize = 255;

/// The body of a 200: exactly three keys, two of which the configuration names.
struct Answer<'a> {
    fields: &'a Fields,
    rebound: Rebound,
}

pub(super) async fn handle(State(core): State<Arc<Core>>, request: Request<Body>) -> Result<Response, Problem> {
    let user = user(&core, request.headers()).await?;
    let key = idempotency_key(request.headers());
    let body = object(request).await?;
    let device = device_id(&body, "device_id and clerk_user_id required")?.to_owned();
    let (key, rebinds) = (key?, core.rebinds.clone());
    let asked = device.clone();
    // In a task of its own: a caller who hangs up must not leave it half done.
    let rebinding = tokio::spawn(async move { rebinds.rebind(&user, &asked, key).await });
    let outcome = rebinding.await.map_err(|panic| incomplete().because(panic))?;
    let rebound = outcome.map_err(|error| refusal(error, &device))?;
    Ok(Json(Answer { fields: &core.rebind_fields, rebound }).into_response())
}

/// Returns the user behind a session token or a provider's JWT.
async fn user(core: &Core, headers: &HeaderMap) -> Result<Principal, Problem> {
    let token = bearer(headers)?;
    let principal = if is_jwt_shaped(token) {
        core.sign_in.find_principal(&core.providers.verify(token).await?).await?
    } else {
        core.sessions.validate(token).await?.session.principal.clone()
    };
    match principal.kind {
        PrincipalKind::User => Ok(principal),
        kind @ (PrincipalKind::Anonymous | PrincipalKind::Admin) => Err(TokenFault::NotAUser(kind).into()),
    }
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| is_visible_ascii(text, KEY_MAX));
    match (text, values.next()) {
        (Some(text), None) => Ok(Some(text.to_owned())),
        _ => Err(What::field("Idempotency-Key", Constraint::Format("1-255 visible ASCII characters"), None).into()),
    }
}

fn refusal(error: RebindError, device: &str) -> Problem {
    match error {
        RebindError::OtherUser => What::Conflict(Clash::Device(device.to_owned())).into(),
        other => incomplete().because(other),
    }
}

fn incomplete() -> Problem {
    What::Unavailable(Dependency::Rebind).into()
}

impl Serialize for Answer<'_> {
    fn serialize<S: Serializer>(&self, into: S) -> Result<S::Ok, S::Error> {
        let (rebound, rows, guest) = match &self.rebound {
            Rebound::Moved { rows, guest } => (true, *rows, Some(guest.as_str())),
            Rebound::NoOp => (false, 0, None),
        };
        let mut map = into.serialize_map(Some(3))?;
        map.serialize_entry("rebound", &rebound)?;
        map.serialize_entry(&self.fields.rows_updated, &rows)?;
        map.serialize_entry(
            &self.fields.anonymous_id,
            &guest.map(|guest| guest.strip_prefix("anon:").unwrap_or(guest)),
        )?;
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::dialect::Dialect;
    use http::HeaderValue;

    fn key_of(values: &[&[u8]]) -> Result<Option<String>, u16> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("idempotency-key", HeaderValue::from_bytes(value).unwrap());
        }
        idempotency_key(&headers).map_err(|problem| Dialect::Detail.status(&problem.what).as_u16())
    }

    #[test]
    fn an_idempotency_key_is_visible_ascii_and_alone() {
        let longest = "k".repeat(255);
        assert_eq!(key_of(&[]), Ok(None));
        for good in ["a", "8e03978e-40d5-43e8-bc93-6894a57f9324", "\"quoted\"", &longest] {
            assert_eq!(key_of(&[good.as_bytes()]), Ok(Some(good.to_owned())));
        }
        let too_long = "k".repeat(256);
        let bad: [&[&[u8]]; 6] = [&[b""], &[b"a b"], &[b"a\tb"], &[b"\xc3\xa9"], &[too_long.as_bytes()], &[b"a", b"a"]];
        for values in bad {
            assert_eq!(key_of(values), Err(422), "{values:?}");
        }
    }

    #[test]
    fn the_answer_has_three_keys_in_the_contracts_order() {
        let text = |fields: &Fields, rebound| {
            String::from_utf8(crate::api::json::json_text(&Answer { fields, rebound }).to_vec()).unwrap()
        };
        let fields = |rows: &str, guest: &str| Fields { rows_updated: rows.to_owned(), anonymous_id: guest.to_owned() };
        let guest = "anon:0d9c1c1e-3f0e-4f6e-9f53-3a0c7a4d2b11".parse().unwrap();
        assert_eq!(
            text(&fields("rows_updated", "anonymous_id"), Rebound::Moved { rows: 12, guest }),
            r#"{"rebound":true,"rows_updated":12,"anonymous_id":"0d9c1c1e-3f0e-4f6e-9f53-3a0c7a4d2b11"}"#
        );
        assert_eq!(text(&fields("moved", "was"), Rebound::NoOp), r#"{"rebound":false,"moved":0,"was":null}"#);
    }
}
