//! Asking the application to make a guest's rows the user's.
//!
//! One call, one deadline, a small answer. Anything but a clear yes or a clear no is neither: the
//! rows may have been moved, and only the same key may be asked again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use http::StatusCode;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder, Url};
use serde::Deserialize;
use serde_json::json;

use crate::config;
use crate::config::rebind::Hook as Config;
use crate::config::upstream::UpstreamUrl;
use crate::model::PrincipalId;
use crate::outgoing::{self, ClientError};
use crate::telemetry::with_causes;

/// The largest answer that is read, in bytes.
const ANSWER_MAX: usize = 64 * 1024;

/// The application's hook.
pub(super) struct Hook {
    client: Client,
    url: Url,
    authorization: ArcSwapOption<HeaderValue>,
    deadline: Duration,
}

/// What the hook is sent to know us by: checked, and not in use yet.
pub struct NewHookSecret(Option<HeaderValue>);

/// Why the hook did not say yes.
#[derive(Debug, thiserror::Error)]
pub enum HookError {
    /// It said no, and moved nothing.
    #[error("the hook refused with {0}")]
    Refused(StatusCode),
    /// It could not be asked, or the answer was lost.
    #[error("the hook did not answer")]
    Lost(#[source] reqwest::Error),
    /// It answered neither yes nor no.
    #[error("the hook answered {0}")]
    Unclear(StatusCode),
    /// It said yes, but not how many rows.
    #[error("the hook's answer is not {{\"rows\": N}}")]
    Unreadable,
}

#[derive(Deserialize)]
struct Yes {
    rows: u64,
}

/// Finds the upstream's host under whatever name its certificate has.
struct Upstream {
    host: String,
}

impl Hook {
    pub(super) fn new(hook: &Config, upstream: &config::Upstream) -> Result<Self, String> {
        let (builder, url) = match (hook.upstream_path(), &hook.url) {
            (Some(path), _) => at_upstream(path, upstream)?,
            (None, Some(url)) => {
                let builder = outgoing::builder(hook.ca.as_deref(), url.starts_with("https://"));
                (builder.map_err(|error| with_causes(&error))?, url.clone())
            }
            (None, None) => return Err("url is missing".to_owned()),
        };
        let client = builder
            .timeout(hook.timeout)
            .connect_timeout(upstream.connect_timeout.min(hook.timeout))
            // A connection kept for long is one more that can be dead when it is needed.
            .pool_max_idle_per_host(0)
            // A call that was lost is repeated by whoever knows that it was.
            .retry(reqwest::retry::never())
            .build();
        Ok(Self {
            client: client.map_err(|error| with_causes(&ClientError::Client(error)))?,
            url: Url::parse(&url).map_err(|_| "url cannot be read".to_owned())?,
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

    /// Asks for the rows of `from` to become those of `to`; returns how many did, under `key`.
    pub(super) async fn call(&self, from: &PrincipalId, to: &PrincipalId, key: &str) -> Result<u64, HookError> {
        let body = json!({ "from": from.as_str(), "to": to.as_str(), "idempotency_key": key }).to_string();
        let mut request = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = self.authorization.load_full() {
            request = request.header(AUTHORIZATION, HeaderValue::clone(&authorization));
        }
        let mut response = request.send().await.map_err(lost)?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS) => {
                return Err(HookError::Unclear(status));
            }
            status if status.is_client_error() => return Err(HookError::Refused(status)),
            status => return Err(HookError::Unclear(status)),
        }
        let mut answer = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if answer.len() + chunk.len() > ANSWER_MAX {
                return Err(HookError::Unreadable);
            }
            answer.extend_from_slice(&chunk);
        }
        serde_json::from_slice(&answer).map(|Yes { rows }| rows).map_err(|_| HookError::Unreadable)
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

impl Resolve for Upstream {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.host.clone();
        Box::pin(async move {
            // The port is the URL's.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Returns what asks the application where requests are forwarded to, and its URL there.
fn at_upstream(path: &str, upstream: &config::Upstream) -> Result<(ClientBuilder, String), String> {
    let target = upstream.url.as_ref().ok_or("url is a path at the upstream, and upstream.url is null")?;
    let tls = matches!(target, UpstreamUrl::Tcp { tls: true, .. });
    let builder = outgoing::builder(upstream.ca.as_deref(), tls);
    let builder = builder.map_err(|error| format!("upstream: {}", with_causes(&error)))?;
    Ok(match target {
        UpstreamUrl::Unix(socket) => (builder.unix_socket(socket.as_path()), format!("http://localhost{path}")),
        UpstreamUrl::Tcp { host, port, tls } => {
            let scheme = if *tls { "https" } else { "http" };
            let name = upstream.server_name.as_ref().filter(|_| *tls).unwrap_or(host);
            let name = if name.contains(':') { format!("[{name}]") } else { name.clone() };
            (builder.dns_resolver(Upstream { host: host.clone() }), format!("{scheme}://{name}:{port}{path}"))
        }
    })
}

// The address may carry a key in its query.
fn lost(error: reqwest::Error) -> HookError {
    HookError::Lost(error.without_url())
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
    fn a_secret_that_no_header_can_carry_is_refused_and_not_shown() {
        let value = sent("s3cret").unwrap().unwrap();
        assert_eq!(value, "Bearer s3cret");
        assert!(!format!("{value:?}").contains("s3cret"));
        let refused = sent("two\nlines").unwrap_err();
        assert_eq!(refused, "secret is no header value");
    }
}
