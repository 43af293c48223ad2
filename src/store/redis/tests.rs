//! The store against real Redis servers, and against what they do when they are unwell.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use self::server::{RedisServer, Replica, config, end, eventually, now, session};
use super::RedisStore;
use crate::metrics::Metrics;
use crate::model::EndReason;
use crate::store::{Created, KEEP_ENDED, SessionStore, StoreError, Touch, conformance};
use crate::time::SystemClock;

mod server;
mod topology;

const STORED: Created = Created::Stored { evicted: Vec::new() };

fn assert_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    match answer {
        Err(StoreError::Unavailable(cause)) => drop(cause),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms() {
    let server = RedisServer::start(&[]).await;
    let replica = Replica::live(&config(&server.url())).await;
    conformance::run(async || replica.store.clone() as Arc<dyn SessionStore>).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_conforms_through_the_cache() {
    let server = RedisServer::start(&[]).await;
    let replica = Replica::live(&config(&server.url())).await;
    conformance::run(async || crate::session::tests::cached(replica.store.clone())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn it_keeps_what_ended_where_that_is_shown() {
    let server = RedisServer::start(&[]).await;
    let replica = Replica::keeping(&config(&server.url()), Duration::from_hours(1)).await;
    conformance::run_keeping_ended(async || replica.store.clone() as Arc<dyn SessionStore>).await;
}

#[tokio::test]
async fn a_store_that_never_connected_knows_nothing() {
    let metrics = Arc::new(Metrics::new().unwrap());
    let config = config(&format!("redis://127.0.0.1:{}", server::free_port()));
    let store = RedisStore::connect(&config, KEEP_ENDED, Arc::new(SystemClock::new()), metrics.clone()).unwrap();
    let session = session("user");
    let stamp = store.revocations().stamp(&session.id);
    assert_unavailable(store.find(session.id, stamp, now()).await);
    assert_unavailable(store.create(&session, 9, now()).await);
    assert_unavailable(store.end(&[session.id], end(EndReason::Logout)).await);
    assert!(store.revocations().is_revoked(&session.id), "refused here all the same");
    assert_eq!(metrics.revocation_journal_depth.get(), 1);
}

#[tokio::test]
async fn a_revocation_made_before_redis_was_up_is_applied_once_it_is() {
    let port = server::free_port();
    let replica = Replica::new(&config(&format!("redis://127.0.0.1:{port}")));
    let session = session("user");
    assert_unavailable(replica.revoke(&session).await);
    let server = RedisServer::start_on(port, &[]).await.unwrap();
    replica.becomes_current().await;
    eventually("the journal is empty", async || replica.metrics.revocation_journal_depth.get() == 0).await;
    assert_eq!(server.ask::<u64>(&["HGET", "dw:ctl", "seq"]).await, 1);
}

#[tokio::test]
async fn a_revocation_reaches_every_replica() {
    let server = RedisServer::start(&[]).await;
    let (one, two) = (Replica::live(&config(&server.url())).await, Replica::live(&config(&server.url())).await);
    let session = session("user");
    assert_eq!(one.create(&session).await.unwrap(), STORED);
    assert_eq!(two.find(&session).await.unwrap().as_ref(), Some(&session));
    let stamp = two.store.revocations().stamp(&session.id);
    one.revoke(&session).await.unwrap();
    eventually("the other replica refuses it", async || two.refuses(&session)).await;
    let after = two.store.revocations().stamp(&session.id);
    assert_ne!(after.stripe, stamp.stripe);
    assert_eq!(after.generation, stamp.generation, "an ordinary revocation ends no generation");
    assert_eq!(two.find(&session).await.unwrap(), None);
    assert_eq!(two.metrics.invalidation_lag.get_sample_count(), 1);
}

#[tokio::test]
async fn an_eviction_and_a_principals_end_reach_every_replica() {
    let server = RedisServer::start(&[]).await;
    let (one, two) = (Replica::live(&config(&server.url())).await, Replica::live(&config(&server.url())).await);
    let (old, new) = (session("user"), session("user"));
    one.create(&old).await.unwrap();
    let created = one.store.create(&new, 1, now()).await.unwrap();
    assert_eq!(created, Created::Stored { evicted: vec![old.id] });
    eventually("the evicted session is refused", async || two.refuses(&old)).await;
    assert!(!two.refuses(&new));
    let (tenant, id) = (&new.principal.tenant, &new.principal.id);
    assert_eq!(one.store.end_principal(tenant, id, end(EndReason::Principal)).await.unwrap(), 1);
    eventually("the last session is refused", async || two.refuses(&new)).await;
}

#[tokio::test]
async fn a_principal_with_very_many_sessions_is_revoked_whole() {
    let server = RedisServer::start(&[]).await;
    let (one, two) = (Replica::live(&config(&server.url())).await, Replica::live(&config(&server.url())).await);
    let sessions: Vec<_> = (0..1203).map(|_| session("busy")).collect();
    for session in &sessions {
        assert_eq!(one.store.create(session, 5000, now()).await.unwrap(), STORED);
    }
    let principal = &sessions[0].principal;
    let ended = one.store.end_principal(&principal.tenant, &principal.id, end(EndReason::Principal)).await;
    assert_eq!(ended.unwrap(), 1203);
    eventually("all are refused", async || sessions.iter().all(|session| two.refuses(session))).await;
    assert_eq!(server.ask::<u64>(&["HGET", "dw:ctl", "seq"]).await, 3, "in chunks");
    assert!(two.store.revocations().is_current());
}

#[tokio::test]
async fn a_find_is_exactly_one_command() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    (config.revocation.heartbeat, config.revocation.lease) = (Duration::from_mins(1), Duration::from_mins(2));
    let replica = Replica::live(&config).await;
    let session = session("user");
    replica.create(&session).await.unwrap();
    // The first heartbeat and the look at the eviction policy come with the connection.
    eventually("it is quiet", async || calls(&server).await.get("config|get").copied() == Some(1)).await;
    eventually("it is quiet", async || calls(&server).await.get("role").copied() == Some(4)).await;
    let before = calls(&server).await;
    for _ in 0..10 {
        assert!(replica.find(&session).await.unwrap().is_some());
    }
    let mut after = calls(&server).await;
    after.retain(|command, calls| before.get(command) != Some(calls));
    for ours in ["info", "client|setinfo", "hello", "select"] {
        after.remove(ours);
    }
    let gets = after.remove("get").unwrap() - before.get("get").copied().unwrap_or_default();
    assert_eq!(gets, 10);
    assert_eq!(after, HashMap::new());
}

async fn calls(server: &RedisServer) -> HashMap<String, u64> {
    let info: String = server.ask(&["INFO", "commandstats"]).await;
    let call = |line: &str| {
        let (name, stats) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), stats.split(',').next()?.parse().ok()?))
    };
    info.lines().filter_map(call).collect()
}

#[tokio::test]
async fn a_read_only_replica_of_redis_is_not_a_store() {
    let primary = RedisServer::start(&[]).await;
    let replica = RedisServer::start(&["--replicaof", "127.0.0.1", &primary.port.to_string()]).await;
    let doorward = Replica::new(&config(&replica.url()));
    let attempts = doorward.generation() + 5;
    eventually("it tried several times", async || doorward.generation() > attempts).await;
    assert!(!doorward.store.revocations().is_current());
    assert_unavailable(doorward.find(&session("user")).await);
    assert_unavailable(doorward.create(&session("user")).await);
    assert_eq!(doorward.metrics.store_up.with_label_values(&["redis"]).get(), 0);
}

#[tokio::test]
async fn a_primary_that_is_demoted_is_left() {
    let (one, two) = (RedisServer::start(&[]).await, RedisServer::start(&[]).await);
    let doorward = Replica::live(&config(&one.url())).await;
    let before = doorward.generation();
    one.ask::<()>(&["REPLICAOF", "127.0.0.1", &two.port.to_string()]).await;
    eventually("its generation ended", async || doorward.generation() > before).await;
    assert_unavailable(doorward.find(&session("user")).await);
    one.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    doorward.becomes_current().await;
    assert_eq!(doorward.create(&session("user")).await.unwrap(), STORED);
}

#[tokio::test]
async fn a_refused_write_tells_of_a_demotion_before_the_heartbeat_does() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    (config.revocation.heartbeat, config.revocation.lease) = (Duration::from_mins(5), Duration::from_mins(10));
    let doorward = Replica::live(&config).await;
    eventually("it is quiet", async || calls(&server).await.get("role").copied() == Some(4)).await;
    let before = doorward.generation();
    server.ask::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(doorward.generation(), before);
    assert_unavailable(doorward.create(&session("user")).await);
    assert!(doorward.generation() > before);
    assert_unavailable(doorward.revoke(&session("user")).await);
    assert!(doorward.metrics.invalidation_resyncs.with_label_values(&["role"]).get() >= 1);
}

#[tokio::test]
async fn out_of_memory_stops_creation_only() {
    let server = RedisServer::start(&["--maxmemory-policy", "noeviction"]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let (one, two) = (session("user"), session("user"));
    doorward.create(&one).await.unwrap();
    doorward.create(&two).await.unwrap();
    server.ask::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    assert_unavailable(doorward.create(&session("user")).await);
    assert_eq!(doorward.find(&one).await.unwrap().as_ref(), Some(&one));
    let later = one.expires_at.plus(Duration::from_mins(10));
    assert!(doorward.store.touch(one.id, Touch { seen: now(), extend_to: Some(later) }, now()).await.unwrap());
    doorward.revoke(&one).await.unwrap();
    assert_eq!(doorward.find(&one).await.unwrap(), None);
    let principal = &two.principal;
    let ended = doorward.store.end_principal(&principal.tenant, &principal.id, end(EndReason::Principal)).await;
    assert_eq!(ended.unwrap(), 1);
    assert_eq!(doorward.find(&two).await.unwrap(), None);
    // A replica that starts now still hears and validates.
    assert_eq!(Replica::live(&config(&server.url())).await.find(&two).await.unwrap(), None);
}

#[tokio::test]
async fn without_its_password_it_knows_nothing() {
    let server = RedisServer::start(&["--requirepass", "hunter2"]).await;
    let outsider = Replica::new(&config(&server.url()));
    let attempts = outsider.generation() + 3;
    eventually("it tried several times", async || outsider.generation() > attempts).await;
    assert_unavailable(outsider.find(&session("user")).await);
    let mut config = config(&server.url());
    config.redis.password = Some(crate::secret::Secret::new("hunter2".to_owned()));
    let insider = Replica::live(&config).await;
    assert_eq!(insider.create(&session("user")).await.unwrap(), STORED);
}

#[tokio::test]
async fn when_redis_lacks_replicas_all_are_told_and_the_journal_retries() {
    let server = RedisServer::start(&[]).await;
    let (bad, good) =
        (["CONFIG", "SET", "min-replicas-to-write", "1"], ["CONFIG", "SET", "min-replicas-to-write", "0"]);
    refused_writes_are_published_and_retried(&server, async || server.ask(&bad).await, &good).await;
}

#[tokio::test]
async fn when_redis_cannot_save_all_are_told_and_the_journal_retries() {
    let server = RedisServer::start(&[]).await;
    let break_disk = async || {
        server.ask::<()>(&["CONFIG", "SET", "save", "3600 1"]).await;
        std::fs::remove_dir_all(&server.dir).unwrap();
        server.ask::<()>(&["BGSAVE"]).await;
        eventually("saving has failed", async || {
            server.ask::<String>(&["INFO", "persistence"]).await.contains("rdb_last_bgsave_status:err")
        })
        .await;
    };
    refused_writes_are_published_and_retried(&server, break_disk, &["CONFIG", "SET", "save", ""]).await;
}

async fn refused_writes_are_published_and_retried(server: &RedisServer, spoil: impl AsyncFn(), mend: &[&str]) {
    let (one, two) = (Replica::live(&config(&server.url())).await, Replica::live(&config(&server.url())).await);
    let (session, other) = (session("user"), session("other"));
    one.create(&session).await.unwrap();
    one.create(&other).await.unwrap();
    spoil().await;
    assert_unavailable(one.create(&self::session("user")).await);
    assert_eq!(two.find(&session).await.unwrap().as_ref(), Some(&session), "reads go on");
    assert_unavailable(one.revoke(&session).await);
    assert!(one.refuses(&session));
    assert_eq!(one.find(&session).await.unwrap(), None, "though Redis still has it");
    assert!(!one.store.touch(session.id, Touch { seen: now(), extend_to: None }, now()).await.unwrap());
    let principal = &other.principal;
    assert_unavailable(one.store.end_principal(&principal.tenant, &principal.id, end(EndReason::Principal)).await);
    eventually("the other replica was told", async || two.refuses(&session)).await;
    assert_eq!(one.metrics.revocation_journal_depth.get(), 2);
    assert!(server.ask::<bool>(&["EXISTS", &super::keys::Keys::new("dw", false).session(session.id)]).await);
    server.ask::<()>(mend).await;
    eventually("the journal is empty", async || one.metrics.revocation_journal_depth.get() == 0).await;
    assert_eq!(two.find(&session).await.unwrap(), None);
    eventually("the principal's session is refused", async || two.refuses(&other)).await;
    assert_eq!(two.find(&other).await.unwrap(), None);
}

#[tokio::test]
async fn a_revocation_that_too_few_replicas_confirm_is_not_acknowledged() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    (config.revocation.wait_replicas, config.redis.timeout) = (1, Duration::from_millis(500));
    let doorward = Replica::live(&config).await;
    let session = session("user");
    doorward.create(&session).await.unwrap();
    assert_unavailable(doorward.revoke(&session).await);
    assert_eq!(doorward.find(&session).await.unwrap(), None, "deleted all the same");
    let copy = RedisServer::start(&["--replicaof", "127.0.0.1", &server.port.to_string()]).await;
    eventually("the journal is empty", async || doorward.metrics.revocation_journal_depth.get() == 0).await;
    eventually("the copy has it", async || copy.try_ask::<u64>(&["HGET", "dw:ctl", "seq"]).await.is_ok()).await;
}

#[tokio::test]
async fn a_flush_ends_the_generation() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let session = session("user");
    doorward.create(&session).await.unwrap();
    let before = doorward.generation();
    // Nothing was ever revoked: the count is zero before and after.
    server.ask::<()>(&["FLUSHALL"]).await;
    eventually("its generation ended", async || doorward.generation() > before).await;
    doorward.becomes_current().await;
    assert_eq!(doorward.find(&session).await.unwrap(), None);
    doorward.revoke(&session).await.unwrap();
    let before = doorward.generation();
    server.ask::<()>(&["FLUSHALL"]).await;
    eventually("its generation ended", async || doorward.generation() > before).await;
    doorward.becomes_current().await;
    assert!(doorward.refuses(&session), "tombstones outlive generations");
}

#[tokio::test]
async fn a_killed_connection_ends_the_generation_and_is_replaced() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let session = session("user");
    doorward.create(&session).await.unwrap();
    for kind in ["pubsub", "normal"] {
        let (before, stamp) = (doorward.generation(), doorward.store.revocations().stamp(&session.id));
        server.ask::<u64>(&["CLIENT", "KILL", "TYPE", kind]).await;
        eventually("its generation ended", async || doorward.generation() > before).await;
        assert_unavailable(doorward.store.find(session.id, stamp, now()).await);
        doorward.becomes_current().await;
        assert_eq!(doorward.find(&session).await.unwrap().as_ref(), Some(&session));
    }
    assert!(doorward.metrics.store_reconnects.with_label_values(&["redis"]).get() >= 2);
}

#[tokio::test]
async fn a_broken_subscription_ends_the_generation_without_a_heartbeat() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    (config.revocation.heartbeat, config.revocation.lease) = (Duration::from_mins(5), Duration::from_mins(10));
    let doorward = Replica::live(&config).await;
    eventually("it is quiet", async || calls(&server).await.get("role").copied() == Some(4)).await;
    let before = doorward.generation();
    server.ask::<u64>(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    eventually("its generation ended", async || doorward.generation() > before).await;
    doorward.becomes_current().await;
}

#[tokio::test]
async fn nothing_is_found_on_a_lapsed_lease() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    (config.revocation.heartbeat, config.revocation.lease) = (Duration::from_mins(5), Duration::from_secs(1));
    let doorward = Replica::live(&config).await;
    let (session, before) = (session("user"), doorward.generation());
    doorward.create(&session).await.unwrap();
    eventually("the lease lapsed", async || !doorward.store.revocations().is_current()).await;
    assert_unavailable(doorward.find(&session).await);
    assert_eq!(doorward.generation(), before, "the connection is as good as ever");
}

#[tokio::test]
async fn a_silent_server_costs_the_lease_and_nothing_else() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let session = session("user");
    doorward.create(&session).await.unwrap();
    server.signal("-STOP");
    eventually("the lease lapsed", async || !doorward.store.revocations().is_current()).await;
    assert_unavailable(doorward.find(&session).await);
    server.signal("-CONT");
    doorward.becomes_current().await;
    assert_eq!(doorward.find(&session).await.unwrap().as_ref(), Some(&session));
}

#[tokio::test]
async fn three_commands_without_an_answer_end_the_generation() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    config.redis.timeout = Duration::from_millis(100);
    (config.revocation.heartbeat, config.revocation.lease) = (Duration::from_mins(5), Duration::from_mins(10));
    let doorward = Replica::live(&config).await;
    eventually("it is quiet", async || calls(&server).await.get("role").copied() == Some(4)).await;
    let before = doorward.generation();
    server.signal("-STOP");
    for _ in 0..3 {
        assert_eq!(doorward.generation(), before);
        assert_unavailable(doorward.find(&session("user")).await);
    }
    assert!(doorward.generation() > before);
    server.signal("-CONT");
    doorward.becomes_current().await;
}

#[tokio::test]
async fn a_revocation_whose_caller_goes_away_is_carried_out() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let session = session("user");
    doorward.create(&session).await.unwrap();
    server.signal("-STOP");
    let given_up = tokio::time::timeout(Duration::from_millis(1), doorward.revoke(&session)).await;
    assert!(given_up.is_err());
    assert!(doorward.refuses(&session));
    assert_eq!(doorward.metrics.revocation_journal_depth.get(), 1);
    server.signal("-CONT");
    eventually("the journal is empty", async || doorward.metrics.revocation_journal_depth.get() == 0).await;
    assert_eq!(server.ask::<u64>(&["EXISTS", &super::keys::Keys::new("dw", false).session(session.id)]).await, 0);
}

#[tokio::test]
async fn logs_tell_of_transitions_and_of_no_secret() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    // While a process has one dispatcher only, tracing lets the thread that first reaches a log
    // statement decide for all threads whether it is of interest; other tests' threads say no.
    let _second = tracing::Dispatch::new(tracing_subscriber::fmt().with_writer(std::io::sink).finish());
    let server = RedisServer::start(&["--requirepass", "hunter2", "--maxmemory-policy", "allkeys-lru"]).await;
    let wrong = Replica::new(&config(&format!("redis://:swordfish@127.0.0.1:{}", server.port)));
    eventually("it was refused", async || log.text().contains("cannot use Redis")).await;
    let doorward = Replica::live(&config(&format!("redis://:hunter2@127.0.0.1:{}", server.port))).await;
    let session = session("user");
    doorward.create(&session).await.unwrap();
    doorward.revoke(&session).await.unwrap();
    eventually("eviction was warned of", async || log.text().contains("noeviction")).await;
    drop(server);
    eventually("the loss was told", async || log.text().contains("lost Redis")).await;
    assert_unavailable(doorward.revoke(&session).await);
    eventually("each told of its trouble", async || log.text().matches("cannot use Redis").count() == 2).await;
    let attempts = (wrong.generation() + 3, doorward.generation() + 3);
    eventually("both tried on", async || wrong.generation() > attempts.0 && doorward.generation() > attempts.1).await;
    assert_eq!(log.text().matches("cannot use Redis").count(), 2, "once for each outage");
    for secret in ["hunter2", "swordfish", &super::keys::id_text(session.id)] {
        assert!(!log.text().contains(secret), "{secret} in the log");
    }
}

/// What was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn commands_under_way_are_capped() {
    let server = RedisServer::start(&[]).await;
    let mut config = config(&server.url());
    (config.revocation.heartbeat, config.revocation.lease) = (Duration::from_mins(5), Duration::from_mins(10));
    let doorward = Replica::live(&config).await;
    server.signal("-STOP");
    let session = session("user");
    let answers = futures_util::future::join_all((0..1030).map(|_| doorward.find(&session))).await;
    server.signal("-CONT");
    answers.into_iter().for_each(assert_unavailable);
    assert_eq!(doorward.metrics.store_operations.with_label_values(&["redis", "find", "refused"]).get(), 6);
}

#[tokio::test]
async fn a_server_without_room_for_clients_is_waited_for() {
    let server = RedisServer::start(&["--maxclients", "1"]).await;
    let doorward = Replica::new(&config(&server.url()));
    let attempts = doorward.generation() + 3;
    eventually("it tried several times", async || doorward.generation() > attempts).await;
    assert_unavailable(doorward.find(&session("user")).await);
    let more = ["CONFIG", "SET", "maxclients", "100"];
    eventually("there is room", async || server.try_ask::<()>(&more).await.is_ok()).await;
    doorward.becomes_current().await;
}

#[tokio::test]
async fn an_address_that_leads_to_two_servers_is_not_a_store() {
    let (one, two) = (RedisServer::start(&[]).await, RedisServer::start(&[]).await);
    let switch = Switch::to(&one).await;
    switch.alternate.store(two.port, Ordering::SeqCst);
    let doorward = Replica::new(&config(&switch.url()));
    let attempts = doorward.generation() + 5;
    eventually("it tried several times", async || doorward.generation() > attempts).await;
    assert!(!doorward.store.revocations().is_current());
    switch.alternate.store(one.port, Ordering::SeqCst);
    doorward.becomes_current().await;
}

#[tokio::test]
async fn a_message_that_is_missing_or_not_understood_ends_the_generation() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let id = super::keys::id_text(session("user").id);
    for message in ["2 what comes next".to_owned(), format!("1 9 n 5 3 9 {id}")] {
        let before = doorward.generation();
        server.ask::<u64>(&["PUBLISH", "dw:rev", &message]).await;
        eventually("its generation ended", async || doorward.generation() > before).await;
        doorward.becomes_current().await;
    }
}

#[tokio::test]
async fn a_fail_over_that_forgot_a_revocation_is_corrected() {
    let (old, new) = (RedisServer::start(&[]).await, RedisServer::start(&[]).await);
    let switch = Switch::to(&old).await;
    let (one, two) = (Replica::live(&config(&switch.url())).await, Replica::live(&config(&switch.url())).await);
    let (kept, ended) = (session("user"), session("user"));
    one.create(&kept).await.unwrap();
    one.create(&ended).await.unwrap();
    new.ask::<()>(&["REPLICAOF", "127.0.0.1", &old.port.to_string()]).await;
    let name = super::keys::Keys::new("dw", false).session(ended.id);
    eventually("it is replicated", async || new.try_ask(&["EXISTS", &name]).await == Ok(true)).await;
    new.ask::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    one.revoke(&ended).await.unwrap();
    eventually("both refuse it", async || two.refuses(&ended)).await;
    assert!(new.ask::<bool>(&["EXISTS", &name]).await, "the new primary does not know");
    let before = (one.generation(), two.generation());
    switch.turn_to(&new);
    drop(old);
    eventually("both noticed", async || one.generation() > before.0 && two.generation() > before.1).await;
    one.becomes_current().await;
    two.becomes_current().await;
    assert!(!new.ask::<bool>(&["EXISTS", &name]).await, "it was revoked again before any replica went live");
    assert!(one.metrics.invalidation_resurrected.get() + two.metrics.invalidation_resurrected.get() >= 1);
    assert_eq!(two.find(&ended).await.unwrap(), None);
    assert_eq!(two.find(&kept).await.unwrap().as_ref(), Some(&kept));
}

#[tokio::test]
async fn a_record_that_cannot_be_read_is_not_a_missing_session() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let session = session("user");
    let name = super::keys::Keys::new("dw", false).session(session.id);
    server.ask::<()>(&["SET", &name, "\u{7}later"]).await;
    assert!(matches!(doorward.find(&session).await, Err(StoreError::NewerRecord(7))));
    server.ask::<()>(&["SET", &name, "\u{1}garbage"]).await;
    assert!(matches!(doorward.find(&session).await, Err(StoreError::Corrupt(_))));
    server.ask::<()>(&["DEL", &name]).await;
    server.ask::<()>(&["HSET", &name, "not", "a string"]).await;
    assert_unavailable(doorward.find(&session).await);
}

#[tokio::test]
async fn a_stamp_of_another_generation_is_refused() {
    let server = RedisServer::start(&[]).await;
    let doorward = Replica::live(&config(&server.url())).await;
    let session = session("user");
    let mut stamp = doorward.store.revocations().stamp(&session.id);
    stamp.generation -= 1;
    assert_unavailable(doorward.store.find(session.id, stamp, now()).await);
}

/// A TCP relay whose destination can be changed: what a service address is in a fail-over.
struct Switch {
    port: u16,
    destination: Arc<AtomicU16>,
    /// Where every other connection goes.
    alternate: Arc<AtomicU16>,
}

impl Switch {
    async fn to(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let destination = Arc::new(AtomicU16::new(server.port));
        let alternate = Arc::new(AtomicU16::new(server.port));
        let (mut next, mut other) = (destination.clone(), alternate.clone());
        tokio::spawn(async move {
            while let Ok((mut inbound, _)) = listener.accept().await {
                let port = next.load(Ordering::SeqCst);
                std::mem::swap(&mut next, &mut other);
                tokio::spawn(async move {
                    if let Ok(mut outbound) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut inbound, &mut outbound).await;
                    }
                });
            }
        });
        Self { port, destination, alternate }
    }

    fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn turn_to(&self, server: &RedisServer) {
        self.destination.store(server.port, Ordering::SeqCst);
        self.alternate.store(server.port, Ordering::SeqCst);
    }
}
