//! A proxy in front of a recording application, and Doorward beside them.

use std::net::SocketAddr;

use http::Method;

use super::front::{Addresses, Front, Proxy};
use crate::support::client::RawConnection;
use crate::support::doorward::Doorward;
use crate::support::h2_client::H2Client;
use crate::support::idp::Idp;
use crate::support::ports::free_port;
use crate::support::redis::Redis;
use crate::support::stage::{Asked, USER};
use crate::support::upstream::Upstream;

/// One path of each kind; what no rule names needs a session too.
const ROUTES: &str = "
routes:
  - { path: '/open/**', auth: none }
  - { path: '/optional/**', auth: optional }
  - { path: '/users/**', auth: required, allow_anonymous: false }
  - { path: '/admins/**', auth: required, require_any_role: ['org:admin'] }
  - { path: '/read-only', methods: [GET], auth: none }
  - { path: '/**', auth: required }
";

/// The parts of every test here.
pub(super) struct Stage {
    /// What is particular about the proxy.
    pub(super) proxy: &'static Proxy,
    /// The proxy.
    pub(super) front: Front,
    /// The application.
    pub(super) application: Upstream,
    /// A token of [`USER`], made through the proxy.
    pub(super) user: String,
    /// A token of a guest, made through the proxy.
    pub(super) guest: String,
    /// The session store.
    pub(super) redis: Redis,
    idp: Idp,
    addresses: Addresses,
    // What Doorward itself forwards to: nothing may ever come here.
    behind: Upstream,
    doorward: Option<Doorward>,
}

impl Stage {
    /// Starts all parts, and signs a user and a guest in.
    pub(super) async fn start(proxy: &'static Proxy) -> Self {
        let (redis, idp) = (Redis::start().await, Idp::start().await);
        let (application, behind) = (Upstream::start().await, Upstream::start().await);
        let port = |url: &str| url.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a URL with a port");
        let addresses = Addresses {
            listen: free_port(),
            doorward: free_port(),
            grpc: free_port(),
            application: port(application.url()),
        };
        let doorward = Some(start_doorward(proxy, addresses, &redis, &idp, &behind).await);
        let front = Front::start(proxy, addresses).await;
        let (user, guest) = (front.client().sign_in(&idp, USER).await, front.client().sign_in_guest("a device").await);
        Self { proxy, front, application, user, guest, redis, idp, addresses, behind, doorward }
    }

    /// Sends a signal to Doorward.
    pub(super) fn signal_doorward(&self, name: &str) {
        self.doorward.as_ref().expect("it runs").signal(name);
    }

    /// Kills Doorward.
    pub(super) fn end_doorward(&mut self) {
        self.doorward = None;
    }

    /// Starts Doorward again where it was, and waits until the proxy has found it.
    pub(super) async fn restart_doorward(&mut self) {
        self.end_doorward();
        let started = start_doorward(self.proxy, self.addresses, &self.redis, &self.idp, &self.behind).await;
        self.doorward = Some(started);
        self.front.wait_reachable().await;
    }

    /// Signs [`USER`] in again and returns the token.
    pub(super) async fn sign_in(&self) -> String {
        self.front.client().sign_in(&self.idp, USER).await
    }

    /// Starts a session of a guest and returns its token.
    pub(super) async fn sign_in_guest(&self, device: &str) -> String {
        self.front.client().sign_in_guest(device).await
    }

    /// Returns how a client names the proxy.
    pub(super) fn host(&self) -> String {
        self.front.address().to_string()
    }

    /// Sends a request without a body, whose target goes out as it stands in `start`.
    pub(super) async fn request(&self, start: &str, fields: &[impl AsRef<str>]) -> Asked {
        self.send(start, fields, b"").await
    }

    /// Sends a request; `fields` frame the body.
    pub(super) async fn send(&self, start: &str, fields: &[impl AsRef<str>], body: &[u8]) -> Asked {
        let mut bytes = format!("{start} HTTP/1.1\r\nHost: {}\r\n", self.host()).into_bytes();
        for field in fields {
            bytes.extend(field.as_ref().as_bytes());
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"\r\n");
        bytes.extend(body);
        let before = self.application.count();
        let mut connection = RawConnection::open(self.front.address()).await;
        connection.write(&bytes).await;
        let head = start.starts_with("HEAD ");
        let response = if head { connection.head_response().await } else { connection.response().await };
        assert_eq!(self.behind.count(), 0, "{start}: Doorward was made to forward it");
        Asked { response, seen: self.application.requests_after(before) }
    }

    /// Sends a GET over HTTP/2.
    pub(super) async fn h2(&self, path: &str, fields: &[(&str, &[u8])]) -> Asked {
        let before = self.application.count();
        let connection = H2Client::connect(self.front.address()).await;
        let response = connection.request(Method::GET, path, fields).await.ok();
        assert_eq!(self.behind.count(), 0, "{path}: Doorward was made to forward it");
        Asked { response, seen: self.application.requests_after(before) }
    }

    /// Returns the field that carries the user's token.
    pub(super) fn user_field(&self) -> String {
        bearer(&self.user)
    }

    /// Returns the field that carries the guest's token.
    pub(super) fn guest_field(&self) -> String {
        bearer(&self.guest)
    }
}

/// Returns the field that carries `token`.
pub(super) fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

async fn start_doorward(proxy: &Proxy, addresses: Addresses, redis: &Redis, idp: &Idp, behind: &Upstream) -> Doorward {
    let grpc = if proxy.grpc { format!("'127.0.0.1:{}'", addresses.grpc) } else { "null".to_owned() };
    Doorward::builder()
        .listen(SocketAddr::from(([127, 0, 0, 1], addresses.doorward)))
        .store(&redis.url())
        .upstream(behind.url())
        .idp(idp)
        .config(ROUTES)
        .config(&format!("forward_auth: {{ enabled: true, grpc: {grpc} }}\ntrusted_proxies: [127.0.0.1/32]"))
        .start()
        .await
}
