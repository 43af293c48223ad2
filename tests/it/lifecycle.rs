//! From the start to the last byte: probes, signals, and starts that must fail.

mod drain;
mod load;

use std::net::TcpListener;

use crate::lifecycle::load::{Fleet, Load};
use crate::support::client::{RawConnection, sign_in};
use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

/// What a load worker waits for before the test goes on.
const SOME: u64 = 200;

async fn until_refused(doorward: &Doorward) {
    let address = doorward.proxy_addr();
    eventually("the proxy port to close", async || RawConnection::try_open(address).await.is_none().then_some(()))
        .await;
}

async fn until_status(doorward: &Doorward, path: &str, status: u16) {
    let what = format!("{path} to answer {status}");
    let address = doorward.admin_addr();
    eventually(&what, async || {
        let answer = crate::support::client::Client::new(address).get(path).try_send().await.ok()?;
        (answer.status == status).then_some(())
    })
    .await;
}

fn get(path: &str, token: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: app\r\nauthorization: Bearer {token}\r\n\r\n")
}

#[tokio::test]
async fn it_starts_without_redis_and_keys_becomes_ready_with_them_and_stays_ready_without() {
    let (mut redis, idp, upstream) = (Redis::start().await, Idp::start().await, Upstream::start().await);
    redis.kill();
    idp.fail();
    let doorward = Doorward::builder()
        .store(&redis.url())
        .idp(&idp)
        .upstream(upstream.url())
        .config("clerk: { refetch_interval: 1s }")
        .spawn();
    until_status(&doorward, "/startupz", 200).await;
    idp.wait_fetches(1).await;
    assert_eq!(doorward.admin_get("/livez").await.status, 200);
    let unready = doorward.admin_get("/readyz?verbose").await;
    let expected = "started: ok\nserving: ok\nstore: failed\nkeys: failed\nfailed\n";
    assert_eq!((unready.status, unready.text().as_str()), (503, expected));

    redis.restart().await;
    eventually("the store to be ready", async || {
        doorward.admin_get("/readyz?verbose").await.text().contains("store: ok").then_some(())
    })
    .await;
    assert_eq!(doorward.admin_get("/readyz").await.status, 503, "the keys are still missing");
    idp.recover();
    until_status(&doorward, "/readyz", 200).await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    assert_eq!(doorward.client().get("/").bearer(&token).send().await.status, 200);

    redis.kill();
    idp.fail();
    eventually("the outage to be felt", async || {
        let answer = doorward.client().get("/").bearer(&token).send().await;
        (answer.status == 503).then_some(())
    })
    .await;
    for (path, body) in [("/readyz", "ok\n"), ("/livez", "ok\n"), ("/healthz", "ok\n"), ("/startupz", "ok\n")] {
        let answer = doorward.admin_get(path).await;
        assert_eq!((answer.status, answer.text().as_str()), (200, body), "{path}");
    }
}

#[tokio::test]
async fn the_proxy_port_is_open_when_startup_is_over() {
    let upstream = Upstream::start().await;
    let doorward =
        Doorward::builder().upstream(upstream.url()).config("routes: [{ path: '/**', auth: none }]").start().await;
    // Ready a moment ago: the first connection must not be refused.
    assert_eq!(doorward.client().get("/first").send().await.status, 200);
    assert!(doorward.logs().contains(r#""message":"Serving""#), "{}", doorward.logs());
}

#[tokio::test]
async fn sigterm_under_load_loses_no_request() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    let mut doorward = Doorward::builder()
        .idp(&idp)
        .upstream(upstream.url())
        // Far more than this test's patience: it must end because nothing is under way.
        .config("lifecycle: { drain_delay: 1s, drain_timeout: 10m }")
        .start()
        .await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    let fleet = Fleet::of(&[&doorward]);
    let load = Load::start(&fleet, &token, 8);
    load.answered(SOME).await;
    doorward.signal("TERM");
    until_status(&doorward, "/readyz", 503).await;
    assert_eq!(doorward.admin_get("/livez").await.status, 200, "unready is not dead");
    fleet.withdraw(&doorward);
    let tally = load.finish().await;
    assert_eq!(tally.lost, Vec::<String>::new());
    assert!(tally.closing > 0, "no request met the drain: {tally:?}");
    assert_eq!(tally.kept_open, 0, "answers during the drain carry Connection: close");
    assert_eq!(doorward.wait_exit().await.code(), Some(0));
}

#[tokio::test]
async fn a_rolling_restart_of_two_replicas_loses_no_request() {
    let (redis, idp, upstream) = (Redis::start().await, Idp::start().await, Upstream::start().await);
    let replica = async || {
        let builder = Doorward::builder().store(&redis.url()).idp(&idp).upstream(upstream.url());
        builder.config("lifecycle: { drain_delay: 500ms, drain_timeout: 10m }").start().await
    };
    let mut old = [replica().await, replica().await];
    let token = sign_in(&old[0], &idp, "user_alice").await;
    let fleet = Fleet::of(&[&old[0], &old[1]]);
    let load = Load::start(&fleet, &token, 6);
    load.answered(SOME).await;
    let mut new = Vec::new();
    for leaving in &mut old {
        let coming = replica().await;
        fleet.enlist(&coming);
        new.push(coming);
        let before = load.count();
        leaving.signal("TERM");
        assert_eq!(leaving.wait_exit().await.code(), Some(0));
        fleet.withdraw(leaving);
        load.answered(before + SOME).await;
    }
    for replica in &new {
        fleet.withdraw(replica);
    }
    let tally = load.finish().await;
    assert_eq!(tally.lost, Vec::<String>::new());
    assert!(tally.closing > 0, "no request met a drain: {tally:?}");
}

#[tokio::test]
async fn what_is_under_way_finishes_and_idle_connections_do_not_hold_the_drain_up() {
    for name in ["TERM", "INT"] {
        let upstream = Upstream::start().await;
        let mut doorward = open_to_all(&upstream).config("lifecycle: { drain_timeout: 10m }").start().await;
        let mut idle = RawConnection::open(doorward.proxy_addr()).await;
        idle.write(get("/", "x")).await;
        assert_ne!(idle.response().await.expect("an answer").header("connection"), Some("close"));
        let mut slow = RawConnection::open(doorward.proxy_addr()).await;
        slow.write(get("/slow-body", "x")).await;
        upstream.wait_for(|request| request.target == "/slow-body").await;
        doorward.signal(name);
        until_refused(&doorward).await;
        assert_eq!(idle.closed().await, b"");
        assert_eq!(doorward.admin_get("/readyz").await.status, 503, "the admin port answers to the end");
        upstream.release();
        let answer = slow.response().await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (200, "first-second"));
        assert_eq!(slow.closed().await, b"");
        assert_eq!(doorward.wait_exit().await.code(), Some(0), "SIG{name}");
    }
}

#[tokio::test]
async fn the_drain_timeout_bounds_a_request_that_hangs() {
    let upstream = Upstream::start().await;
    let mut doorward = open_to_all(&upstream).config("lifecycle: { drain_timeout: 1s }").start().await;
    let mut hanging = RawConnection::open(doorward.proxy_addr()).await;
    hanging.write(get("/hang", "x")).await;
    upstream.wait_for(|request| request.target == "/hang").await;
    doorward.signal("TERM");
    assert_eq!(doorward.wait_exit().await.code(), Some(0));
    assert!(hanging.response().await.is_none());
    assert!(doorward.logs().contains(r#""message":"Stopped""#), "{}", doorward.logs());
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    // While it still accepts, and while it waits for what is under way.
    for (delay, first, second) in [("10m", "TERM", "INT"), ("0s", "TERM", "TERM"), ("0s", "INT", "INT")] {
        let upstream = Upstream::start().await;
        let lifecycle = format!("lifecycle: {{ drain_delay: {delay}, drain_timeout: 10m }}");
        let mut doorward = open_to_all(&upstream).config(&lifecycle).start().await;
        let mut hanging = RawConnection::open(doorward.proxy_addr()).await;
        hanging.write(get("/hang", "x")).await;
        upstream.wait_for(|request| request.target == "/hang").await;
        doorward.signal(first);
        if delay == "0s" {
            until_refused(&doorward).await;
        } else {
            until_status(&doorward, "/readyz", 503).await;
        }
        assert_eq!(doorward.admin_get("/livez").await.status, 200, "the first signal waits");
        doorward.signal(second);
        assert_eq!(doorward.wait_exit().await.code(), Some(0), "{first} then {second}");
    }
}

#[tokio::test]
async fn a_start_that_cannot_work_says_why_and_exits_with_1() {
    let directory = TempDir::new("start");
    let garbage = directory.join("garbage.pem");
    std::fs::write(&garbage, "-----BEGIN CERTIFICATE-----\nnot base64!\n-----END CERTIFICATE-----\n").expect("a file");
    let empty = directory.join("empty.pem");
    std::fs::write(&empty, "").expect("a file");
    let (garbage, empty) = (garbage.display(), empty.display());
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has free ports");
    let port = taken.local_addr().expect("a bound socket has an address");
    let first = Doorward::builder().start().await;
    let database = first.directory().join("sessions.db").display().to_string();
    let in_a_file = format!("{}/0.yaml/sessions.db", first.directory().display());
    let table = [
        (format!("listen: '{port}'"), format!("listen: cannot listen on {port}: Address already in use")),
        (format!("admin: {{ listen: '{port}' }}"), format!("admin.listen: cannot listen on {port}: Address already")),
        (
            "listen: 'unix:/nowhere/at/all.sock'".to_owned(),
            "listen: cannot listen on unix:/nowhere/at/all.sock: ".into(),
        ),
        (format!("tls: {{ cert: '{garbage}', key: '{garbage}' }}"), format!("tls.cert: {garbage}: ")),
        (format!("tls: {{ cert: '{empty}', key: '{empty}' }}"), format!("tls.cert: {empty}: holds no certificate")),
        (format!("sessions: {{ store: 'sqlite://{in_a_file}' }}"), "sessions.store: ".to_owned()),
        (format!("sessions: {{ store: 'sqlite://{database}' }}"), "sessions.store: ".to_owned()),
    ];
    for (yaml, message) in table {
        let mut doorward = Doorward::builder().config(&yaml).spawn();
        assert_eq!(doorward.wait_exit().await.code(), Some(1), "{yaml}");
        let logs = doorward.logs();
        let told = logs.lines().filter(|line| line.starts_with(&format!("doorward: {message}"))).count();
        assert_eq!(told, 1, "{yaml}: {message} in {logs}");
        assert!(!logs.contains("panicked"), "{logs}");
    }
    assert_eq!(first.admin_get("/readyz").await.status, 200, "the first one is not disturbed");
}

#[tokio::test]
async fn a_unix_socket_left_behind_is_taken_over_and_one_in_use_is_not() {
    let (directory, upstream) = (TempDir::new("socket"), Upstream::start().await);
    let path = directory.join("doorward.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).expect("the directory is writable"));
    assert!(path.exists(), "what a killed process leaves behind");
    let listen = format!("listen: 'unix:{}'", path.display());
    let _running = open_to_all(&upstream).config(&listen).start().await;
    drop(tokio::net::UnixStream::connect(&path).await.expect("it listens"));
    let mut second = open_to_all(&upstream).config(&listen).spawn();
    assert_eq!(second.wait_exit().await.code(), Some(1));
    assert!(second.logs().contains("doorward: listen: cannot listen on unix:"), "{}", second.logs());
    tokio::net::UnixStream::connect(&path).await.expect("the first one still listens");
}

fn open_to_all(upstream: &Upstream) -> Builder {
    Doorward::builder().upstream(upstream.url()).config("routes: [{ path: '/**', auth: none }]")
}
