//! What the scripted day happens to: two replicas, one of them behind TLS, and all they need.

use std::collections::BTreeMap;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::support::client::{RawConnection, Response};
use crate::support::database::Database;
use crate::support::doorward::Doorward;
use crate::support::idp::{Idp, KID};
use crate::support::redis::Redis;
use crate::support::svix::Svix;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;

const WEBHOOK_SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// The routes of the morning.
pub(super) const ROUTES: &str = "
routes:
  - { id: open, path: '/open/**', auth: none }
  - { id: members, path: '/members/**', auth: required, allow_anonymous: false }
  - { id: all, path: '/**', auth: required }
";

/// The same with one more, and with a second token key: the first one's tokens stay good.
pub(super) const LATER: &str = "
sessions:
  token:
    keys:
      - { id: 2, secret: 'another-key-of-thirty-two-bytes-or-more' }
      - { id: 1, secret: 'integration-tests-only-0123456789abcdef' }
routes:
  - { id: open, path: '/open/**', auth: none }
  - { id: help, path: '/help/**', auth: none }
  - { id: members, path: '/members/**', auth: required, allow_anonymous: false }
  - { id: all, path: '/**', auth: required }
";

/// No configuration at all.
pub(super) const MISTAKE: &str = "routes: [{ path: no-slash, auth: none }]";

/// All that stands around the replicas.
pub(super) struct Shop {
    pub(super) redis: Redis,
    pub(super) idp: Idp,
    pub(super) upstream: Upstream,
    pub(super) sink: Upstream,
    pub(super) database: Database,
    authority: Authority,
    svix: Svix,
    files: TempDir,
}

impl Shop {
    /// Opens it, without replicas.
    pub(super) async fn open() -> Self {
        // What a restart of Redis must not lose are its sessions.
        let (redis, idp) = (Redis::options().append_only().start().await, Idp::start().await);
        let (upstream, sink) = (Upstream::start().await, Upstream::start().await);
        let database = Database::postgres().await;
        database.create("create table app.notes (id bigint, owner text not null)").await;
        let (authority, svix, files) = (Authority::new(), Svix::start(), TempDir::new("shop"));
        Self { redis, idp, upstream, sink, database, authority, svix, files }
    }

    /// Starts a replica; `reloadable` is its file `3.yaml`.
    pub(super) async fn replica(&self, reloadable: &str, tls: bool) -> Doorward {
        let fixed = format!(
            "sessions: {{ redis: {{ timeout: 2s, connect_timeout: 2s }}, revocation: {{ lease: 6s }} }}\n\
             lifecycle: {{ reload_interval: 100ms, drain_delay: 3s }}\n\
             limits: {{ anonymous_per_minute: 60 }}\n\
             webhooks: {{ clerk: {{ secrets: ['{WEBHOOK_SECRET}'] }} }}\n\
             clerk: {{ refetch_interval: 1s }}\n\
             rebind: {{ backend: sql, tables: [{{ table: {}, column: owner }}] }}\n\
             outbox: {{ alias: {{ url: '{}', api_key: phc_test }}, poll_interval: 100ms }}",
            self.database.table("notes"),
            self.sink.url(),
        );
        let identity = self.authority.identity(&["localhost"]);
        let (cert, key) = identity.write(self.files.path());
        let tls = if tls {
            format!("tls: {{ cert: '{}', key: '{}' }}", cert.display(), key.display())
        } else {
            String::new()
        };
        Doorward::builder()
            .store(&self.redis.url())
            .database(&self.database.url())
            .idp(&self.idp)
            .upstream(self.upstream.url())
            .config(&fixed)
            .config(if tls.is_empty() { "tls: null" } else { &tls })
            .config(reloadable)
            .start()
            .await
    }

    /// Puts another file in the place of a replica's `3.yaml`.
    pub(super) fn rewrite(replica: &Doorward, reloadable: &str) {
        std::fs::write(replica.directory().join("3.yaml"), reloadable).expect("the directory is writable");
    }

    /// Asks the replica behind TLS `count` times on one connection; returns how often each status came.
    pub(super) async fn ask_over_tls(&self, replica: &Doorward, token: &str, count: u32) -> BTreeMap<u16, u32> {
        let stream = self.authority.connect(replica.proxy_addr(), "localhost", &["http/1.1"]).await;
        ask_on(&mut RawConnection::over(stream), &get("/work", token), count).await
    }

    /// Delivers a webhook as Clerk does; its signature is good unless it is to be spoilt.
    pub(super) async fn webhook(&self, replica: &Doorward, user: &str, spoilt: bool) -> Response {
        let seconds = super::day::now();
        let body = json!({
            "data": { "id": user, "object": "user", "deleted": true },
            "object": "event", "type": "user.deleted", "timestamp": seconds * 1000, "instance_id": KID,
            "event_attributes": { "http_request": { "client_ip": "192.0.2.1", "user_agent": "a browser" } },
        })
        .to_string();
        let id = format!("msg_{user}");
        let signature = self.svix.sign(WEBHOOK_SECRET, &id, seconds, &body);
        let signature = if spoilt { signature.replacen("v1,", "v1,A", 1) } else { signature };
        let request = replica.client().post("/webhooks/clerk").header("content-type", "application/json");
        let request = request.header("svix-id", &id).header("svix-timestamp", &seconds.to_string());
        request.header("svix-signature", &signature).body(body).send().await
    }
}

/// Returns a request for `path`; without a token when there is none.
pub(super) fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: shop\r\n{}\r\n", bearer(token))
}

/// Returns a try to sign in with something that is no JWT.
pub(super) fn failing_sign_in() -> String {
    format!("POST /auth/session HTTP/1.1\r\nhost: shop\r\ncontent-length: 0\r\n{}\r\n", bearer("garbage"))
}

/// Sends a request `count` times over each of four connections; returns how often each status came.
pub(super) async fn ask(replica: &Doorward, request: &str, count: u32) -> BTreeMap<u16, u32> {
    let caller = async || {
        let mut connection = RawConnection::open(replica.proxy_addr()).await;
        ask_on(&mut connection, request, count).await
    };
    let (one, two, three, four) = tokio::join!(caller(), caller(), caller(), caller());
    [one, two, three, four].into_iter().flatten().fold(BTreeMap::new(), |mut sum, (status, times)| {
        *sum.entry(status).or_default() += times;
        sum
    })
}

async fn ask_on<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut RawConnection<S>,
    request: &str,
    count: u32,
) -> BTreeMap<u16, u32> {
    let mut statuses = BTreeMap::new();
    for _ in 0..count {
        connection.write(request).await;
        let answer = connection.response().await.expect("the connection is kept");
        *statuses.entry(answer.status).or_default() += 1;
    }
    statuses
}

fn bearer(token: &str) -> String {
    if token.is_empty() { String::new() } else { format!("authorization: Bearer {token}\r\n") }
}
