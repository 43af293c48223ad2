//! While Redis is away the answer is 503, soon, and never 401: nobody is signed out by an outage.
//! What was acknowledged before holds after it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use doorward::model::{TokenKey, TokenKeys, TokenKind};
use doorward::time::{Clock, SystemClock};
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::chaos::Chaos;
use crate::support::client::{Client, Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::redis::Redis;
use crate::support::temp::TempDir;
use crate::support::tokens::stray;
use crate::support::upstream::Upstream;

/// Generous: an answer takes about the store's timeout, 150 ms, on an idle machine.
const SOON: Duration = Duration::from_secs(1);
const SHORT_LEASE: &str = "sessions: { revocation: { heartbeat: 200ms, lease: 1s } }";
const ROUTES: &str = "routes: [{ path: '/public/**', auth: none }, { path: '/**', auth: required }]";
const REVOKED: &str = r#"{"detail":"Invalid token: session revoked"}"#;

/// A replica on a Redis that things happen to.
struct Patient {
    doorward: Doorward,
    token: String,
}

async fn get(doorward: &Doorward, token: &str) -> Response {
    doorward.client().get("/").bearer(token).send().await
}

async fn sign_out(doorward: &Doorward, token: &str) -> Response {
    doorward.client().delete("/auth/session").bearer(token).send().await
}

async fn try_sign_in(doorward: &Doorward) -> Response {
    doorward.client().post("/auth/anonymous").json(&json!({ "device_id": "late" })).send().await
}

#[track_caller]
fn assert_unavailable(response: &Response) {
    assert_eq!((response.status, response.text().as_str()), (503, r#"{"detail":"Session store unavailable"}"#));
    assert_eq!(response.header("retry-after"), Some("3"));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("set-cookie"), None);
    assert_eq!(response.header("www-authenticate"), None);
}

#[track_caller]
fn assert_revoked(response: &Response) {
    assert_eq!((response.status, response.text().as_str()), (401, REVOKED));
}

async fn refuses(doorward: &Doorward, token: &str) {
    let refused = async || {
        let response = get(doorward, token).await;
        (response.status == 401).then(|| assert_revoked(&response))
    };
    eventually("the session to be refused", refused).await;
}

async fn accepts(doorward: &Doorward, token: &str) {
    let accepted = async || {
        let response = get(doorward, token).await;
        assert_ne!(response.status, 401, "an outage is no refusal");
        (response.status == 200).then_some(())
    };
    eventually("the session to be good", accepted).await;
}

async fn metric(doorward: &Doorward, series: &str) -> u64 {
    let text = doorward.admin_get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in {text}"))
}

async fn on_redis(redis: &Redis, upstream: &Upstream) -> Doorward {
    let doorward = Doorward::builder().store(&redis.url()).upstream(upstream.url());
    doorward.config(SHORT_LEASE).config(ROUTES).start().await
}

/// Returns a good token of a session that nobody has: what a caller has whose replica knows nothing.
fn token_of_nobody() -> String {
    let key = TokenKey::new(1, b"integration-tests-only-0123456789abcdef").expect("it is long enough");
    let keys = TokenKeys::new("dw_".to_owned(), key, Vec::new());
    let end = SystemClock::new().now().plus(Duration::from_mins(10));
    stray(&keys, TokenKind::Access, end)
}

impl Patient {
    async fn new(url: &str, upstream: &Upstream) -> Self {
        let builder = Doorward::builder().store(url).upstream(upstream.url()).config(SHORT_LEASE).config(ROUTES);
        let doorward = builder.start().await;
        let token = sign_in_guest(&doorward, "patient").await;
        assert_eq!(get(&doorward, &token).await.status, 200);
        Self { doorward, token }
    }

    /// Redis has just gone away: known sessions pass until the lease lapses, then nothing is known.
    #[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to see")]
    async fn suffers(&self, fault: &str) {
        let doorward = &self.doorward;
        let unavailable = async || {
            let response = get(doorward, &self.token).await;
            assert_ne!(response.status, 401, "{fault}: an outage is no refusal");
            (response.status == 503).then_some(())
        };
        eventually("the lease to lapse", unavailable).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..3 {
            for (what, token) in [("known", self.token.clone()), ("unknown", token_of_nobody())] {
                let began = Instant::now();
                let response = get(doorward, &token).await;
                slowest = slowest.max(began.elapsed());
                assert_unavailable(&response);
                assert!(began.elapsed() < SOON, "{fault}, {what}: {:?}", began.elapsed());
            }
            let began = Instant::now();
            assert_unavailable(&try_sign_in(doorward).await);
            slowest = slowest.max(began.elapsed());
            assert!(began.elapsed() < SOON, "{fault}, sign-in: {:?}", began.elapsed());
        }
        println!("{fault}: the slowest 503 took {slowest:?}");
        assert_eq!(doorward.client().get("/").send().await.status, 401, "no token needs no store");
        assert_eq!(doorward.client().get("/public/page").send().await.status, 200);
        assert_eq!(doorward.admin_get("/readyz").await.status, 200, "{fault}: the Service keeps its endpoints");
        assert_eq!(doorward.admin_get("/livez").await.status, 200);
    }

    /// Redis is back: the same session is good again, and new ones begin.
    async fn recovers(&self) {
        accepts(&self.doorward, &self.token).await;
        let signed_in = async || (try_sign_in(&self.doorward).await.status == 200).then_some(());
        eventually("sign-ins to work again", signed_in).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_starts_without_redis_and_becomes_ready_when_redis_comes() {
    let (mut redis, upstream) = (Redis::start().await, Upstream::start().await);
    redis.kill();
    let builder = Doorward::builder().store(&redis.url()).upstream(upstream.url()).config(SHORT_LEASE).config(ROUTES);
    let doorward = builder.spawn();
    let up = async || Client::new(doorward.proxy_addr()).get("/public/").try_send().await.ok();
    assert_eq!(eventually("doorward to listen", up).await.status, 200, "what needs nobody works");
    assert_eq!(doorward.admin_get("/livez").await.status, 200);
    assert_eq!(doorward.admin_get("/readyz").await.status, 503);
    assert_unavailable(&get(&doorward, &token_of_nobody()).await);
    assert_unavailable(&try_sign_in(&doorward).await);
    assert_eq!(get(&doorward, "dw_nonsense").await.text(), r#"{"detail":"Invalid token: malformed"}"#);
    redis.restart().await;
    let ready = async || (doorward.admin_get("/readyz").await.status == 200).then_some(());
    eventually("doorward to be ready", ready).await;
    let token = sign_in_guest(&doorward, "device").await;
    assert_eq!(get(&doorward, &token).await.status, 200);
    assert_revoked(&get(&doorward, &token_of_nobody()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_gone_paused_or_cut_off_signs_nobody_out() {
    let (mut redis, upstream) = (Redis::options().append_only().start().await, Upstream::start().await);
    let network = Chaos::to(redis.port()).await;
    let patient = Patient::new(&redis.url_through(network.port()), &upstream).await;
    redis.kill();
    patient.suffers("stopped").await;
    redis.restart().await;
    patient.recovers().await;
    redis.pause();
    patient.suffers("paused").await;
    redis.resume();
    patient.recovers().await;
    network.cut();
    patient.suffers("connections reset").await;
    network.restore();
    patient.recovers().await;
    network.silence();
    patient.suffers("black hole").await;
    network.restore();
    patient.recovers().await;
    // So quick that the first to notice are requests on connections that are dead.
    redis.restart().await;
    patient.recovers().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_refuses_commands_signs_nobody_out() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let patient = Patient::new(&redis.url(), &upstream).await;
    redis.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    patient.suffers("read-only replica").await;
    redis.command::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    patient.recovers().await;

    redis.command::<()>(&["CONFIG", "SET", "requirepass", "changed"]).await;
    // Who is in stays in until the connection breaks.
    let insider = redis::Client::open(format!("redis://:changed@127.0.0.1:{}/", redis.port())).expect("a valid URL");
    let mut insider = insider.get_multiplexed_async_connection().await.expect("the new password is right");
    for kind in ["pubsub", "normal"] {
        let mut kill = redis::cmd("CLIENT");
        kill.arg(&["KILL", "TYPE", kind, "SKIPME", "yes"]);
        kill.query_async::<u64>(&mut insider).await.expect("it is allowed");
    }
    patient.suffers("password changed").await;
    let mut open = redis::cmd("CONFIG");
    open.arg(&["SET", "requirepass", ""]);
    open.query_async::<()>(&mut insider).await.expect("it is allowed");
    patient.recovers().await;

    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_unavailable(&try_sign_in(&patient.doorward).await);
    assert_eq!(get(&patient.doorward, &patient.token).await.status, 200, "what exists needs no memory");
    let leaving = patient.token.clone();
    assert_eq!(sign_out(&patient.doorward, &leaving).await.status, 200, "nor does signing out");
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(try_sign_in(&patient.doorward).await.status, 200);
    assert_revoked(&get(&patient.doorward, &leaving).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_serve_stale_known_sessions_pass_for_a_while_and_no_others() {
    let (mut redis, upstream) = (Redis::options().append_only().start().await, Upstream::start().await);
    let stale =
        "sessions: { on_unavailable: serve_stale, max_stale: 3s, revocation: { heartbeat: 100ms, lease: 500ms } }";
    let builder = || Doorward::builder().store(&redis.url()).upstream(upstream.url()).config(stale).start();
    let (doorward, other) = tokio::join!(builder(), builder());
    let known = sign_in_guest(&doorward, "known").await;
    let gone = sign_in_guest(&doorward, "gone").await;
    let unknown = sign_in_guest(&other, "unknown").await;
    assert_eq!((get(&doorward, &known).await.status, get(&doorward, &gone).await.status), (200, 200));
    assert_eq!(sign_out(&other, &gone).await.status, 200);
    refuses(&doorward, &gone).await;
    redis.kill();
    let series = r#"doorward_session_cache_requests_total{result="stale"}"#;
    let stale = async || {
        assert_eq!(get(&doorward, &known).await.status, 200);
        (metric(&doorward, series).await > 0).then_some(())
    };
    eventually("a session to be served past the lease", stale).await;
    assert_unavailable(&get(&doorward, &unknown).await);
    assert_revoked(&get(&doorward, &gone).await);
    assert_unavailable(&try_sign_in(&doorward).await);
    let over = async || {
        let response = get(&doorward, &known).await;
        (response.status == 503).then(|| assert_unavailable(&response))
    };
    eventually("the grace to end", over).await;
    assert_revoked(&get(&doorward, &gone).await);
    redis.restart().await;
    accepts(&doorward, &known).await;
    accepts(&doorward, &unknown).await;
    assert_revoked(&get(&doorward, &gone).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_during_an_outage_is_in_force_here_at_once_and_everywhere_after_it() {
    let (mut redis, upstream) = (Redis::options().append_only().start().await, Upstream::start().await);
    let (one, two) = tokio::join!(on_redis(&redis, &upstream), on_redis(&redis, &upstream));
    let known = sign_in_guest(&one, "known").await;
    let unknown = sign_in_guest(&two, "unknown").await;
    let staying = sign_in_guest(&two, "staying").await;
    assert_eq!(get(&one, &known).await.status, 200);
    for token in [&known, &unknown, &staying] {
        assert_eq!(get(&two, token).await.status, 200);
    }
    redis.kill();
    for token in [&known, &unknown] {
        assert_unavailable(&sign_out(&one, token).await);
        assert_revoked(&get(&one, token).await);
    }
    assert_eq!(metric(&one, "doorward_revocation_journal_depth").await, 2);
    redis.restart().await;
    for token in [&known, &unknown] {
        refuses(&two, token).await;
        assert_revoked(&get(&one, token).await);
    }
    let told = async || (metric(&one, "doorward_revocation_journal_depth").await == 0).then_some(());
    eventually("the store to be told", told).await;
    accepts(&two, &staying).await;
    let left: Vec<String> = redis.command(&["KEYS", "dw:*:s:*"]).await;
    assert_eq!(left.len(), 1, "{left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_out_that_redis_cannot_write_is_published_all_the_same() {
    let options = Redis::options().directive(&["save", "3600", "1"]);
    let options = options.directive(&["stop-writes-on-bgsave-error", "yes"]);
    let (redis, upstream) = (options.start().await, Upstream::start().await);
    let (one, two) = tokio::join!(on_redis(&redis, &upstream), on_redis(&redis, &upstream));
    let token = sign_in_guest(&one, "device").await;
    assert_eq!(get(&two, &token).await.status, 200);
    let directory: (String, String) = redis.command(&["CONFIG", "GET", "dir"]).await;
    std::fs::remove_dir_all(Path::new(&directory.1)).expect("it is there");
    redis.command::<String>(&["BGSAVE"]).await;
    let failed = async || {
        let info: String = redis.command(&["INFO", "persistence"]).await;
        info.contains("rdb_last_bgsave_status:err").then_some(())
    };
    eventually("the snapshot to fail", failed).await;
    assert!(redis.try_command::<()>(&["SET", "a", "b"]).await.is_err_and(|error| error.code() == Some("MISCONF")));
    assert_unavailable(&sign_out(&one, &token).await);
    assert_revoked(&get(&one, &token).await);
    refuses(&two, &token).await;
    let left: Vec<String> = redis.command(&["KEYS", "dw:*:s:*"]).await;
    assert_eq!(left.len(), 1, "Redis has it still: {left:?}");
    redis.command::<()>(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
    let told = async || redis.command::<Vec<String>>(&["KEYS", "dw:*:s:*"]).await.is_empty().then_some(());
    eventually("the store to be told", told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_of_a_newer_version_is_unavailable_and_not_refused() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let (one, two) = tokio::join!(on_redis(&redis, &upstream), on_redis(&redis, &upstream));
    let token = sign_in_guest(&one, "device").await;
    let [name]: [String; 1] = redis.command::<Vec<String>>(&["KEYS", "dw:*:s:*"]).await.try_into().expect("one");
    redis.command::<()>(&["SET", &name, "\u{2}written by a later release", "KEEPTTL"]).await;
    for _ in 0..3 {
        assert_unavailable(&get(&two, &token).await);
    }
    let other = sign_in_guest(&two, "other").await;
    assert_eq!(get(&two, &other).await.status, 200);
    assert!(redis.command::<bool>(&["EXISTS", &name]).await, "nobody has touched it");
}

/// What callers of the embedded store were told before the process died.
#[derive(Default)]
struct Told {
    live: Vec<String>,
    ended: Vec<String>,
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_keeps_what_it_acknowledged_in_the_embedded_store() {
    const WORKERS: usize = 4;
    let (upstream, directory) = (Upstream::start().await, TempDir::new("embedded"));
    let store = format!("sqlite://{}", directory.join("sessions.db").display());
    let start = || Doorward::builder().store(&store).upstream(upstream.url()).start();
    let mut first = start().await;
    let (client, done) = (first.client(), Arc::new(AtomicUsize::new(0)));
    let killed = Arc::new(AtomicBool::new(false));
    let mut tasks = JoinSet::new();
    for worker in 0..WORKERS {
        let (done, killed) = (Arc::clone(&done), Arc::clone(&killed));
        tasks.spawn(async move {
            let mut told = Told::default();
            for number in 0_usize.. {
                let body = json!({ "device_id": format!("device {worker}-{number}") });
                let Ok(answer) = client.post("/auth/anonymous").json(&body).try_send().await else { break };
                assert_eq!(answer.status, 200);
                let token = answer.json()["token"].as_str().expect("a token").to_owned();
                done.fetch_add(1, Ordering::SeqCst);
                if number.is_multiple_of(2) {
                    told.live.push(token);
                    continue;
                }
                // Without an answer it is neither: the caller was not told.
                let Ok(answer) = client.delete("/auth/session").bearer(&token).try_send().await else { break };
                assert_eq!(answer.status, 200);
                told.ended.push(token);
            }
            assert!(killed.load(Ordering::SeqCst), "a request failed before the process was killed");
            told
        });
    }
    let busy = async || (done.load(Ordering::SeqCst) > 100).then_some(());
    eventually("the callers to have done something", busy).await;
    killed.store(true, Ordering::SeqCst);
    first.signal("KILL");
    first.wait_exit().await;
    let told = tasks.join_all().await;
    let second = start().await;
    for token in told.iter().flat_map(|told| &told.live) {
        assert_eq!(get(&second, token).await.status, 200, "an acknowledged session is lost");
    }
    for token in told.iter().flat_map(|told| &told.ended) {
        assert_revoked(&get(&second, token).await);
    }
    assert!(told.iter().map(|told| told.ended.len()).sum::<usize>() > 10);
}
