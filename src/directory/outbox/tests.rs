//! The outbox on `SQLite`; the same statements run on PostgreSQL in the integration tests.

use std::time::Duration;

use super::*;
use crate::config::directory::DirectoryUrl;
use crate::config::tests::TestDirectory;
use crate::config::{self};

const START: Timestamp = Timestamp(1_700_000_000_000);
const LEASE: Duration = Duration::from_mins(1);

struct OutboxBench {
    directory: Directory,
    _files: TestDirectory,
}

impl OutboxBench {
    async fn new() -> Self {
        let files = TestDirectory::new();
        Self { directory: embedded(&files).await, _files: files }
    }

    async fn alias(&self, user: &str, now: Timestamp) -> EventId {
        let event = OutboxEvent::Alias { user: user.parse().unwrap(), guest: "anon:1".parse().unwrap() };
        self.directory.enqueue(&event, now).await.unwrap()
    }

    async fn lease(&self, limit: u32, now: Timestamp) -> Lease {
        self.directory.lease_events(EventKind::Alias, limit, LEASE, now).await.unwrap()
    }
}

/// Returns a migrated directory in `files`.
pub(crate) async fn embedded(files: &TestDirectory) -> Directory {
    let directory = Directory::open(&config::Directory {
        url: DirectoryUrl::Sqlite(files.path().join("directory.db")),
        password: None,
        ca: None,
        timeout: Duration::from_secs(10),
        max_connections: 2,
        migrate: true,
    })
    .unwrap();
    directory.migrate().await.unwrap();
    directory
}

fn names(lease: &Lease) -> Vec<EventId> {
    lease.events.iter().map(|event| event.id.clone()).collect()
}

#[tokio::test]
async fn events_are_leased_oldest_first_and_one_of_each_person() {
    let outbox = OutboxBench::new().await;
    let first = outbox.alias("user_a", START).await;
    let second = outbox.alias("user_a", START).await;
    let other = outbox.alias("user_b", START.plus(Duration::from_millis(1))).await;
    assert!(first < second, "two of a person within a millisecond keep their order");
    let lease = outbox.lease(10, START.plus(Duration::from_secs(1))).await;
    assert_eq!(names(&lease), [first.clone(), other]);
    assert_eq!(lease.events.first().unwrap().body, r#"{"alias":"anon:1","distinct_id":"user_a"}"#);
    assert_eq!(outbox.lease(10, START.plus(Duration::from_secs(2))).await.events, []);
    outbox.directory.events_delivered([&first]).await.unwrap();
    assert_eq!(names(&outbox.lease(10, START.plus(Duration::from_secs(2))).await), [second]);
}

#[tokio::test]
async fn a_clock_that_was_put_back_does_not_change_the_order() {
    let outbox = OutboxBench::new().await;
    let first = outbox.alias("user_a", START.plus(Duration::from_secs(5))).await;
    assert!(first < outbox.alias("user_a", START).await);
}

#[tokio::test]
async fn a_lease_that_ran_out_is_anybodys_and_its_holder_has_no_say() {
    let outbox = OutboxBench::new().await;
    let id = outbox.alias("user_a", START).await;
    let lost = outbox.lease(1, START).await;
    let later = START.plus(LEASE);
    let held = outbox.lease(1, later).await;
    assert_eq!((names(&held), held.events.first().unwrap().attempts), (vec![id], 2));
    let directory = &outbox.directory;
    directory.events_failed(&lost, START, "late").await.unwrap();
    directory.dead_letter_events(&lost, "late").await.unwrap();
    assert_eq!(directory.renew_lease(lost, LEASE, later).await.unwrap().events, []);
    assert_eq!(outbox.lease(1, later).await.events, []);
    let renewed = directory.renew_lease(held.clone(), 2 * LEASE, later).await.unwrap();
    assert_eq!((renewed.events, renewed.until), (held.events, later.plus(2 * LEASE)));
}

#[tokio::test]
async fn a_failed_event_waits_and_holds_back_its_person_only() {
    let outbox = OutboxBench::new().await;
    let first = outbox.alias("user_a", START).await;
    let second = outbox.alias("user_a", START).await;
    let lease = outbox.lease(1, START).await;
    let retry_at = START.plus(Duration::from_secs(30));
    outbox.directory.events_failed(&lease, retry_at, "the sink answered 500").await.unwrap();
    let other = outbox.alias("user_b", START).await;
    assert_eq!(names(&outbox.lease(10, START.plus(Duration::from_secs(29))).await), [other]);
    assert_eq!(names(&outbox.lease(10, retry_at).await), std::slice::from_ref(&first));
    outbox.directory.events_delivered([&first]).await.unwrap();
    assert_eq!(names(&outbox.lease(10, retry_at).await), [second]);
}

#[tokio::test]
async fn the_dead_hold_nobody_back_and_can_be_retried() {
    let outbox = OutboxBench::new().await;
    let (directory, dead) = (&outbox.directory, outbox.alias("user_a", START).await);
    let after = outbox.alias("user_a", START).await;
    let lease = outbox.lease(1, START).await;
    directory.dead_letter_events(&lease, "the sink answered 400").await.unwrap();
    assert_eq!(names(&outbox.lease(10, START).await), std::slice::from_ref(&after));
    let listed = directory.list_events(Some(EventState::Dead), 10).await.unwrap();
    assert_eq!(listed.len(), 1);
    let event = listed.first().unwrap();
    assert_eq!((&event.id, event.attempts, event.error.as_deref()), (&dead, 1, Some("the sink answered 400")));
    assert_eq!(directory.list_events(None, 10).await.unwrap().len(), 2);
    let mut depth = directory.outbox_depth().await.unwrap();
    depth.sort_by_key(|depth| depth.state == EventState::Pending);
    let one = |state| Depth { kind: "alias".to_owned(), state, count: 1, oldest: START };
    assert_eq!(depth, [one(EventState::Dead), one(EventState::Pending)]);

    let later = START.plus(Duration::from_secs(5));
    assert_eq!(directory.retry_events(std::slice::from_ref(&after), later).await.unwrap(), 0, "it is not dead");
    assert_eq!(directory.retry_events(std::slice::from_ref(&dead), later).await.unwrap(), 1);
    assert_eq!(directory.retry_all_events(later).await.unwrap(), 0);
    let lease = outbox.lease(10, later).await;
    assert_eq!((names(&lease), lease.events.first().unwrap().attempts), (vec![dead], 1));
}

#[tokio::test]
async fn kinds_do_not_wait_for_each_other() {
    let outbox = OutboxBench::new().await;
    let person = || "anon:1".parse().unwrap();
    let revoke = OutboxEvent::RevokeGuest { tenant: "default".parse().unwrap(), guest: person() };
    outbox.directory.enqueue(&OutboxEvent::Alias { user: person(), guest: person() }, START).await.unwrap();
    let id = outbox.directory.enqueue(&revoke, START).await.unwrap();
    let lease = outbox.directory.lease_events(EventKind::RevokeGuest, 10, LEASE, START).await.unwrap();
    assert_eq!(names(&lease), [id]);
    assert_eq!(lease.events.first().unwrap().body, r#"{"principal":"anon:1","tenant":"default"}"#);
}
