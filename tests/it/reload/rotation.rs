//! Passwords and keys that change in their files: the next use has the new one, and nobody waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use doorward::time::{Clock, SystemClock};
use serde_json::{Value, json};

use super::volumes::taken_up;
use super::{until_reloaded, watching, write};
use crate::support::client::{Client, sign_in, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::ports::free_port;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::svix::Svix;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::Upstream;
use crate::support::volume::Volume;
use crate::surface::answers::PATIENT;

/// What `deploy/redis-acl.conf` grants, as far as these tests need it.
const RULES: [&str; 4] = ["on", "~*", "&*", "+@all"];

/// The least time between two requests of a load: the server is what is tested, not the machine.
const PACE: Duration = Duration::from_millis(4);

fn secret(volume: &Volume) -> String {
    format!("{{ file: '{}' }}", volume.path("secret").display())
}

async fn status(doorward: &Doorward, token: &str) -> u16 {
    doorward.client().get("/").bearer(token).send().await.status
}

/// Returns the status of a sign-in, which needs the store and the directory; no outage may refuse it.
async fn try_sign_in(doorward: &Doorward, idp: &Idp) -> u16 {
    let jwt = idp.mint(&json!({ "sub": "user_carol" }));
    let status = doorward.client().post("/auth/session").bearer(&jwt).send().await.status;
    assert!(matches!(status, 200 | 503), "{status}");
    status
}

/// Waits until a token is good; no outage may refuse it.
async fn accepted(doorward: &Doorward, token: &str) {
    eventually("the token to be good", async || {
        let status = status(doorward, token).await;
        assert!(matches!(status, 200 | 503), "{status}");
        (status == 200).then_some(())
    })
    .await;
}

async fn rotated(doorward: &Doorward, name: &str) {
    doorward.wait_log(&format!(r#""secret":"{name}""#)).await;
    until_reloaded(doorward, "1").await;
    assert!(!doorward.logs().contains("only with a restart"), "{}", doorward.logs());
}

/// A Redis with a user `app` who has this password.
async fn redis_with(password: &str) -> Redis {
    let redis = Redis::start().await;
    let password = format!(">{password}");
    let words = ["ACL", "SETUSER", "app"].into_iter().chain(RULES).chain([password.as_str()]);
    redis.command::<String>(&words.collect::<Vec<_>>()).await;
    redis
}

#[tokio::test]
async fn a_rotated_redis_password_is_used_by_the_next_connection_and_nobody_is_signed_out() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let redis = redis_with("old-redis-password").await;
    let mut volume = Volume::new(&[("secret", "old-redis-password")]);
    let replica = async || {
        let url = format!("redis://app@127.0.0.1:{}/", redis.port());
        let config = format!("sessions: {{ redis: {{ password: {} }} }}", secret(&volume));
        watching(&upstream).idp(&idp).store(&url).config(PATIENT).config(&config).start().await
    };
    let (one, other) = (replica().await, replica().await);
    let token = sign_in(&one, &idp, "user_alice").await;
    let load = Load::start(&one, &token);

    // Both passwords, then the file, then only the new one.
    redis.command::<String>(&["ACL", "SETUSER", "app", ">new-redis-password"]).await;
    volume.update(&[("secret", "new-redis-password")]);
    for doorward in [&one, &other] {
        rotated(doorward, "sessions.redis.password").await;
        doorward.wait_log("Redis takes the rotated password").await;
        assert!(taken_up(doorward, "sessions.redis.password").await > 0.0);
    }
    redis.command::<String>(&["ACL", "SETUSER", "app", "<old-redis-password"]).await;
    sign_in(&one, &idp, "user_bob").await;
    assert_eq!(load.finish().await, Vec::<u16>::new(), "nothing broke: no answer but 200");

    let load = Load::start(&one, &token);
    let killed = redis.command::<u64>(&["CLIENT", "KILL", "USER", "app"]).await;
    assert!(killed >= 4, "two connections of each replica, not {killed}");
    for doorward in [&one, &other] {
        let signed_in = async || (try_sign_in(doorward, &idp).await == 200).then_some(());
        eventually("a sign-in over a new connection", signed_in).await;
    }
    let lost = load.finish().await;
    assert!(lost.iter().all(|status| *status == 503), "an outage is no refusal: {lost:?}");
    accepted(&one, &token).await;
    accepted(&other, &token).await;
    // The replicas hear each other over connections made with the new password.
    assert_eq!(one.client().delete("/auth/session").bearer(&token).send().await.status, 200);
    eventually("the revocation to be heard", async || (status(&other, &token).await == 401).then_some(())).await;
    for doorward in [&one, &other] {
        assert!(!doorward.logs().contains("redis-password\""), "{}", doorward.logs());
    }
}

#[tokio::test]
async fn a_password_that_redis_does_not_take_is_told_and_the_connections_in_use_go_on() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let redis = redis_with("good-password").await;
    let mut volume = Volume::new(&[("secret", "good-password")]);
    let url = format!("redis://app@127.0.0.1:{}/", redis.port());
    let config = format!("sessions: {{ redis: {{ password: {} }} }}", secret(&volume));
    let doorward = watching(&upstream).idp(&idp).store(&url).config(PATIENT).config(&config).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    volume.update(&[("secret", "wrong-password")]);
    doorward.wait_log("Redis does not take the rotated password").await;
    assert_eq!(status(&doorward, &token).await, 200);
    sign_in(&doorward, &idp, "user_bob").await;
    // Mended before anything broke.
    volume.update(&[("secret", "good-password")]);
    doorward.wait_log("Redis takes the rotated password").await;
    assert_eq!(redis.command::<u64>(&["CLIENT", "KILL", "USER", "app"]).await, 2);
    eventually("the store to be back", async || (try_sign_in(&doorward, &idp).await == 200).then_some(())).await;
    // And after: nobody is signed out meanwhile, and no restart is needed.
    volume.update(&[("secret", "wrong-password")]);
    eventually("the second refusal to be told", async || {
        (doorward.logs().matches("Redis does not take the rotated password").count() == 2).then_some(())
    })
    .await;
    redis.command::<u64>(&["CLIENT", "KILL", "USER", "app"]).await;
    eventually("the outage", async || (try_sign_in(&doorward, &idp).await == 503).then_some(())).await;
    volume.update(&[("secret", "good-password")]);
    eventually("the store to be back", async || (try_sign_in(&doorward, &idp).await == 200).then_some(())).await;
    assert_eq!(status(&doorward, &token).await, 200);
    assert!(!doorward.logs().contains("wrong-password"), "{}", doorward.logs());
}

#[tokio::test]
async fn the_connections_of_a_cluster_are_made_anew_with_a_rotated_password() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let redis = Redis::options().directive(&["cluster-enabled", "yes"]).start().await;
    redis.command::<String>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    let words = ["ACL", "SETUSER", "app"].into_iter().chain(RULES).chain([">old-redis-password"]);
    redis.command::<String>(&words.collect::<Vec<_>>()).await;
    let mut volume = Volume::new(&[("secret", "old-redis-password")]);
    let url = format!("redis+cluster://app@127.0.0.1:{}", redis.port());
    let config = format!("sessions: {{ redis: {{ password: {} }} }}", secret(&volume));
    let doorward = watching(&upstream).idp(&idp).store(&url).config(PATIENT).config(&config).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    let load = Load::start(&doorward, &token);
    redis.command::<String>(&["ACL", "SETUSER", "app", ">new-redis-password"]).await;
    volume.update(&[("secret", "new-redis-password")]);
    rotated(&doorward, "sessions.redis.password").await;
    eventually("the new connections", async || {
        (doorward.logs().matches(r#""message":"connected to Redis""#).count() == 2).then_some(())
    })
    .await;
    assert_eq!(load.finish().await, Vec::<u16>::new(), "the lease bridges it for whom the replica knows");
    redis.command::<String>(&["ACL", "SETUSER", "app", "<old-redis-password"]).await;
    redis.command::<u64>(&["CLIENT", "KILL", "USER", "app"]).await;
    eventually("a sign-in over a new connection", async || (try_sign_in(&doorward, &idp).await == 200).then_some(()))
        .await;
    accepted(&doorward, &token).await;
}

#[tokio::test]
async fn a_new_authority_for_redis_is_trusted_by_the_next_connection_and_garbage_is_refused() {
    let (idp, upstream, files) = (Idp::start().await, Upstream::start().await, TempDir::new("redis-tls"));
    let (old, new) = (Authority::new(), Authority::new());
    for (name, authority) in [("old", &old), ("new", &new)] {
        std::fs::create_dir(files.join(name)).expect("the directory is writable");
        authority.identity(&["127.0.0.1"]).write(&files.join(name));
    }
    let file = |name: &str| files.join(name).display().to_string();
    let (port, cert, key) = (free_port().to_string(), file("old/tls.crt"), file("old/tls.key"));
    let options = Redis::options().directive(&["tls-port", &port]).directive(&["tls-auth-clients", "no"]);
    let options = options.directive(&["tls-cert-file", &cert]).directive(&["tls-key-file", &key]);
    let redis = options.directive(&["tls-ca-cert-file", &cert]).start().await;
    let mut volume = Volume::new(&[("ca.crt", &old.pem())]);
    let config = format!("sessions: {{ redis: {{ ca: '{}' }} }}", volume.path("ca.crt").display());
    let doorward =
        watching(&upstream).idp(&idp).store(&format!("rediss://127.0.0.1:{port}/")).config(&config).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;

    volume.update(&[("ca.crt", "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n")]);
    until_reloaded(&doorward, "0").await;
    doorward.wait_log("sessions.redis.ca, client_cert or client_key is no PEM file of its kind").await;
    volume.update(&[("ca.crt", &new.pem())]);
    rotated(&doorward, "sessions.redis.ca").await;
    assert_eq!(status(&doorward, &token).await, 200, "the connection in use goes on");
    let (cert, key) = (file("new/tls.crt"), file("new/tls.key"));
    redis.command::<String>(&["CONFIG", "SET", "tls-cert-file", &cert, "tls-key-file", &key]).await;
    redis.command::<u64>(&["CLIENT", "KILL", "USER", "default"]).await;
    eventually("a sign-in over a new connection", async || (try_sign_in(&doorward, &idp).await == 200).then_some(()))
        .await;
    assert!(doorward.logs().contains("lost Redis"), "{}", doorward.logs());
}

#[tokio::test]
async fn a_rotated_database_password_is_used_by_the_next_connection() {
    let (idp, upstream, postgres) = (Idp::start().await, Upstream::start().await, Postgres::start().await);
    // Roles belong to the server, which other tests use too.
    let role = format!("rotating_{}", std::process::id());
    postgres.psql(&format!(
        "do $$ begin create role with_password; exception when duplicate_object then null; end $$; \
         create role {role} login password 'old-database-password' in role with_password; \
         grant all on schema public to {role}"
    ));
    let mut volume = Volume::new(&[("secret", "old-database-password")]);
    let config = format!("directory: {{ password: {} }}", secret(&volume));
    let builder = watching(&upstream).idp(&idp).database(&postgres.url_as(&role)).config(&config);
    // With webhooks, signing in asks the directory.
    let webhooks = "webhooks: { clerk: { secrets: [whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3] } }";
    let doorward = builder.config(webhooks).start().await;
    sign_in(&doorward, &idp, "user_alice").await;

    postgres.psql(&format!("alter role {role} password 'new-database-password'"));
    volume.update(&[("secret", "new-database-password")]);
    rotated(&doorward, "directory.password").await;
    doorward.wait_log("The directory's database takes the rotated password").await;
    sign_in(&doorward, &idp, "user_alice").await;
    postgres.cut_connections();
    eventually("a sign-in over a new connection", async || (try_sign_in(&doorward, &idp).await == 200).then_some(()))
        .await;
    volume.update(&[("secret", "wrong-database-password")]);
    doorward.wait_log("The directory's database does not take the rotated password").await;
    // One is enough; whoever wants a second one at the same time has to wait for the operator.
    eventually("a sign-in over a connection in use", async || {
        (try_sign_in(&doorward, &idp).await == 200).then_some(())
    })
    .await;
    assert!(!doorward.logs().contains("database-password"), "{}", doorward.logs());
}

#[tokio::test]
async fn a_rotated_signing_secret_decides_which_webhooks_are_believed() {
    const OLD: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3";
    const NEW: &str = "whsec_NzY1NDMyMTBmZWRjYmE5ODc2NTQzMjEw";
    let (idp, upstream, svix) = (Idp::start().await, Upstream::start().await, Svix::start());
    let mut volume = Volume::new(&[("secret", OLD)]);
    let config = format!("webhooks: {{ clerk: {{ secrets: [{}] }} }}", secret(&volume));
    let doorward = watching(&upstream).idp(&idp).config(&config).start().await;
    let deliver = async |secret: &str| {
        let now = SystemClock::new().now().unix_seconds();
        let id = format!("msg_{}", uuid::Uuid::new_v4().simple());
        let user = json!({ "id": "user_x", "object": "user", "banned": false, "locked": false, "updated_at": 1 });
        let body = json!({ "data": user, "object": "event", "type": "user.updated", "timestamp": now * 1000 });
        let signature = svix.sign(secret, &id, now, &body.to_string());
        let request = doorward.client().post("/webhooks/clerk").header("svix-id", &id);
        let request = request.header("svix-timestamp", &now.to_string()).header("svix-signature", &signature);
        request.json(&body).send().await.status
    };
    assert_eq!([deliver(OLD).await, deliver(NEW).await], [200, 400]);
    volume.update(&[("secret", NEW)]);
    rotated(&doorward, "webhooks.clerk.secrets").await;
    assert_eq!([deliver(OLD).await, deliver(NEW).await], [400, 200]);
    assert!(!doorward.logs().contains("whsec_"), "{}", doorward.logs());
}

#[tokio::test]
async fn rotated_secrets_go_to_the_hook_and_to_the_sink() {
    let (idp, upstream, sink) = (Idp::start().await, Upstream::start().await, Upstream::start().await);
    let mut hook = Volume::new(&[("secret", "old-hook-secret")]);
    let mut key = Volume::new(&[("secret", "old-sink-key")]);
    let rebind = format!("rebind: {{ backend: http, hook: {{ url: /internal/rebind, secret: {} }} }}", secret(&hook));
    let outbox = format!("outbox: {{ alias: {{ url: '{}', api_key: {} }} }}", sink.url(), secret(&key));
    let doorward = watching(&upstream).idp(&idp).config(&rebind).config(&outbox).start().await;
    upstream.respond("/internal/rebind", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"rows\":1}");
    let rebind = async |device: &str| {
        sign_in_guest(&doorward, device).await;
        let token = sign_in(&doorward, &idp, &format!("user_{device}")).await;
        let request = doorward.client().post("/auth/rebind").bearer(&token);
        let answer = request.json(&json!({ "device_id": device })).send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    let batch = async |count: usize| {
        eventually("the alias to be sent", async || {
            let sent: Vec<_> =
                sink.requests().into_iter().filter(|sent| sent.target == "/batch/" && sent.complete).collect();
            (sent.len() >= count).then(|| serde_json::from_slice::<Value>(&sent[count - 1].body).expect("JSON"))
        })
        .await
    };
    rebind("one").await;
    assert_eq!(batch(1).await["api_key"], "old-sink-key");
    hook.update(&[("secret", "new-hook-secret")]);
    rotated(&doorward, "rebind.hook.secret").await;
    key.update(&[("secret", "new-sink-key")]);
    rotated(&doorward, "outbox.alias.api_key").await;
    rebind("two").await;
    assert_eq!(batch(2).await["api_key"], "new-sink-key");
    // A key that comes with another address is for that address, which waits for a restart.
    let elsewhere = "outbox: { alias: { url: 'http://127.0.0.1:1', api_key: another-sink-key } }";
    write(&doorward.directory().join("3.yaml"), elsewhere);
    doorward.wait_log(r#""sections":"outbox""#).await;
    rebind("three").await;
    assert_eq!(batch(3).await["api_key"], "new-sink-key");
    let calls = upstream.requests().into_iter().filter(|call| call.target == "/internal/rebind");
    let secrets: Vec<_> = calls.map(|call| call.header("authorization").unwrap_or_default().to_owned()).collect();
    assert_eq!(secrets, ["Bearer old-hook-secret", "Bearer new-hook-secret", "Bearer new-hook-secret"]);
    for text in [doorward.logs(), doorward.admin_get("/metrics").await.text()] {
        assert!(!text.contains("hook-secret") && !text.contains("sink-key"), "{text}");
    }
}

#[tokio::test]
async fn a_hook_secret_that_cannot_be_sent_is_refused_and_told_and_the_old_one_goes_on() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let mut volume = Volume::new(&[("secret", "old-hook-secret")]);
    let config = format!("rebind: {{ backend: http, hook: {{ url: /internal/rebind, secret: {} }} }}", secret(&volume));
    let doorward = watching(&upstream).idp(&idp).config(&config).start().await;
    upstream.respond("/internal/rebind", "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{\"rows\":1}");
    let sent = async |device: &str| {
        sign_in_guest(&doorward, device).await;
        let token = sign_in(&doorward, &idp, &format!("user_{device}")).await;
        let request = doorward.client().post("/auth/rebind").bearer(&token);
        assert_eq!(request.json(&json!({ "device_id": device })).send().await.status, 200);
        let mut calls = upstream.requests().into_iter().filter(|call| call.target == "/internal/rebind");
        calls.next_back().and_then(|call| call.header("authorization").map(str::to_owned))
    };
    let since = taken_up(&doorward, "rebind.hook.secret").await;

    volume.update(&[("secret", "new\nhook-secret")]);
    until_reloaded(&doorward, "0").await;
    doorward.wait_log("rebind.hook.secret: must be visible ASCII characters without spaces").await;
    assert_eq!(sent("one").await.as_deref(), Some("Bearer old-hook-secret"));
    assert!(!doorward.logs().contains("Secret reloaded"), "{}", doorward.logs());
    assert_eq!(taken_up(&doorward, "rebind.hook.secret").await.to_bits(), since.to_bits());

    volume.update(&[("secret", "new-hook-secret")]);
    rotated(&doorward, "rebind.hook.secret").await;
    assert_eq!(sent("two").await.as_deref(), Some("Bearer new-hook-secret"));
    assert!(!doorward.logs().contains("hook-secret"), "{}", doorward.logs());
}

/// Asks with one token, again and again.
struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Vec<u16>>,
}

impl Load {
    fn start(doorward: &Doorward, token: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (client, token, ended) = (Client::new(doorward.proxy_addr()), token.to_owned(), stop.clone());
        let task = tokio::spawn(async move {
            let mut others = Vec::new();
            let mut pace = tokio::time::interval(PACE);
            while !ended.load(Ordering::SeqCst) {
                pace.tick().await;
                let status = client.get("/").bearer(&token).send().await.status;
                if status != 200 {
                    others.push(status);
                }
            }
            others
        });
        Self { stop, task }
    }

    /// Returns every status but 200.
    async fn finish(self) -> Vec<u16> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await.expect("it does not panic")
    }
}
