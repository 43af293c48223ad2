//! What every answer of the surface has in common, and how the tests ask for one.

use std::collections::BTreeSet;

use doorward::model::{TokenKey, TokenKeys, TokenKind};
use doorward::time::{Clock, SystemClock, Timestamp};
use http::Method;

use crate::support::client::{Client, Response};
use crate::support::doorward::Doorward;
use crate::support::h2_client::H2Client;
use crate::support::tokens::stray;
use crate::support::upstream::{Recorded, Upstream};

/// The token key of [`known_key`].
pub(crate) const TOKEN_KEY: &str = "integration-tests-only-0123456789abcdef";

/// For tests that are not about deadlines: a loaded machine must not pass for an outage.
pub(crate) const PATIENT: &str =
    "sessions: { redis: { timeout: 2s, connect_timeout: 2s }, revocation: { lease: 10s } }";

/// A caller over either protocol.
pub(crate) enum Caller {
    Http1(Client),
    Http2(H2Client),
}

impl Caller {
    /// Returns one caller for each protocol.
    pub(crate) async fn both(doorward: &Doorward) -> [Self; 2] {
        [Self::Http1(doorward.client()), Self::Http2(H2Client::connect(doorward.proxy_addr()).await)]
    }

    /// Sends one request and returns the whole answer.
    pub(crate) async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Response {
        let method: Method = method.parse().expect("a method");
        match self {
            Self::Http1(client) => {
                let request = client.request(method, path);
                let request = headers.iter().fold(request, |request, (name, value)| request.header(name, value));
                request.body(body.to_owned()).send().await
            }
            Self::Http2(client) => client.ask(method, path, headers, body).await,
        }
    }
}

/// Returns the configuration of a token key that the tests know too.
pub(crate) fn known_key() -> String {
    format!("sessions: {{ token: {{ keys: [{{ id: 1, secret: '{TOKEN_KEY}' }}] }} }}")
}

/// Returns the key ring of [`known_key`].
pub(crate) fn key_ring() -> TokenKeys {
    let key = TokenKey::new(1, TOKEN_KEY.as_bytes()).expect("a key of sufficient length");
    TokenKeys::new("dw_".to_owned(), key, Vec::new())
}

/// Returns a token with a good MAC under [`known_key`] that no session stands behind.
pub(crate) fn stray_token(kind: TokenKind, expires_at: Timestamp) -> String {
    stray(&key_ring(), kind, expires_at)
}

/// Returns the time now.
pub(crate) fn now() -> Timestamp {
    SystemClock::new().now()
}

/// Returns the body of a refusal.
pub(crate) fn detail(text: &str) -> String {
    format!(r#"{{"detail":"{text}"}}"#)
}

/// Asserts status, body and every header that an answer of Doorward's own has.
pub(crate) fn assert_answer(response: &Response, status: u16, body: &str) {
    let all = |name| response.headers.all(name);
    assert_eq!((response.status, response.text().as_str()), (status, body));
    assert_eq!(all("content-type"), ["application/json"]);
    assert_eq!(all("content-length"), [body.len().to_string()]);
    assert_eq!(all("cache-control"), ["no-store"]);
    assert_eq!(all("x-content-type-options"), ["nosniff"]);
    let ids = all("x-request-id");
    assert!(ids.len() == 1 && ids[0].len() == 16, "{ids:?}");
    assert!(ids[0].bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)), "{ids:?}");
    let challenge: &[&str] = match status {
        401 if body == detail("Missing Bearer token") => &["Bearer"],
        401 => &["Bearer error=\"invalid_token\""],
        _ => &[],
    };
    assert_eq!(all("www-authenticate"), challenge, "{body}");
    match status {
        503 => assert_eq!(all("retry-after"), ["3"]),
        429 => assert_eq!(all("retry-after").len(), 1),
        _ => assert_eq!(all("retry-after"), <[&str; 0]>::default()),
    }
    assert_eq!(all("set-cookie"), <[&str; 0]>::default());
    assert_eq!(all("server"), <[&str; 0]>::default());
}

/// Asserts a refusal in the `detail` dialect.
pub(crate) fn assert_refused(response: &Response, status: u16, text: &str) {
    assert_answer(response, status, &detail(text));
}

/// Asserts that a session was started, with exactly the contract's body, and returns its token.
pub(crate) fn token_of(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", response.text());
    let token = response.json()["token"].as_str().expect("a token").to_owned();
    assert_answer(response, 200, &format!(r#"{{"token":"{token}","expires_in":1800}}"#));
    let secret = token.strip_prefix("dw_").expect("the configured prefix");
    assert_eq!(secret.len(), 72, "{token}");
    assert!(secret.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'), "{token}");
    token
}

/// Starts the guest session of `device`.
pub(crate) async fn guest(doorward: &Doorward, device: &str) -> String {
    let body = serde_json::json!({ "device_id": device });
    token_of(&doorward.client().post("/auth/anonymous").json(&body).send().await)
}

/// Sends a request with `token` through the guard and returns what the application received.
pub(crate) async fn seen_with(doorward: &Doorward, upstream: &Upstream, token: &str) -> Recorded {
    let path = format!("/seen/{}", uuid::Uuid::new_v4().simple());
    let response = doorward.client().get(&path).bearer(token).send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    upstream.wait_for(|request| request.target == path).await
}

/// Returns whom the application takes the bearer of `token` for: `X-User-ID` and `X-Client-ID`.
pub(crate) async fn identity_of(doorward: &Doorward, upstream: &Upstream, token: &str) -> (String, String) {
    let seen = seen_with(doorward, upstream, token).await;
    let one = |name| {
        let values = seen.headers.all(name);
        assert_eq!(values.len(), 1, "{name}: {values:?}");
        values[0].to_owned()
    };
    (one("x-user-id"), one("x-client-id"))
}

/// Asserts that the guard refuses `token` as `text` says.
pub(crate) async fn assert_guard_refuses(doorward: &Doorward, token: &str, text: &str) {
    assert_refused(&doorward.client().get("/private").bearer(token).send().await, 401, text);
}

/// Returns how many different items there are.
pub(crate) fn distinct<T: Ord>(items: impl IntoIterator<Item = T>) -> usize {
    items.into_iter().collect::<BTreeSet<_>>().len()
}
