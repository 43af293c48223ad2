//! What changes while the server runs, and what a mistake in a file does not change.

mod rotation;
mod volumes;

use std::path::Path;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::support::client::{Client, sign_in};
use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const OPEN: &str = "routes: [{ path: '/**', auth: none }]";
const CLOSED: &str = "routes: [{ path: '/**', auth: required }]";

/// Looks at its files far more often than by default.
fn watching(upstream: &Upstream) -> Builder {
    Doorward::builder().upstream(upstream.url()).config("lifecycle: { reload_interval: 50ms }")
}

/// Replaces the last overlay of [`watching`] and one more.
fn rewrite(doorward: &Doorward, yaml: &str) {
    write(&doorward.directory().join("2.yaml"), yaml);
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).expect("the directory is writable");
}

async fn until_answered(doorward: &Doorward, path: &str, status: u16) {
    eventually(&format!("{path} to answer {status}"), async || {
        (doorward.client().get(path).send().await.status == status).then_some(())
    })
    .await;
}

async fn metric(doorward: &Doorward, series: &str) -> String {
    let text = doorward.admin_get("/metrics").await.text();
    let found = text.lines().find_map(|line| line.strip_prefix(&format!("doorward_{series}"))).map(str::to_owned);
    found.unwrap_or_else(|| panic!("no {series} in {text}"))
}

async fn until_reloaded(doorward: &Doorward, successful: &str) {
    eventually("the outcome of a reload", async || {
        (metric(doorward, "config_last_reload_successful").await == format!(" {successful}")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn routes_headers_cookie_and_log_level_follow_the_file() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let doorward = watching(&upstream).idp(&idp).config(OPEN).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    let before = metric(&doorward, "config_info").await;
    assert_eq!(doorward.client().get("/").send().await.status, 200);

    rewrite(
        &doorward,
        &format!(
            "{CLOSED}\nidentity_headers: {{ session_id: true }}\ncookie: {{ name: sid }}\ntelemetry: {{ log_level: debug }}"
        ),
    );
    until_answered(&doorward, "/", 401).await;
    assert_eq!(doorward.client().get("/by-cookie").cookie("session", &token).send().await.status, 401);
    assert_eq!(doorward.client().get("/by-cookie").cookie("sid", &token).send().await.status, 200);
    let request = upstream.wait_for(|request| request.target == "/by-cookie").await;
    assert_eq!(request.header("x-user-id"), Some("user_alice"));
    assert!(request.header("x-session-id").is_some());
    assert_ne!(metric(&doorward, "config_info").await, before);
    assert!(!doorward.logs().contains("change only with a restart"), "{}", doorward.logs());
}

#[tokio::test]
async fn sighup_reloads_at_once() {
    let upstream = Upstream::start().await;
    let builder = Doorward::builder().upstream(upstream.url()).config("lifecycle: { reload_interval: 1h }");
    let doorward = builder.config(OPEN).start().await;
    until_answered(&doorward, "/", 200).await;
    rewrite(&doorward, CLOSED);
    doorward.signal("HUP");
    until_answered(&doorward, "/", 401).await;
    doorward.wait_log(r#""message":"Configuration reloaded""#).await;
}

#[tokio::test]
async fn a_mistake_changes_nothing_is_told_once_and_is_recovered_from() {
    let upstream = Upstream::start().await;
    let doorward = watching(&upstream).config(OPEN).start().await;
    until_reloaded(&doorward, "1").await;
    let before = metric(&doorward, "config_info").await;
    let refused = "Configuration not reloaded";
    rewrite(&doorward, "routes: [{ path: no-slash, auth: none }]\nno_such_key: 1");
    until_reloaded(&doorward, "0").await;
    assert_eq!(doorward.client().get("/").send().await.status, 200, "the old one stays in force");
    assert_eq!(metric(&doorward, "config_info").await, before);
    doorward.wait_log("no_such_key").await;
    // Another mistake is told too; by then the first was met by many polls.
    rewrite(&doorward, "routes: 7");
    eventually("the second mistake to be told", async || (doorward.logs().matches(refused).count() >= 2).then_some(()))
        .await;
    rewrite(&doorward, CLOSED);
    until_answered(&doorward, "/", 401).await;
    until_reloaded(&doorward, "1").await;
    assert_eq!(doorward.logs().matches(refused).count(), 2, "{}", doorward.logs());
}

#[tokio::test]
async fn sections_that_wait_for_a_restart_are_named_until_they_get_one() {
    let upstream = Upstream::start().await;
    let doorward = watching(&upstream).config(OPEN).start().await;
    let limits = "limits: { max_connections: 77 }\nupstream: { pool_size: 7 }";
    rewrite(&doorward, &format!("{OPEN}\n{limits}"));
    doorward.wait_log(r#""sections":"upstream, limits""#).await;
    rewrite(&doorward, &format!("{CLOSED}\n{limits}\nsessions: {{ ttl: 5m }}"));
    doorward.wait_log(r#""sections":"upstream, sessions.ttl, limits""#).await;
    assert_eq!(doorward.client().get("/").send().await.status, 401, "the rest is in force");
}

#[tokio::test]
async fn a_volume_that_swaps_its_symlink_is_followed_and_a_rotated_key_keeps_the_old_one() {
    let (redis, idp, upstream) = (Redis::start().await, Idp::start().await, Upstream::start().await);
    let volume = TempDir::new("volume");
    let keys = ["first-key-of-thirty-two-bytes-0001", "second-key-of-thirty-two-bytes-002"];
    for (number, files) in [("1", vec![keys[0]]), ("2", keys.to_vec())] {
        let directory = volume.join(number);
        std::fs::create_dir(&directory).expect("the directory is writable");
        for (index, key) in files.iter().enumerate() {
            write(&directory.join(format!("key-{index}")), key);
        }
    }
    let data = volume.join("..data");
    std::os::unix::fs::symlink("1", &data).expect("the directory is writable");
    let key = |id: u8| format!("{{ id: {id}, secret: {{ file: '{}/key-{}' }} }}", data.display(), id - 1);
    let doorward = watching(&upstream)
        .idp(&idp)
        .store(&redis.url())
        .config(&format!("sessions: {{ token: {{ keys: [{}] }} }}", key(1)))
        .start()
        .await;
    let old = sign_in(&doorward, &idp, "user_alice").await;

    std::os::unix::fs::symlink("2", volume.join("..new")).expect("the directory is writable");
    std::fs::rename(volume.join("..new"), &data).expect("a rename is one step");
    rewrite(&doorward, &format!("sessions: {{ token: {{ keys: [{}, {}] }} }}", key(2), key(1)));
    doorward.wait_log(r#""message":"Configuration reloaded""#).await;
    let new = sign_in(&doorward, &idp, "user_alice").await;
    let ask = async |token: &str| doorward.client().get("/").bearer(token).send().await.status;
    assert_eq!([ask(&old).await, ask(&new).await], [200; 2]);

    // Without the old key only what the new one minted is left.
    rewrite(&doorward, &format!("sessions: {{ token: {{ keys: [{}] }} }}", key(2)));
    eventually("the old key to be gone", async || (ask(&old).await == 401).then_some(())).await;
    assert_eq!(ask(&new).await, 200);
    // The content of the file alone, as when a secret is replaced under its name.
    write(&volume.join("2/key-1"), "third-key-of-thirty-two-bytes-00003");
    eventually("the new key to be gone too", async || (ask(&new).await == 401).then_some(())).await;
    for key in keys {
        assert!(!doorward.logs().contains(key));
    }
}

#[tokio::test]
async fn a_new_certificate_is_served_without_a_restart_and_a_broken_one_is_not() {
    let (upstream, directory) = (Upstream::start().await, TempDir::new("certificate"));
    let (cert, key) = (directory.join("tls.crt"), directory.join("tls.key"));
    let issue = |name: &str| {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).expect("a certificate");
        write(&key, &made.signing_key.serialize_pem());
        write(&cert, &made.cert.pem());
        made.cert.der().to_vec()
    };
    let first = issue("first.example");
    let tls = format!("tls: {{ cert: '{}', key: '{}' }}", cert.display(), key.display());
    let doorward = watching(&upstream).config(&format!("{OPEN}\n{tls}")).start().await;
    assert_eq!(served(&doorward).await, first);
    let ends = metric(&doorward, "tls_certificate_not_after_timestamp_seconds{name=\"listener\"}").await;
    assert!(ends.trim().parse::<f64>().expect("a number") > 0.0);
    write(&cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    until_reloaded(&doorward, "0").await;
    assert_eq!(served(&doorward).await, first);
    let second = issue("second.example");
    eventually("the second certificate", async || (served(&doorward).await == second).then_some(())).await;
    until_reloaded(&doorward, "1").await;
    assert!(!doorward.logs().contains("handshake error"), "starting logs no error: {}", doorward.logs());
}

#[tokio::test]
async fn no_request_is_lost_while_the_configuration_changes() {
    let upstream = Upstream::start().await;
    let doorward = watching(&upstream).config(OPEN).start().await;
    let client = Client::new(doorward.proxy_addr());
    for round in 0..10 {
        rewrite(&doorward, &format!("{OPEN}\nidentity_headers: {{ roles: {} }}", round % 2 == 0));
        doorward.signal("HUP");
        for _ in 0..10 {
            assert_eq!(client.get("/").send().await.status, 200);
        }
    }
}

/// Returns the certificate that a handshake shows.
async fn served(doorward: &Doorward) -> Vec<u8> {
    let mut openssl = std::process::Command::new("openssl");
    openssl.args(["s_client", "-connect", &doorward.proxy_addr().to_string()]).stdin(std::process::Stdio::null());
    let output = tokio::task::spawn_blocking(move || openssl.output()).await.expect("it does not panic");
    let shown = output.expect("openssl is installed").stdout;
    CertificateDer::from_pem_slice(&shown).map(|der| der.to_vec()).unwrap_or_default()
}
