//! `doorward sessions` beside a running server's store.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{CommandOutcome, FAILURE, SUCCESS, TestDirectory, USAGE, run_with};
use crate::metrics::Metrics;
use crate::model::{Principal, PrincipalKind, Session, SessionId};
use crate::store::sqlite::SqliteStore;
use crate::store::{Created, KEEP_ENDED, SessionStore, shard_of};
use crate::time::{Clock, SystemClock};

/// A store that a server has open, and a way to run commands beside it.
struct Beside {
    directory: TestDirectory,
    runtime: Runtime,
    store: Arc<SqliteStore>,
    clock: Arc<dyn Clock>,
}

impl Beside {
    fn new() -> Self {
        let directory = TestDirectory::new();
        let runtime = Runtime::new().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Arc::new(Metrics::new().unwrap());
        let path = directory.path().join("sessions.db");
        let opened = SqliteStore::open(&path, KEEP_ENDED, clock.clone(), metrics);
        let store = runtime.block_on(opened).unwrap();
        Self { directory, runtime, store, clock }
    }

    fn run(&self, arguments: &[&str]) -> CommandOutcome {
        let url = format!("sqlite://{}/sessions.db", self.directory.path().display());
        let arguments = [&["sessions"], arguments].concat();
        run_with(&arguments, &[("DOORWARD__SESSIONS__STORE", &url)])
    }

    /// Stores a session of `user_1`; returns its id.
    fn start(&self, tenant: &str, roles: &[&str]) -> SessionId {
        let principal =
            Principal { kind: PrincipalKind::User, id: "user_1".parse().unwrap(), tenant: tenant.parse().unwrap() };
        let now = self.clock.now();
        let expires_at = now.plus(Duration::from_mins(5));
        let shard = shard_of(&principal.tenant, &principal.id);
        let roles = roles.iter().map(|role| role.parse().unwrap()).collect();
        let session = Session { roles, ..Session::plain(principal, shard, now, expires_at) };
        let created = self.runtime.block_on(self.store.create(&session, 100, now)).unwrap();
        assert_eq!(created, Created::Stored { evicted: Vec::new() });
        session.id
    }

    fn is_live(&self, id: SessionId) -> bool {
        let stamp = self.store.revocations().stamp(&id);
        self.runtime.block_on(self.store.find(id, stamp, self.clock.now())).unwrap().is_some()
    }
}

#[test]
fn list_shows_what_is_live() {
    let beside = Beside::new();
    let none = beside.run(&["list", "--principal", "user_1"]);
    assert_eq!(none.stdout, "user_1 in tenant default has no live session\n", "{}", none.stderr);
    let here = beside.start("default", &["admin", "[31mred"]);
    let there = beside.start("acme", &[]);
    let listed = beside.run(&["list", "--principal", "user_1"]);
    assert_eq!(listed.code, SUCCESS);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert_eq!(lines.len(), 2, "{}", listed.stdout);
    assert!(lines[1].starts_with(&format!("{here}  user       20")), "{}", listed.stdout);
    assert!(lines[1].ends_with("Z  admin,[31mred"), "{}", listed.stdout);
    let elsewhere = beside.run(&["list", "--principal", "user_1", "--tenant", "acme"]).stdout;
    assert!(elsewhere.contains(&there.to_string()) && !elsewhere.contains(&here.to_string()), "{elsewhere}");
}

#[test]
fn revoke_ends_one_session_or_all_of_a_principal() {
    let beside = Beside::new();
    let started: Vec<SessionId> = (0..3).map(|_| beside.start("default", &[])).collect();
    let elsewhere = beside.start("acme", &[]);
    let live = || started.iter().map(|id| beside.is_live(*id)).collect::<Vec<_>>();

    let id = started[1].to_string();
    let one = beside.run(&["revoke", "--principal", "user_1", "--session", &id]);
    assert_eq!(one.stdout, format!("ended session {id} of user_1 in tenant default\n"), "{}", one.stderr);
    assert_eq!(live(), [true, false, true]);

    let again = beside.run(&["revoke", "--principal", "user_1", "--session", &id]);
    assert_eq!((again.code, again.stdout.as_str()), (FAILURE, ""));
    assert_eq!(again.stderr, format!("doorward: user_1 in tenant default has no live session {id}\n"));

    let all = beside.run(&["revoke", "--principal", "user_1"]);
    assert_eq!(all.stdout, "ended 2 sessions of user_1 in tenant default\n", "{}", all.stderr);
    assert_eq!(live(), [false, false, false]);
    assert!(beside.is_live(elsewhere), "another tenant's sessions are another's");
}

#[test]
fn a_store_that_is_not_there_is_named_and_a_principal_is_needed() {
    let listed = run_with(
        &["sessions", "list", "--principal", "user_1"],
        &[("DOORWARD__SESSIONS__STORE", "sqlite:///nowhere/sessions.db")],
    );
    assert_eq!((listed.code, listed.stdout.as_str()), (FAILURE, ""));
    assert!(listed.stderr.contains("/nowhere/sessions.db"), "{}", listed.stderr);
    assert_eq!(run_with(&["sessions", "revoke"], &[]).code, USAGE);
    assert_eq!(run_with(&["sessions", "list", "--principal", "a b"], &[]).code, USAGE);
}
