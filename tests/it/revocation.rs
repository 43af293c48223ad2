//! What is revoked on one replica is refused by every other: at once as a rule, and never later
//! than the lease.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use doorward::model::EndReason;
use doorward::model::session::AgentMark;
use doorward::session::{CookieLife, Handout, Refusal, StartError};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval};

use crate::support::client::{RawConnection, Response};
use crate::support::doorward::Doorward;
use crate::support::redis::Redis;
use crate::support::replica::Replica;
use crate::support::upstream::{FIRST_EVENT, Upstream};
use crate::support::{eventually, within};

/// The default lease.
const LEASE: Duration = Duration::from_secs(2);
const WORKERS: usize = 4;

/// A caller that keeps its connection, as callers under load do.
struct Caller {
    address: SocketAddr,
    connection: Option<RawConnection>,
}

/// What callers found out.
#[derive(Default)]
struct Found {
    lags: Vec<Duration>,
    worst_accept: Duration,
    accepted_after: u64,
    unacknowledged: u64,
}

impl Caller {
    fn of(doorward: &Doorward) -> Self {
        Self { address: doorward.proxy_addr(), connection: None }
    }

    async fn call(&mut self, method: &str, path: &str, token: &str, body: &str) -> Response {
        let length = body.len();
        let head = format!("{method} {path} HTTP/1.1\r\nhost: app\r\ncontent-type: application/json\r\n");
        let request = format!("{head}content-length: {length}\r\nauthorization: Bearer {token}\r\n\r\n{body}");
        for _ in 0..2 {
            let mut connection = match self.connection.take() {
                Some(connection) => connection,
                None => RawConnection::open(self.address).await,
            };
            connection.write(&request).await;
            // A kept connection may have been closed meanwhile: then the request goes out once more.
            if let Some(response) = connection.response().await {
                let closes = response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
                self.connection = (!closes).then_some(connection);
                return response;
            }
        }
        panic!("{method} {path}: closed without an answer");
    }
}

async fn sign_in_many(doorward: &Doorward, count: usize) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let mut caller = Caller::of(doorward);
        tasks.spawn(async move {
            let mut tokens = Vec::new();
            for number in 0..count / WORKERS {
                let body = format!(r#"{{"device_id":"device {worker}-{number}"}}"#);
                let mut response = caller.call("POST", "/auth/anonymous", "none", &body).await;
                // A loaded machine may not answer in time at once.
                while response.status == 503 {
                    response = caller.call("POST", "/auth/anonymous", "none", &body).await;
                }
                tokens.push(response.json()["token"].as_str().expect("a token").to_owned());
            }
            tokens
        });
    }
    tasks.join_all().await.into_iter().flatten().collect()
}

/// Revokes on one replica and asks the other until it refuses.
async fn revoke_and_ask(tokens: Vec<String>, mut revoking: Caller, mut asked: Caller) -> Found {
    let mut found = Found::default();
    for token in tokens {
        let ended = revoking.call("DELETE", "/auth/session", &token, "").await;
        let acknowledged = Instant::now();
        match ended.status {
            200 => assert_eq!(ended.text(), r#"{"revoked":true}"#),
            503 => {
                found.unacknowledged += 1;
                continue;
            }
            other => panic!("{other}: {}", ended.text()),
        }
        loop {
            let began = Instant::now();
            let answer = asked.call("GET", "/", &token, "").await;
            match answer.status {
                401 => {
                    assert_eq!(answer.text(), r#"{"detail":"Invalid token: session revoked"}"#);
                    found.lags.push(acknowledged.elapsed());
                    break;
                }
                200 => {
                    let late = began.duration_since(acknowledged);
                    assert!(late <= LEASE, "accepted {late:?} after the revocation");
                    found.accepted_after += 1;
                    found.worst_accept = found.worst_accept.max(late);
                }
                503 => assert_eq!(answer.text(), r#"{"detail":"Session store unavailable"}"#),
                other => panic!("{other}: {}", answer.text()),
            }
        }
    }
    found
}

/// Ends every session on the first replica while the second is under load; prints how it went.
async fn end_all_under_load(name: &str, one: &Doorward, two: &Doorward, tokens: Vec<String>) {
    for token in &tokens {
        let mut caller = Caller::of(two);
        // A loaded machine may not answer in time at once.
        let known = async || (caller.call("GET", "/", token, "").await.status == 200).then_some(());
        eventually("the second replica to know it", known).await;
    }
    let (finished, tokens) = (Arc::new(AtomicBool::new(false)), Arc::new(tokens));
    let mut load = JoinSet::new();
    for start in 0..2 {
        let (mut caller, tokens, finished) = (Caller::of(two), Arc::clone(&tokens), Arc::clone(&finished));
        load.spawn(async move {
            for token in tokens.iter().cycle().skip(start * tokens.len() / 2) {
                if finished.load(Ordering::SeqCst) {
                    break;
                }
                caller.call("GET", "/", token, "").await;
            }
        });
    }
    let mut tasks = JoinSet::new();
    for share in tokens.chunks(tokens.len() / WORKERS) {
        tasks.spawn(revoke_and_ask(share.to_vec(), Caller::of(one), Caller::of(two)));
    }
    let found = tasks.join_all().await;
    finished.store(true, Ordering::SeqCst);
    within("the load to end", load.join_all()).await;
    report(name, &found);
    let metrics = two.admin_get("/metrics").await.text();
    let heard =
        metrics.lines().find_map(|line| line.strip_prefix("doorward_invalidation_lag_seconds_count ")?.parse().ok());
    let acknowledged: usize = found.iter().map(|found| found.lags.len()).sum();
    assert!(name != "healthy" || heard.is_some_and(|heard: usize| heard >= acknowledged), "{heard:?} messages heard");
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to see")]
fn report(name: &str, found: &[Found]) {
    let mut lags: Vec<Duration> = found.iter().flat_map(|found| found.lags.clone()).collect();
    lags.sort();
    assert!(!lags.is_empty(), "nothing was revoked");
    let at = |percent: usize| lags[(lags.len() - 1) * percent / 100];
    println!(
        "{name}: {} revoked, {} not acknowledged; from the 200 to the first refusal p50 {:?}, p99 {:?}, max {:?}; {} accepted in between, the last {:?} after",
        lags.len(),
        found.iter().map(|found| found.unacknowledged).sum::<u64>(),
        at(50),
        at(99),
        at(100),
        found.iter().map(|found| found.accepted_after).sum::<u64>(),
        found.iter().map(|found| found.worst_accept).max().unwrap_or_default(),
    );
}

async fn two_replicas(redis: &Redis, upstream: &Upstream) -> (Doorward, Doorward) {
    // The bound is the lease; how long one command may take has no part in it.
    let patient = "sessions: { redis: { timeout: 1s } }";
    let replica = || Doorward::builder().store(&redis.url()).upstream(upstream.url()).config(patient).start();
    tokio::join!(replica(), replica())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_sessions_ended_on_one_replica_are_refused_by_the_other() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let (one, two) = two_replicas(&redis, &upstream).await;
    let tokens = sign_in_many(&one, 1000).await;
    end_all_under_load("healthy", &one, &two, tokens).await;
    let metrics = two.admin_get("/metrics").await.text();
    assert!(
        metrics.lines().any(|line| line == "doorward_invalidation_lag_seconds_count 1000"),
        "every message was heard"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_ended_while_connections_to_redis_are_killed_are_refused_within_the_lease() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let (one, two) = two_replicas(&redis, &upstream).await;
    let tokens = sign_in_many(&one, 400).await;
    let kill = async {
        let mut pace = interval(Duration::from_millis(300));
        for kind in ["pubsub", "normal"].iter().cycle() {
            pace.tick().await;
            redis.command::<u64>(&["CLIENT", "KILL", "TYPE", kind]).await;
        }
    };
    tokio::select! {
        () = end_all_under_load("connections killed", &one, &two, tokens) => {}
        () = kill => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_principal_ended_on_one_replica_is_refused_by_the_other_whole_and_no_other() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (one, two) = tokio::join!(Replica::live(&url), Replica::live(&url));
    let mut tokens = Vec::new();
    let early = one.guest("shared");
    for _ in 0..20 {
        tokens.push(one.sign_in("shared").await.opaque().expose().to_owned());
    }
    let other = one.sign_in("other").await.opaque().expose().to_owned();
    for token in tokens.iter().chain([&other]) {
        assert!(two.sessions.validate(token).await.is_ok());
    }
    let ended = one.sessions.end_principal(one.sessions.default_tenant(), &early.principal.id).await;
    assert_eq!(ended, Ok(20));
    for token in &tokens {
        assert_eq!(one.sessions.validate(token).await.err(), Some(Refusal::Revoked));
        let refused = async || (two.sessions.validate(token).await.err() == Some(Refusal::Revoked)).then_some(());
        eventually("the other replica to refuse it", refused).await;
    }
    assert!(two.sessions.validate(&other).await.is_ok());
    // A proof from before that moment opens nothing after it.
    assert_eq!(two.sessions.start(&early, "anonymous", Handout::OPAQUE).await.err(), Some(StartError::Superseded));
}

#[tokio::test(flavor = "multi_thread")]
async fn every_credential_of_a_session_and_its_stream_die_in_one_end_on_another_replica() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let url = redis.url();
    let (one, two) = tokio::join!(Replica::live(&url), Replica::live(&url));
    let doorward = Doorward::builder().store(&url).upstream(upstream.url()).start().await;
    let handout = Handout { opaque: true, cookie: Some(CookieLife::Sliding), refresh: true };
    let guest = one.guest("everything");
    let started = one.sessions.start(&guest, "anonymous", handout).await.expect("the store answers");
    let (opaque, cookie) = (started.opaque().expose().to_owned(), started.cookie().expose().to_owned());
    let agent = AgentMark(*b"test");
    let refresh = two.sessions.rotate(started.refresh().expose(), agent).await.expect("it is due").refresh;

    let status =
        async |field: (&str, String)| doorward.client().get("/app").header(field.0, &field.1).send().await.status;
    let bearer = || ("authorization", format!("Bearer {opaque}"));
    let in_cookie = || ("cookie", format!("session={cookie}"));
    assert_eq!((status(bearer()).await, status(in_cookie()).await), (200, 200));
    assert_eq!(status(("authorization", format!("Bearer {cookie}"))).await, 401, "a cookie is no bearer token");
    assert_eq!(status(("authorization", format!("Bearer {}", refresh.expose()))).await, 401);
    assert_eq!(status(("cookie", format!("session={}", refresh.expose()))).await, 401);
    let mut events = doorward.client().get("/sse").bearer(&opaque).stream().await;
    assert!(events.next().await.expect("an event").starts_with(FIRST_EVENT.as_bytes()));

    one.sessions.end(&started.session, EndReason::Logout).await.expect("Redis answers");
    let ended = Instant::now();
    assert!(!events.ended().await, "it must not look complete");
    let refused = async || (status(bearer()).await == 401 && status(in_cookie()).await == 401).then_some(());
    eventually("both to be refused", refused).await;
    let refresh_refused = async || {
        let rotated = two.sessions.rotate(refresh.expose(), agent).await;
        (rotated.err() == Some(Refusal::Revoked)).then_some(())
    };
    eventually("the refresh token to be refused", refresh_refused).await;
    assert!(ended.elapsed() <= LEASE, "took {:?}", ended.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_rotations_on_two_replicas_give_one_successor() {
    let redis = Redis::start().await;
    let url = redis.url();
    let (one, two) = tokio::join!(Replica::live(&url), Replica::live(&url));
    let handout = Handout { opaque: false, cookie: None, refresh: true };
    let guest = one.guest("racer");
    let started = one.sessions.start(&guest, "anonymous", handout).await.expect("the store answers");
    let (agent, presented) = (AgentMark(*b"test"), started.refresh().expose().to_owned());
    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let sessions = if number % 2 == 0 { one.sessions.clone() } else { two.sessions.clone() };
        let presented = presented.clone();
        tasks.spawn(async move { sessions.rotate(&presented, agent).await.map(|next| (next.refresh, next.repeated)) });
    }
    let rotated: Vec<_> = tasks.join_all().await.into_iter().map(|next| next.expect("it is due")).collect();
    assert_eq!(rotated.iter().filter(|(_, repeated)| !repeated).count(), 1);
    let texts: std::collections::HashSet<&str> = rotated.iter().map(|(refresh, _)| refresh.expose()).collect();
    assert_eq!(texts.len(), 1, "one successor");
}
