//! Making a step of a rebind wait, and noticing that it does.
//!
//! On PostgreSQL every step has a trigger that takes a lock of its own, which the test may hold. A
//! `SQLite` trigger cannot wait, so it counts for ever, and the file stays locked meanwhile.

use std::path::Path;

use crate::support::database::{Database, Session};
use crate::support::doorward::Doorward;
use crate::support::eventually;

/// What a rebind waits for when it is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The lock on the device, or on the whole file.
    Lock,
    /// The first table's rows.
    Notes,
    /// What is in the way in the second table.
    Conflicts,
    /// The second table's rows.
    Files,
    /// Whose the device is, or who claims it.
    Record,
    /// The alias.
    Alias,
    /// The event that ends the guest's sessions.
    Revocation,
    /// The idempotency key's receipt.
    Receipt,
    /// The commit itself.
    Commit,
    /// The end of the guest's sessions, after the commit.
    Sessions,
    /// That nothing is left to do.
    Forget,
}

/// What stands in the way of a step.
pub(super) enum Obstacle {
    /// A lock.
    Held(Session),
    /// A trigger.
    Trigger,
}

/// Looks into the database beside the process.
pub(super) struct Monitor {
    session: Session,
    /// Does not wait for a file that is locked.
    prober: Option<Session>,
}

impl Step {
    /// Every step, in order.
    pub(super) const ALL: [Self; 11] = [
        Self::Lock,
        Self::Notes,
        Self::Conflicts,
        Self::Files,
        Self::Record,
        Self::Alias,
        Self::Revocation,
        Self::Receipt,
        Self::Commit,
        Self::Sessions,
        Self::Forget,
    ];

    /// Returns whether the rebind is done although its process is killed at this step. A commit that
    /// was sent is carried out.
    pub(super) fn is_past_the_commit(self) -> bool {
        matches!(self, Self::Commit | Self::Sessions | Self::Forget)
    }

    /// Returns when the step's trigger runs, on which table and for which rows.
    fn trigger(self) -> Option<(&'static str, &'static str, &'static str)> {
        Some(match self {
            Self::Notes => ("before update", "app.notes", ""),
            Self::Conflicts => ("before delete", "app.files", ""),
            Self::Files => ("before update", "app.files", ""),
            Self::Record => ("before update", "doorward_devices", ""),
            Self::Alias => ("before insert", "doorward_outbox", "when (new.kind = 'alias')"),
            Self::Revocation => ("before insert", "doorward_outbox", "when (new.kind = 'revoke_guest')"),
            Self::Receipt => ("before insert", "doorward_receipts", ""),
            Self::Forget => ("before delete", "doorward_outbox", "when (old.kind = 'revoke_guest')"),
            Self::Lock | Self::Commit | Self::Sessions => return None,
        })
    }

    fn number(self) -> usize {
        Self::ALL.iter().position(|step| *step == self).expect("it is one of all")
    }
}

impl Monitor {
    pub(super) async fn new(database: &Database) -> Self {
        let mut prober = None;
        if !database.is_postgres() {
            let mut session = database.session().await;
            session.run("pragma busy_timeout = 0").await.expect("a setting");
            prober = Some(session);
        }
        Self { session: database.session().await, prober }
    }

    /// Puts in place what the obstacles need; the directory's tables must be there.
    pub(super) async fn install(&mut self, database: &Database) {
        if !database.is_postgres() {
            let numbers: Vec<String> = (0..200).map(|number| format!("({number})")).collect();
            let sql = format!("create table slow (n integer); insert into slow values {}", numbers.join(", "));
            database.sql(&sql).await;
            return;
        }
        let function = "create function app.wait() returns trigger language plpgsql as $$ begin \
                       perform pg_advisory_xact_lock_shared(tg_argv[0]::bigint); \
                       if tg_op = 'DELETE' then return old; end if; return new; end $$;";
        database.sql(function).await;
        for step in Step::ALL {
            let number = step.number();
            let trigger = match (step.trigger(), step) {
                (Some((when, table, rows)), _) => format!(
                    "create trigger wait_{number} {when} on {table} for each row {rows} \
                     execute function app.wait('{number}')"
                ),
                (None, Step::Commit) => format!(
                    "create constraint trigger wait_{number} after update on doorward_devices \
                     deferrable initially deferred for each row execute function app.wait('{number}')"
                ),
                (None, _) => continue,
            };
            database.sql(&trigger).await;
        }
    }

    /// Puts something in the way of a step. `sessions` is the sessions' file.
    pub(super) async fn obstruct(&mut self, database: &Database, sessions: &Path, step: Step) -> Obstacle {
        let locks = match (step, database.is_postgres()) {
            (Step::Sessions, _) | (Step::Lock, false) => ["begin immediate".to_owned(), String::new()],
            (Step::Lock, true) => ["begin".to_owned(), "select 1 from doorward_devices for update".to_owned()],
            (_, true) => ["begin".to_owned(), format!("select pg_advisory_xact_lock({})", step.number())],
            (_, false) => {
                let (when, table, rows) = step.trigger().expect("what a file has no trigger for is not asked");
                let trigger = format!(
                    "create trigger slow_down {when} on {table} for each row {rows} begin \
                     select count(*) from slow a, slow b, slow c, slow d, slow e where a.n + b.n + c.n + d.n + e.n < 0; \
                     end"
                );
                database.app(&trigger).await;
                return Obstacle::Trigger;
            }
        };
        let mut session = match step {
            Step::Sessions => Session::file(sessions).await,
            _ => database.session().await,
        };
        for lock in locks.iter().filter(|lock| !lock.is_empty()) {
            session.run(lock).await.expect("nobody else has it");
        }
        Obstacle::Held(session)
    }

    /// Takes it out of the way of whoever comes next, once nothing of the killed process is left.
    pub(super) async fn clear(&mut self, database: &Database, obstacle: Obstacle) {
        match obstacle {
            Obstacle::Held(mut session) => {
                session.run("rollback").await.expect("it was begun");
            }
            Obstacle::Trigger => {
                database.sql("drop trigger slow_down").await;
            }
        }
        if database.is_postgres() {
            // What was sent is carried out, until the server notices that nobody listens.
            let left = "select count(*) from pg_stat_activity \
                        where application_name = 'doorward' and datname = current_database()";
            eventually("PostgreSQL to notice", async || (self.ask(left).await == "0").then_some(())).await;
        }
    }

    /// Waits until the process waits at `step`; `moved` counts rows that are moved by the commit.
    pub(super) async fn wait(&mut self, doorward: &Doorward, step: Step, moved: &str) {
        let mut locked = 0;
        eventually(&format!("{step:?} to be waited for"), async || {
            if let Some(prober) = &mut self.prober {
                // Every other statement is over at once: a file that stays locked is in this one.
                locked = match prober.run("begin immediate").await {
                    Ok(_) => {
                        prober.run("rollback").await.expect("it was begun");
                        0
                    }
                    Err(_) => locked + 1,
                };
            }
            let arrived = match (step, self.prober.is_some()) {
                (Step::Sessions, _) => self.ask(moved).await != "0",
                (Step::Lock, true) => {
                    let text = doorward.admin_get("/metrics").await.text();
                    text.contains("doorward_http_requests_in_flight{handler=\"proxy\"} 1")
                }
                (Step::Forget, true) => locked >= 3 && self.ask(moved).await != "0",
                (_, true) => locked >= 3,
                (_, false) => {
                    let waits = "select count(*) from pg_stat_activity where application_name = 'doorward' \
                                 and datname = current_database() and wait_event_type = 'Lock'";
                    self.ask(waits).await != "0"
                }
            };
            arrived.then_some(())
        })
        .await;
    }

    /// Runs a query in which `app.` stands for the application's schema.
    pub(super) async fn ask(&mut self, sql: &str) -> String {
        let sql = if self.prober.is_some() { sql.replace("app.", "") } else { sql.to_owned() };
        self.session.run(&sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
    }
}
