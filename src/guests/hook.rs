//! Asks the application to make a guest's rows the user's.
//!
//! One call with one deadline and a small answer. Anything but a 200 with the number of rows or a
//! refusal is inconclusive: the rows may have been moved, so only a call with the same key may follow.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use crate::config;
use crate::config::rebind::Hook as Config;
use crate::model::PrincipalId;
use crate::outgoing::{Client, ClientSettings, OutgoingError};
use crate::telemetry::with_causes;
use crate::wire::json::parse_object;

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// The application's hook.
pub(super) struct RebindHook {
    client: Client,
    authorization: ArcSwapOption<HeaderValue>,
    deadline: Duration,
}

/// A secret for the hook that has been checked and is not in use yet.
pub struct NewHookSecret(Option<HeaderValue>);

/// Why the hook did not confirm the rebind.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It refused, and moved nothing.
    #[error("the hook refused with {0}")]
    Refused(StatusCode),
    /// It could not be reached, or its answer was lost.
    #[error("the hook did not answer")]
    Lost(#[source] OutgoingError),
    /// Its status neither confirms nor refuses.
    #[error("the hook answered {0}")]
    Unclear(StatusCode),
    /// It confirmed without the number of rows.
    #[error("the hook's answer is not {{\"rows\": N}}")]
    Unreadable,
}

impl RebindHook {
    pub(super) fn new(hook: &Config, upstream: &config::Upstream) -> Result<Self, String> {
        let settings = ClientSettings {
            deadline: Some(hook.timeout),
            connect_timeout: Some(upstream.connect_timeout.min(hook.timeout)),
            // A connection kept for long is one more that can be dead when it is needed.
            idle_connections: 0,
            // The rebind service repeats a call whose answer was lost; the library must not do it unseen.
            resends: false,
            ..ClientSettings::default()
        };
        let client = match (hook.upstream_path(), &hook.url) {
            (Some(path), _) => at_upstream(path, upstream, settings)?,
            (None, Some(url)) => {
                let client = Client::to_url(url, hook.ca.as_deref(), &settings);
                client.map_err(|error| format!("url: {}", with_causes(&error)))?
            }
            (None, None) => return Err("url is missing".to_owned()),
        };
        Ok(Self {
            client,
            authorization: ArcSwapOption::new(NewHookSecret::new(hook)?.0.map(Arc::new)),
            deadline: hook.timeout,
        })
    }

    /// Sends this secret from now on.
    pub(super) fn use_secret(&self, NewHookSecret(authorization): NewHookSecret) {
        self.authorization.store(authorization.map(Arc::new));
    }

    /// Returns how long a call takes at most.
    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Asks the hook to make the rows of `from` those of `to`, under the idempotency key `key`; returns
    /// how many it moved.
    pub(super) async fn call(&self, from: &PrincipalId, to: &PrincipalId, key: &str) -> Result<u64, HookError> {
        let body = json!({ "from": from.as_str(), "to": to.as_str(), "idempotency_key": key }).to_string();
        let mut headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        if let Some(authorization) = self.authorization.load_full() {
            headers.insert(AUTHORIZATION, HeaderValue::clone(&authorization));
        }
        let reply = self.client.send(Method::POST, headers, Some(body.into_bytes())).await.map_err(HookError::Lost)?;
        match reply.status() {
            StatusCode::OK => {}
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) => {
                return Err(HookError::Unclear(status));
            }
            status if status.is_client_error() => return Err(HookError::Refused(status)),
            status => return Err(HookError::Unclear(status)),
        }
        let answer = match reply.body(ANSWER_MAX).await {
            Ok(answer) => answer,
            Err(OutgoingError::TooLarge(_)) => return Err(HookError::Unreadable),
            Err(error) => return Err(HookError::Lost(error)),
        };
        rows_in(&answer).ok_or(HookError::Unreadable)
    }
}

impl NewHookSecret {
    pub(super) fn new(hook: &Config) -> Result<Self, String> {
        let value = hook.secret.as_ref().map(|secret| HeaderValue::from_str(&format!("Bearer {}", secret.expose())));
        let mut value = value.transpose().map_err(|_| "secret is no header value".to_owned())?;
        if let Some(value) = &mut value {
            value.set_sensitive(true);
        }
        Ok(Self(value))
    }
}

fn rows_in(answer: &[u8]) -> Option<u64> {
    parse_object(answer)?.get("rows").and_then(Value::as_u64)
}

/// Returns a client of `path` on the application, at the address that requests are forwarded to.
fn at_upstream(path: &str, upstream: &config::Upstream, settings: ClientSettings) -> Result<Client, String> {
    let address = upstream.address().ok_or("url is a path at the upstream, and upstream.url is null")?;
    let client = Client::to_upstream(&address, &ClientSettings { versions: upstream.versions(), ..settings });
    let client = client.map_err(|error| format!("upstream: {}", with_causes(&error)))?;
    client.at(path).map_err(|error| format!("url: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::Secret;

    fn sent(secret: &str) -> Result<Option<HeaderValue>, String> {
        let (url, secret) = (Some("/rebind".to_owned()), Some(Secret::new(secret.to_owned())));
        let hook = Config { url, secret, timeout: Duration::from_secs(1), ca: None };
        NewHookSecret::new(&hook).map(|secret| secret.0)
    }

    #[test]
    fn a_confirmation_has_one_number_of_rows() {
        assert_eq!(rows_in(br#"{"rows":12,"took":{"ms":3}}"#), Some(12));
        let bad: [&[u8]; 8] = [
            b"",
            b"12",
            b"[12]",
            b"{}",
            br#"{"rows":-1}"#,
            br#"{"rows":"12"}"#,
            br#"{"rows":1,"rows":2}"#,
            br#"{"rows":12,"data":{"a":1,"a":2}}"#,
        ];
        for answer in bad {
            assert_eq!(rows_in(answer), None, "{}", answer.escape_ascii());
        }
    }

    #[test]
    fn a_secret_that_no_header_can_carry_is_refused_and_not_shown() {
        let value = sent("s3cret").unwrap().unwrap();
        assert_eq!(value, "Bearer s3cret");
        assert!(!format!("{value:?}").contains("s3cret"));
        let refused = sent("two\nlines").unwrap_err();
        assert_eq!(refused, "secret is no header value");
    }
}
