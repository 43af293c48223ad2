//! A gateway in front of a recording upstream, with one signed-in user and one guest.

use http::Method;

use super::client::{RawConnection, Response, sign_in, sign_in_guest};
use super::doorward::Doorward;
use super::h2_client::H2Client;
use super::idp::Idp;
use super::upstream::{Recorded, Upstream};

/// The user who is signed in.
pub const USER: &str = "user_2abc000000000000000000000";

/// One path of each kind; what no rule names needs a session too.
const ROUTES: &str = "
routes:
  - { path: '/open/**', auth: none }
  - { path: '/open-kept/**', auth: none, keep_credentials: true }
  - { path: '/optional/**', auth: optional }
  - { path: '/users/**', auth: required, allow_anonymous: false }
  - { path: '/admins/**', auth: required, require_any_role: ['org:admin', 'org:owner'] }
  - { path: '/kept/**', auth: required, keep_credentials: true }
  - { path: '/read-only', methods: [GET], auth: none }
  - { path: '/**', auth: required }
";

/// The parts of most tests about the guard.
pub struct Stage {
    /// The application.
    pub upstream: Upstream,
    /// The identity provider.
    pub idp: Idp,
    /// The gateway.
    pub doorward: Doorward,
    /// A token of [`USER`].
    pub user: String,
    /// A token of a guest.
    pub guest: String,
}

/// An answer, and what the application saw of the request.
#[derive(Debug)]
pub struct Asked {
    /// The answer; `None` when the connection was closed without one.
    pub response: Option<Response>,
    /// What reached the application.
    pub seen: Vec<Recorded>,
}

impl Stage {
    /// Starts one with the routes above and `config` laid over, which may be empty.
    pub async fn start(config: &str) -> Self {
        let upstream = Upstream::start().await;
        let idp = Idp::start().await;
        let mut builder = Doorward::builder().upstream(upstream.url()).idp(&idp).config(ROUTES);
        if !config.is_empty() {
            builder = builder.config(config);
        }
        let doorward = builder.start().await;
        let user = sign_in(&doorward, &idp, USER).await;
        let guest = sign_in_guest(&doorward, "a-guest's-device").await;
        Self { upstream, idp, doorward, user, guest }
    }

    /// Returns the name that the proxy is reached by: `host:port`.
    pub fn host(&self) -> String {
        self.doorward.proxy_addr().to_string()
    }

    /// Returns a head with a good `Host` and `fields`, which are lines without their ends.
    pub fn head(&self, start: &str, fields: &[impl AsRef<[u8]>]) -> Vec<u8> {
        let mut bytes = format!("{start} HTTP/1.1\r\nHost: {}\r\n", self.host()).into_bytes();
        for field in fields {
            bytes.extend(field.as_ref());
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        bytes
    }

    /// Sends exactly `bytes` over a connection of its own.
    pub async fn ask(&self, bytes: impl AsRef<[u8]>) -> Asked {
        let before = self.upstream.count();
        let mut connection = RawConnection::open(self.doorward.proxy_addr()).await;
        connection.write(&bytes).await;
        let head = bytes.as_ref().starts_with(b"HEAD ");
        let response = if head { connection.head_response().await } else { connection.response().await };
        Asked { response, seen: self.upstream.requests_after(before) }
    }

    /// Sends a request with [`Stage::head`].
    pub async fn request(&self, start: &str, fields: &[impl AsRef<[u8]>]) -> Asked {
        self.ask(self.head(start, fields)).await
    }

    /// Sends a GET over HTTP/2.
    pub async fn h2(&self, path: &str, fields: &[(&str, &[u8])]) -> Asked {
        self.h2_method(Method::GET, path, fields).await
    }

    /// Sends a request without a body over HTTP/2.
    pub async fn h2_method(&self, method: Method, path: &str, fields: &[(&str, &[u8])]) -> Asked {
        let before = self.upstream.count();
        let connection = H2Client::connect(self.doorward.proxy_addr()).await;
        let response = connection.request(method, path, fields).await.ok();
        Asked { response, seen: self.upstream.requests_after(before) }
    }

    /// Returns the field that carries the user's token.
    pub fn user_field(&self) -> String {
        format!("Authorization: Bearer {}", self.user)
    }

    /// Returns the field that carries the guest's token.
    pub fn guest_field(&self) -> String {
        format!("Authorization: Bearer {}", self.guest)
    }
}

impl Asked {
    /// Returns the status, 0 when there was no answer.
    pub fn status(&self) -> u16 {
        self.response.as_ref().map_or(0, |response| response.status)
    }

    /// Returns the body as text.
    pub fn text(&self) -> String {
        self.response.as_ref().map(Response::text).unwrap_or_default()
    }

    /// Returns what the application saw; fails the test when that is not one request, answered 200.
    pub fn forwarded(&self) -> &Recorded {
        let [seen] = self.seen.as_slice() else { panic!("forwarded once, not {self:?}") };
        assert_eq!(self.status(), 200, "{self:?}");
        seen
    }

    /// Fails the test unless the request was answered `status` with this `detail`, and not forwarded.
    pub fn refused(&self, status: u16, detail: &str) {
        assert_eq!(self.status(), status, "{self:?}");
        assert_eq!(self.text(), serde_json::json!({ "detail": detail }).to_string(), "{self:?}");
        assert!(self.seen.is_empty(), "{self:?}");
    }
}
