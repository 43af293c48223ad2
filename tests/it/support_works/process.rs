//! Doorward as a child process, with a script standing in for it.

use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::path::Path;

use futures_util::FutureExt;

use crate::support::client::{Client, sign_in};
use crate::support::doorward::{Builder, Doorward};
use crate::support::idp::Idp;
use crate::support::upstream::Upstream;

/// Returns a builder for the script, which the upstream calls ready in its place.
fn stand_in(upstream: &Upstream) -> Builder {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/support/stand_in.sh");
    Doorward::builder().stand_in(&script, address(upstream))
}

fn address(upstream: &Upstream) -> SocketAddr {
    upstream.url().strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an upstream on TCP")
}

async fn failure<T>(start: impl Future<Output = T>) -> String {
    let Err(panic) = AssertUnwindSafe(start).catch_unwind().await else { panic!("it started") };
    panic.downcast_ref::<String>().expect("a message").clone()
}

#[tokio::test]
async fn it_is_started_with_its_configuration_and_environment() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let doorward = stand_in(&upstream)
        .store("redis://127.0.0.1:1/")
        .upstream("unix:/app.sock")
        .idp(&idp)
        .config("tenants: { default: acme }")
        .env("COLOUR", "blue")
        .start()
        .await;
    doorward.wait_log("tenants: { default: acme }").await;
    doorward.wait_log("stand-in: COLOUR=blue").await;
    let logs = doorward.logs();
    assert!(logs.contains("called with serve --config "), "{logs}");
    for line in [
        format!("listen: '{}'", doorward.proxy_addr()),
        "upstream: { url: 'unix:/app.sock' }".to_owned(),
        "store: 'redis://127.0.0.1:1/', token: { keys: [{ id: 1".to_owned(),
        idp.jwks_url(),
    ] {
        assert!(logs.contains(&line), "{line} in {logs}");
    }
    assert_eq!(doorward.admin_get("/readyz").await.status, 200);
    assert!(doorward.directory().join("0.yaml").exists());
}

#[tokio::test]
async fn the_embedded_store_is_in_its_own_directory() {
    let upstream = Upstream::start().await;
    let doorward = stand_in(&upstream).start().await;
    doorward.wait_log(&format!("store: 'sqlite://{}/sessions.db'", doorward.directory().display())).await;
}

#[tokio::test]
async fn it_gets_signals_and_its_end_is_seen() {
    let upstream = Upstream::start().await;
    let mut doorward = stand_in(&upstream).start().await;
    // The script has set its trap by then.
    doorward.wait_log("stand-in: called").await;
    doorward.signal("TERM");
    assert_eq!(doorward.wait_exit().await.code(), Some(3));
    assert!(doorward.logs().contains("stand-in: terminated"));
}

#[tokio::test]
async fn it_is_awaited_until_it_is_ready() {
    let upstream = Upstream::start().await;
    upstream.respond("/readyz", "HTTP/1.1 503 Not Yet\r\ncontent-length: 0\r\n\r\n");
    let (doorward, ()) = tokio::join!(stand_in(&upstream).start(), async {
        upstream.wait_for(|request| request.target == "/readyz").await;
        upstream.respond("/readyz", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
    });
    assert_eq!(doorward.admin_get("/readyz").await.status, 200);
}

#[tokio::test]
async fn a_failed_start_shows_what_the_process_said() {
    let broken = Doorward::builder().config("no_such_key: 1");
    let said = failure(broken.start()).await;
    assert!(said.contains("doorward ended: exit status: ") && said.contains("no_such_key"), "{said}");
    let upstream = Upstream::start().await;
    let missing = Doorward::builder().stand_in(Path::new("/bin/cat"), address(&upstream)).config("x");
    let mut process = missing.spawn();
    assert!(!process.wait_exit().await.success());
    assert!(process.logs().contains("cat: "), "{}", process.logs());
}

#[tokio::test]
async fn sign_in_exchanges_a_jwt_for_a_token() {
    let (admin, idp) = (Upstream::start().await, Idp::start().await);
    let doorward = stand_in(&admin).start().await;
    // The proxy port is free: the script listens nowhere.
    let proxy = Upstream::at(doorward.proxy_addr()).await;
    let body = r#"{"token":"dw_x","expires_in":1800}"#;
    proxy.respond("/auth/session", &format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()));
    assert_eq!(sign_in(&doorward, &idp, "user_alice").await, "dw_x");
    let request = &proxy.requests()[0];
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/auth/session"));
    assert!(request.header("authorization").is_some_and(|value| value.starts_with("Bearer eyJ")));
    assert_eq!(Client::new(doorward.proxy_addr()).get("/status/404").send().await.status, 404);
}
