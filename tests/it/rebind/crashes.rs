//! The process is killed at every step of a rebind in turn; afterwards nothing is half moved.
//!
//! Nothing in the binary helps: the step is made to wait in the database, by a lock that the test
//! holds or a trigger that takes its time, and the process is killed while it waits. Sessions, keys
//! and guests outlive each process in files, so that every round costs one start.

mod hook;
mod obstacles;

use std::collections::BTreeSet;
use std::future::ready;

use serde_json::json;

use self::obstacles::{Monitor, Step};
use super::{ALICE, BOB, assert_moved, assert_no_op, builder, rebind, sql};
use crate::support::client::{Client, Response, sign_in, sign_in_guest};
use crate::support::database::Database;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;
use crate::surface::answers::{assert_refused, identity_of};

const TABLES: &str = "create table app.notes (id bigint, owner text not null); \
                      create table app.files (id bigint, owner text not null, unique (owner, id))";
/// Rows that each guest has in each table; one of the second table's is in the way.
const ROWS: usize = 3;
const MOVED: u64 = 5;

/// What the processes of a test have in common.
struct Stage {
    database: Database,
    idp: Idp,
    upstream: Upstream,
    kept: TempDir,
    /// Of each round.
    guests: Vec<Guest>,
    alice: String,
    bob: String,
}

struct Guest {
    device: String,
    token: String,
    name: String,
}

#[tokio::test]
async fn killed_at_any_step_on_sqlite_a_rebind_is_done_or_not_begun() {
    let steps: Vec<Step> = Step::ALL.into_iter().filter(|step| *step != Step::Commit).collect();
    kill_at_every(&steps, 5, Database::sqlite()).await;
}

#[tokio::test]
async fn killed_at_any_step_on_postgresql_a_rebind_is_done_or_not_begun() {
    kill_at_every(&Step::ALL, 5, Database::postgres().await).await;
}

#[tokio::test]
async fn an_alias_whose_process_was_killed_reaches_the_sink_once() {
    for database in Database::both().await {
        let config = sql(&database, &[("notes", ""), ("files", ", on_conflict: keep_user")]);
        let steps = [Step::Forget, Step::Sessions];
        let stage = Stage::start(database, steps.len(), &config).await;
        let mut monitor = Monitor::new(&stage.database).await;
        monitor.install(&stage.database).await;
        for (round, step) in steps.into_iter().enumerate() {
            stage.kill_at(stage.doorward(&config).await, (step, ready(())), round, &mut monitor).await;
        }
        let sink = Upstream::start().await;
        // The sink that was away all the while is there now.
        let config = format!("{config}\noutbox: {{ alias: {{ url: '{}' }}, retry: {{ first: 10ms }} }}", sink.url());
        let doorward = stage.doorward(&config).await;
        for (round, guest) in stage.guests.iter().enumerate() {
            // Whoever was leased it is gone; so is its wait.
            eventually("the alias to be delivered", async || {
                monitor.ask("update doorward_outbox set due_at = 0, leased_until = 0, state = 'pending'").await;
                (stage.events(round, "alias", &mut monitor).await == "0").then_some(())
            })
            .await;
            let told = sink.requests().into_iter().filter(|request| request.target == "/batch/");
            let bodies = told.filter_map(|request| serde_json::from_slice::<serde_json::Value>(&request.body).ok());
            let events: Vec<serde_json::Value> =
                bodies.flat_map(|body| body["batch"].as_array().cloned().unwrap_or_default()).collect();
            let mine = events.iter().filter(|event| event["properties"]["alias"] == guest.name);
            let uuids: BTreeSet<String> = mine.map(|event| event["uuid"].to_string()).collect();
            assert_eq!(uuids.len(), 1, "{}: {events:?}", guest.device);
            assert!(events.iter().all(|event| event["distinct_id"] == ALICE), "{events:?}");
            stage.guest_ends(&doorward, round, &mut monitor).await;
        }
    }
}

async fn kill_at_every(steps: &[Step], times: usize, database: Database) {
    let config = sql(&database, &[("notes", ""), ("files", ", on_conflict: keep_user")]);
    let stage = Stage::start(database, steps.len() * times, &config).await;
    let mut monitor = Monitor::new(&stage.database).await;
    monitor.install(&stage.database).await;
    let mut last: Option<(usize, bool)> = None;
    let mut kills = 0;
    for (round, step) in steps.iter().cycle().take(stage.guests.len()).copied().enumerate() {
        let doorward = stage.doorward(&config).await;
        if let Some((before, moved)) = last {
            stage.ends_well(&doorward, before, moved, &mut monitor).await;
        }
        stage.kill_at(doorward, (step, ready(())), round, &mut monitor).await;
        kills += 1;
        let moved = stage.is_moved(round, &mut monitor).await;
        assert_eq!(moved, step.is_past_the_commit(), "{step:?}");
        // Whether the last statement of all was carried out makes no difference: they have ended.
        if step != Step::Forget {
            let left = stage.events(round, "revoke_guest", &mut monitor).await;
            assert_eq!(left == "1", moved, "{step:?}: who ends the guest's sessions?");
        }
        last = Some((round, moved));
    }
    let doorward = stage.doorward(&config).await;
    let (round, moved) = last.expect("there was one");
    stage.ends_well(&doorward, round, moved, &mut monitor).await;
    assert_eq!(kills, steps.len() * times);
}

impl Stage {
    async fn start(database: Database, rounds: usize, config: &str) -> Self {
        let (upstream, idp) = tokio::join!(Upstream::start(), Idp::start());
        database.create(TABLES).await;
        let (kept, guests) = (TempDir::new("crashes"), Vec::new());
        let (alice, bob) = (String::new(), String::new());
        let mut stage = Self { database, idp, upstream, kept, guests, alice, bob };
        let doorward = stage.doorward(config).await;
        stage.alice = sign_in(&doorward, &stage.idp, ALICE).await;
        stage.bob = sign_in(&doorward, &stage.idp, BOB).await;
        let (mut notes, mut files) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            let device = format!("device-{round}");
            let token = sign_in_guest(&doorward, &device).await;
            let (name, _) = identity_of(&doorward, &stage.upstream, &token).await;
            for id in round * ROWS..(round + 1) * ROWS {
                notes.push(format!("({id}, '{name}')"));
                files.push(format!("({id}, '{name}')"));
            }
            files.push(format!("({}, '{ALICE}')", round * ROWS));
            stage.guests.push(Guest { device, token, name });
        }
        for (table, rows) in [("notes", notes), ("files", files)] {
            stage.database.app(&format!("insert into app.{table} values {}", rows.join(", "))).await;
        }
        stage
    }

    async fn doorward(&self, config: &str) -> Doorward {
        let sessions = format!("sqlite://{}", self.kept.join("sessions.db").display());
        let builder = builder(&self.database, &self.idp).store(&sessions).upstream(self.upstream.url());
        // Nothing may give up before it is killed, and no session may end by itself.
        builder.config("directory: { timeout: 20s }\nsessions: { ttl: 2h }").config(config).start().await
    }

    async fn ask(&self, client: Client, round: usize) -> Option<Response> {
        let request = client.post("/auth/rebind").bearer(&self.alice).header("idempotency-key", "the-same-for-all");
        request.json(&json!({ "device_id": self.guests[round].device })).try_send().await.ok()
    }

    /// Rebinds, and kills the process once the rebind waits at `step`, which is not before `arrival`.
    async fn kill_at(
        &self,
        doorward: Doorward,
        (step, arrival): (Step, impl Future<Output = ()>),
        round: usize,
        monitor: &mut Monitor,
    ) {
        let obstacle = monitor.obstruct(&self.database, &self.kept.join("sessions.db"), step).await;
        let moved = format!("select count(*) from app.notes where owner = '{ALICE}' and id / {ROWS} = {round}");
        let asking = self.ask(doorward.client(), round);
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => panic!("{step:?} was not waited for: {answer:?}"),
            () = async {
                arrival.await;
                monitor.wait(&doorward, step, &moved).await;
            } => {}
        }
        // SIGKILL, and the end is waited for.
        drop(doorward);
        let answer = asking.await;
        assert!(answer.is_none(), "{step:?}: nobody is left to answer: {answer:?}");
        monitor.clear(&self.database, obstacle).await;
    }

    /// Asserts that everything of a round is on one side; returns whether that is the user's.
    async fn is_moved(&self, round: usize, monitor: &mut Monitor) -> bool {
        let Guest { name, device, .. } = &self.guests[round];
        let mut rows = Vec::new();
        for table in ["notes", "files"] {
            for owner in [name.as_str(), ALICE] {
                let mine = format!("owner = '{owner}' and id / {ROWS} = {round}");
                rows.push(monitor.ask(&format!("select count(*) from app.{table} where {mine}")).await);
            }
        }
        let moved = rows == ["0", "3", "0", "3"];
        assert!(moved || rows == ["3", "0", "3", "1"], "{device} is half moved: {rows:?}");
        let alias = self.events(round, "alias", monitor).await;
        assert_eq!(alias, if moved { "1" } else { "0" }, "{device}: the alias is lost, or of what never was");
        moved
    }

    async fn events(&self, round: usize, kind: &str, monitor: &mut Monitor) -> String {
        let about = format!("kind = '{kind}' and body like '%{}%'", self.guests[round].name);
        monitor.ask(&format!("select count(*) from doorward_outbox where {about}")).await
    }

    /// Tries again as a caller does who got no answer, and asserts that all is well in the end.
    async fn ends_well(&self, doorward: &Doorward, round: usize, moved: bool, monitor: &mut Monitor) {
        let Guest { device, name, .. } = &self.guests[round];
        let text = format!("device {device} already rebound to a different user");
        if moved {
            assert_refused(&rebind(doorward, &self.bob, device).await, 409, &text);
        }
        // The key brings the first answer, whether or not the first caller lived to see it.
        let answer = self.ask(doorward.client(), round).await.expect("an answer");
        assert_moved(&answer, MOVED, name);
        assert!(self.is_moved(round, monitor).await, "{device}");
        assert_no_op(&rebind(doorward, &self.alice, device).await);
        assert_refused(&rebind(doorward, &self.bob, device).await, 409, &text);
        self.guest_ends(doorward, round, monitor).await;
    }
    /// Waits until the guest's sessions have ended and nothing is left of the wish to end them. Whoever
    /// had leased that was killed: the minute until somebody else may is not waited for.
    async fn guest_ends(&self, doorward: &Doorward, round: usize, monitor: &mut Monitor) {
        monitor.ask("update doorward_outbox set leased_until = 0 where kind = 'revoke_guest'").await;
        let Guest { device, token, .. } = &self.guests[round];
        eventually(&format!("the guest of {device} to be refused"), async || {
            (doorward.client().get("/").bearer(token).send().await.status == 401).then_some(())
        })
        .await;
        eventually(&format!("the event of {device} to go"), async || {
            (self.events(round, "revoke_guest", monitor).await == "0").then_some(())
        })
        .await;
    }
}
