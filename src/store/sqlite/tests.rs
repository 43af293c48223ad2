//! The embedded store against the conformance suite, against crashes, damage and other processes.

use aws_lc_rs::rand::SystemRandom;
use uuid::Uuid;

use super::*;
use crate::model::{EndReason, Principal, PrincipalKind};
use crate::store::{conformance, shard_of};
use crate::time::{ManualClock, SystemClock};

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const PATIENCE: Duration = Duration::from_secs(30);

/// A directory of its own, removed at the end.
struct Dir(std::path::PathBuf);

impl Dir {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("doorward-sqlite-{}", Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn file(&self) -> std::path::PathBuf {
        self.0.join("sessions.db")
    }

    // What a process killed now would leave behind: the shared memory is not part of it.
    fn as_after_a_crash(&self) -> Self {
        let copy = Self::new();
        for name in ["sessions.db", "sessions.db-wal"] {
            std::fs::copy(self.0.join(name), copy.0.join(name)).unwrap();
        }
        copy
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new().unwrap())
}

fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(NOW))
}

async fn open(path: &Path) -> Result<Arc<SqliteStore>, OpenError> {
    SqliteStore::open(path, Duration::ZERO, clock(), metrics()).await
}

async fn beside(path: &Path) -> Result<Arc<SqliteStore>, OpenError> {
    SqliteStore::open_beside(path, Duration::ZERO, clock(), metrics()).await
}

fn session(principal: &str) -> Session {
    let principal =
        Principal { kind: PrincipalKind::User, id: principal.parse().unwrap(), tenant: "acme".parse().unwrap() };
    let shard = shard_of(&principal.tenant, &principal.id);
    Session::plain(principal, shard, NOW, NOW.plus(Duration::from_mins(30)))
}

fn end(reason: EndReason) -> End {
    End { reason, at: NOW }
}

async fn stored(store: &SqliteStore, principal: &str) -> Session {
    let session = session(principal);
    let created = store.create(&session, 100, NOW).await.unwrap();
    assert_eq!(created, Created::Stored { evicted: Vec::new() });
    session
}

async fn find(store: &SqliteStore, session: &Session) -> Result<Option<Session>, StoreError> {
    store.find(session.id, store.revocations().stamp(&session.id), NOW).await
}

async fn end_one(store: &SqliteStore, session: &Session) -> Result<(), StoreError> {
    store.end(&[session.id], end(EndReason::Logout)).await
}

async fn end_principal(store: &SqliteStore, principal: &str) -> Result<u64, StoreError> {
    let (tenant, principal) = ("acme".parse().unwrap(), principal.parse().unwrap());
    store.end_principal(&tenant, &principal, end(EndReason::Principal)).await
}

async fn sql(store: &SqliteStore, statement: &'static str) {
    sqlx::raw_sql(statement).execute(&store.connections.durable).await.unwrap();
}

async fn until(store: &SqliteStore, reached: impl Fn(&Revocations) -> bool) {
    let mut changes = store.revocations().subscribe();
    let waiting = async {
        while !reached(store.revocations()) {
            changes.changed().await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap();
}

async fn outside(store: &SqliteStore) -> i64 {
    statements::outside_revocations(&store.connections.watcher).await.unwrap()
}

// As when the disk is full: reads go on, deletions fail.
async fn break_deletes(store: &SqliteStore) {
    sql(store, "CREATE TRIGGER broken BEFORE DELETE ON sessions BEGIN SELECT RAISE(ABORT, 'disk full'); END").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.file(), Duration::ZERO, Arc::new(SystemClock::new()), metrics()).await.unwrap();
    conformance::run(async || store.clone() as Arc<dyn SessionStore>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_through_the_cache() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.file(), Duration::ZERO, Arc::new(SystemClock::new()), metrics()).await.unwrap();
    conformance::run(async || crate::session::tests::cached(store.clone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_while_its_upkeep_runs() {
    let dir = Dir::new();
    let store = SqliteStore::open(&dir.file(), Duration::ZERO, Arc::new(SystemClock::new()), metrics()).await.unwrap();
    let upkeep = tokio::spawn(store.clone().run());
    conformance::run(async || store.clone() as Arc<dyn SessionStore>).await;
    upkeep.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conforms_beside_a_server() {
    let dir = Dir::new();
    let _server = open(&dir.file()).await.unwrap();
    let tool =
        SqliteStore::open_beside(&dir.file(), Duration::ZERO, Arc::new(SystemClock::new()), metrics()).await.unwrap();
    conformance::run(async || tool.clone() as Arc<dyn SessionStore>).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_keeps_what_ended_where_that_is_shown() {
    let dir = Dir::new();
    let hour = Duration::from_hours(1);
    let store = SqliteStore::open(&dir.file(), hour, Arc::new(SystemClock::new()), metrics()).await.unwrap();
    conformance::run_keeping_ended(async || store.clone() as Arc<dyn SessionStore>).await;
}

#[tokio::test]
async fn what_ended_is_swept_once_it_was_kept_long_enough() {
    let dir = Dir::new();
    let clock = clock();
    let store = SqliteStore::open(&dir.file(), Duration::from_hours(1), clock.clone(), metrics()).await.unwrap();
    let session = stored(&store, "leaver").await;
    end_one(&store, &session).await.unwrap();
    clock.advance(Duration::from_mins(59));
    assert_eq!(store.sweep().await.unwrap(), 0);
    clock.advance(Duration::from_mins(1));
    assert_eq!(store.sweep().await.unwrap(), 1);
    assert_eq!(store.sweep().await.unwrap(), 0);
}

#[tokio::test]
async fn a_second_server_is_refused_and_told_why() {
    let dir = Dir::new();
    let first = open(&dir.file()).await.unwrap();
    let refusal = open(&dir.file()).await.err().unwrap();
    assert!(matches!(refusal, OpenError::InUse(_)));
    assert!(refusal.to_string().contains("several replicas need Redis"), "{refusal}");
    drop(first);
    open(&dir.file()).await.unwrap();
}

#[tokio::test]
async fn of_servers_opening_at_once_one_wins() {
    let dir = Dir::new();
    let path = dir.file();
    let opened = futures_util::future::join_all((0..8).map(|_| open(&path))).await;
    assert_eq!(opened.iter().filter(|opened| opened.is_ok()).count(), 1);
    assert!(opened.iter().filter_map(|opened| opened.as_ref().err()).all(|e| matches!(e, OpenError::InUse(_))));
}

#[tokio::test]
async fn keys_are_made_once_and_survive() {
    let dir = Dir::new();
    let random = SystemRandom::new();
    let store = open(&dir.file()).await.unwrap();
    let (token_key, device_key) = (store.token_key(&random).await.unwrap(), store.device_key(&random).await.unwrap());
    assert_ne!(token_key, device_key);
    assert_ne!(*token_key, [0; 32]);
    let tool = beside(&dir.file()).await.unwrap();
    assert_eq!(tool.token_key(&random).await.unwrap(), token_key);
    drop((store, tool));
    let store = open(&dir.file()).await.unwrap();
    assert_eq!(store.token_key(&random).await.unwrap(), token_key);
    assert_eq!(store.device_key(&random).await.unwrap(), device_key);
}

#[tokio::test]
async fn a_crash_loses_nothing_that_was_acknowledged() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let key_before = store.token_key(&SystemRandom::new()).await.unwrap();
    let (kept, ended) = (stored(&store, "kept").await, stored(&store, "ended").await);
    let all = [stored(&store, "all").await, stored(&store, "all").await];
    end_one(&store, &ended).await.unwrap();
    assert_eq!(end_principal(&store, "all").await.unwrap(), 2);

    let crashed = dir.as_after_a_crash();
    let again = open(&crashed.file()).await.unwrap();
    assert_eq!(find(&again, &kept).await.unwrap(), Some(kept));
    for gone in all.iter().chain([&ended]) {
        assert_eq!(find(&again, gone).await.unwrap(), None);
    }
    let late = session("all");
    assert_eq!(again.create(&late, 100, NOW).await.unwrap(), Created::Superseded);
    assert_eq!(again.token_key(&SystemRandom::new()).await.unwrap(), key_before);
}

#[tokio::test]
async fn revocations_are_synced_and_sign_ins_are_not() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let synchronous = async |pool| sqlx::query_scalar::<_, i64>("PRAGMA synchronous").fetch_one(pool).await.unwrap();
    assert_eq!(synchronous(&store.connections.durable).await, 2, "FULL");
    assert_eq!(synchronous(&store.connections.relaxed).await, 1, "NORMAL");
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&store.connections.relaxed).await.unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn only_the_owner_may_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let dir = Dir::new();
    std::fs::write(dir.file(), "").unwrap();
    std::fs::set_permissions(dir.file(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let store = open(&dir.file()).await.unwrap();
    stored(&store, "holder").await;
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&dir.0).unwrap() {
        let entry = entry.unwrap();
        names.push(entry.file_name().into_string().unwrap());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{names:?}");
    }
    names.sort();
    assert_eq!(names, ["sessions.db", "sessions.db-shm", "sessions.db-wal", "sessions.db.lock"]);
}

#[tokio::test]
async fn a_missing_directory_is_made() {
    let dir = Dir::new();
    let path = dir.0.join("var").join("lib").join("sessions.db");
    open(&path).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_place_that_cannot_be_written_is_named() {
    let dir = Dir::new();
    std::fs::write(dir.0.join("file"), "").unwrap();
    // Neither can be written to, not even by root.
    for place in [dir.0.join("file").join("sessions.db"), "/proc/self/sessions.db".into()] {
        let refusal = open(&place).await.err().unwrap();
        assert!(matches!(refusal, OpenError::File { .. }), "{refusal:?}");
        let shown = refusal.to_string();
        assert!(shown.contains(place.parent().unwrap().to_str().unwrap()) && shown.contains("cannot"), "{shown}");
    }
}

#[tokio::test]
async fn a_file_that_is_no_database_is_refused() {
    let dir = Dir::new();
    std::fs::write(dir.file(), "this is not a database, however long it goes on\n".repeat(200)).unwrap();
    assert!(matches!(open(&dir.file()).await, Err(OpenError::Database { .. })));
    assert!(matches!(beside(&dir.file()).await, Err(OpenError::Database { .. })));
}

#[tokio::test]
async fn a_damaged_file_is_an_error_and_not_a_refusal_of_sessions() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let session = stored(&store, "holder").await;
    sql(&store, "PRAGMA wal_checkpoint(TRUNCATE)").await;
    let pages: Vec<i64> = sqlx::query_scalar("SELECT rootpage FROM sqlite_schema WHERE tbl_name = 'sessions'")
        .fetch_all(&store.connections.readers)
        .await
        .unwrap();
    let mut bytes = std::fs::read(dir.file()).unwrap();
    for page in pages {
        let start = (usize::try_from(page).unwrap() - 1) * 4096;
        bytes[start..start + 4096].fill(0xFF);
    }
    let damaged = Dir::new();
    std::fs::write(damaged.file(), bytes).unwrap();
    let store = open(&damaged.file()).await.unwrap();
    assert!(matches!(find(&store, &session).await, Err(StoreError::Unavailable(_))));
    assert!(matches!(end_one(&store, &session).await, Err(StoreError::Unavailable(_))));
    assert_eq!(find(&store, &session).await.unwrap(), None, "refused by this replica all the same");
}

#[tokio::test]
async fn records_that_cannot_be_read_are_not_absent_sessions() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let session = stored(&store, "holder").await;
    sql(&store, "UPDATE sessions SET record = x'0280'").await;
    assert!(matches!(find(&store, &session).await, Err(StoreError::NewerRecord(2))));
    sql(&store, "UPDATE sessions SET record = x'01C0'").await;
    assert!(matches!(find(&store, &session).await, Err(StoreError::Corrupt(_))));
    assert_eq!(end_principal(&store, "holder").await.unwrap(), 1, "what cannot be read can still be ended");
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    sql(&store, "PRAGMA user_version = 99").await;
    drop(store);
    assert!(matches!(open(&dir.file()).await, Err(OpenError::Schema { found: 99, .. })));
    assert!(matches!(beside(&dir.file()).await, Err(OpenError::Schema { found: 99, .. })));
}

#[tokio::test]
async fn a_tool_makes_no_file() {
    let dir = Dir::new();
    assert!(matches!(beside(&dir.file()).await, Err(OpenError::Database { .. })));
    assert!(!dir.file().exists());
}

#[tokio::test]
async fn expired_sessions_are_swept_in_batches() {
    let dir = Dir::new();
    let clock = clock();
    let store = SqliteStore::open(&dir.file(), Duration::ZERO, clock.clone(), metrics()).await.unwrap();
    let kept = Session { expires_at: NOW.plus(Duration::from_hours(2)), ..session("kept") };
    store.create(&kept, 100, NOW).await.unwrap();
    sql(
        &store,
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1234)
         INSERT INTO sessions SELECT randomblob(16), 'acme', 'p' || i, 1800000000001, x'01' FROM n",
    )
    .await;
    assert_eq!(store.sweep().await.unwrap(), 0);
    clock.advance(Duration::from_millis(1));
    assert_eq!(store.sweep().await.unwrap(), 1234);
    assert_eq!(find(&store, &kept).await.unwrap(), Some(kept));
}

#[tokio::test]
async fn a_server_notices_what_a_tool_ends() {
    let dir = Dir::new();
    let server = open(&dir.file()).await.unwrap();
    let (first, second) = (stored(&server, "one").await, stored(&server, "two").await);
    let upkeep = tokio::spawn(server.clone().run());
    let tool = beside(&dir.file()).await.unwrap();

    let before = server.revocations().generation();
    end_one(&tool, &first).await.unwrap();
    until(&server, |known| known.generation() > before && known.is_current()).await;
    assert_eq!(find(&server, &first).await.unwrap(), None);

    let before = server.revocations().generation();
    assert_eq!(end_principal(&tool, "two").await.unwrap(), 1);
    until(&server, |known| known.generation() > before && known.is_current()).await;
    assert_eq!(find(&server, &second).await.unwrap(), None);
    upkeep.abort();
}

#[tokio::test]
async fn a_servers_own_writes_do_not_cost_it_its_cache() {
    let dir = Dir::new();
    let server = open(&dir.file()).await.unwrap();
    let before = (server.revocations().generation(), outside(&server).await);
    let session = stored(&server, "one").await;
    stored(&server, "two").await;
    end_one(&server, &session).await.unwrap();
    end_principal(&server, "two").await.unwrap();
    assert_eq!((server.revocations().generation(), outside(&server).await), before);
}

#[tokio::test]
async fn a_server_that_cannot_look_stops_vouching_until_it_can() {
    let dir = Dir::new();
    let server = open(&dir.file()).await.unwrap();
    let before = server.revocations().generation();
    sql(&server, "ALTER TABLE outside_revocations RENAME TO hidden").await;
    let upkeep = tokio::spawn(server.clone().run());
    until(&server, |known| !known.is_current()).await;
    sql(&server, "ALTER TABLE hidden RENAME TO outside_revocations").await;
    until(&server, Revocations::is_current).await;
    assert!(server.revocations().generation() > before, "what was cached before may have been revoked meanwhile");
    upkeep.abort();
}

#[tokio::test]
async fn a_revocation_that_fails_is_refused_here_and_tried_again() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let session = stored(&store, "holder").await;
    break_deletes(&store).await;
    assert!(matches!(end_one(&store, &session).await, Err(StoreError::Unavailable(_))));
    assert!(store.revocations().is_revoked(&session.id));
    assert_eq!(find(&store, &session).await.unwrap(), None);
    assert_eq!(store.metrics.revocation_journal_depth.get(), 1);
    store.retry().await;
    assert_eq!(store.metrics.revocation_journal_depth.get(), 1);
    sql(&store, "DROP TRIGGER broken").await;
    store.retry().await;
    assert_eq!(store.metrics.revocation_journal_depth.get(), 0);
    let crashed = dir.as_after_a_crash();
    assert_eq!(find(&open(&crashed.file()).await.unwrap(), &session).await.unwrap(), None);
}

#[tokio::test]
async fn a_revocation_whose_caller_gave_up_is_carried_out() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let session = stored(&store, "holder").await;
    let elsewhere = store.connections.relaxed.begin_with("BEGIN IMMEDIATE").await.unwrap();
    let caller = tokio::spawn({
        let (store, session) = (store.clone(), session.clone());
        async move { end_one(&store, &session).await }
    });
    until(&store, |known| known.is_revoked(&session.id)).await;
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    assert_eq!(store.metrics.revocation_journal_depth.get(), 1);
    elsewhere.rollback().await.unwrap();
    store.retry().await;
    assert_eq!(store.metrics.revocation_journal_depth.get(), 0);
    let crashed = dir.as_after_a_crash();
    assert_eq!(find(&open(&crashed.file()).await.unwrap(), &session).await.unwrap(), None);
}

#[tokio::test]
async fn a_principal_whose_revocation_fails_is_refused_here_and_tried_again() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let session = stored(&store, "holder").await;
    let before = store.revocations().generation();
    break_deletes(&store).await;
    assert!(matches!(end_principal(&store, "holder").await, Err(StoreError::Unavailable(_))));
    assert!(store.revocations().is_revoked(&session.id));
    assert!(store.revocations().generation() > before && store.revocations().is_current());
    sql(&store, "DROP TRIGGER broken").await;
    store.retry().await;
    assert_eq!(store.metrics.revocation_journal_depth.get(), 0);
    let late = self::session("holder");
    assert_eq!(store.create(&late, 100, NOW).await.unwrap(), Created::Superseded);
}

#[tokio::test]
async fn refusals_end_when_their_tokens_do() {
    let dir = Dir::new();
    let clock = clock();
    let store = SqliteStore::open(&dir.file(), Duration::ZERO, clock.clone(), metrics()).await.unwrap();
    let session = stored(&store, "holder").await;
    for _ in 0..2 {
        end_one(&store, &session).await.unwrap();
    }
    store.revocations().prune();
    assert_eq!(store.revocations().tombstone_count(), 1);
    clock.advance(Duration::from_hours(2));
    store.revocations().prune();
    assert_eq!(store.revocations().tombstone_count(), 0);
}

#[tokio::test]
async fn operations_are_counted_by_result() {
    let dir = Dir::new();
    let store = open(&dir.file()).await.unwrap();
    let session = stored(&store, "holder").await;
    find(&store, &session).await.unwrap();
    break_deletes(&store).await;
    end_one(&store, &session).await.unwrap_err();
    let count =
        |operation, result| store.metrics.store_operations.with_label_values(&["sqlite", operation, result]).get();
    assert_eq!((count("create", "ok"), count("find", "ok"), count("end", "error")), (1, 1, 1));
    assert_eq!((count("find", "error"), count("list", "ok")), (0, 0));
    assert_eq!(store.metrics.store_up.with_label_values(&["sqlite"]).get(), 1);
}
