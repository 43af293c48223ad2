//! The same where the application moves the rows: nothing is forgotten that it may have done.

use std::collections::BTreeSet;
use std::future::ready;

use serde_json::Value;

use super::obstacles::{Monitor, Step};
use super::{ALICE, Guest, MOVED, Stage, assert_moved, assert_no_op, rebind};
use crate::support::database::Database;
use crate::support::eventually;
use crate::support::upstream::Recorded;
use crate::surface::answers::assert_refused;

const HOOK: &str = "/internal/rebind";

/// Where the process is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The claim is being written.
    Claim,
    /// The application has been asked and has not answered.
    Asked,
    /// It has answered, and that is being recorded.
    Answered,
}

#[tokio::test]
async fn killed_around_the_hook_a_rebind_is_taken_up_again_under_its_key() {
    let [sqlite, postgres] = Database::both().await;
    tokio::join!(kill_around_the_hook(sqlite, 5), kill_around_the_hook(postgres, 5));
}

/// Nobody gives up before the process is killed, nor takes a claim up.
const PATIENT: &str = "20s";
/// Claims are taken up after twice as long.
const EAGER: &str = "300ms";

fn config(path: &str, timeout: &str) -> String {
    format!("rebind: {{ backend: http, hook: {{ url: {path}, secret: s3cret, timeout: {timeout} }} }}")
}

async fn kill_around_the_hook(database: Database, times: usize) {
    let moments = [Moment::Claim, Moment::Asked, Moment::Answered];
    let rounds = moments.len() * times;
    let stage = Stage::start(database, rounds, &config(HOOK, PATIENT)).await;
    let body = format!(r#"{{"rows":{MOVED}}}"#);
    let length = body.len();
    stage.upstream.respond(HOOK, &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}"));
    let mut monitor = Monitor::new(&stage.database).await;
    monitor.install(&stage.database).await;
    for (round, moment) in moments.into_iter().cycle().take(rounds).enumerate() {
        kill_at(&stage, moment, round, &mut monitor).await;
        let Guest { name, device, .. } = &stage.guests[round];
        // Claims are by the guest; whatever was asked is still known to have been asked.
        let claim =
            monitor.ask(&format!("select pending_user from doorward_devices where pending_guest = '{name}'")).await;
        assert_eq!(claim, if moment == Moment::Claim { "" } else { ALICE }, "{moment:?}");
        assert_eq!(stage.events(round, "alias", &mut monitor).await, "0", "{moment:?}");
        // Every other time the user does not come back.
        if round % 2 == 0 && moment != Moment::Claim {
            let _doorward = stage.doorward(&config(HOOK, EAGER)).await;
            let left = "select count(*) from doorward_devices where pending_user is not null";
            eventually("the claim to be taken up", async || (monitor.ask(left).await == "0").then_some(())).await;
            continue;
        }
        let doorward = stage.doorward(&config(HOOK, PATIENT)).await;
        if moment != Moment::Claim {
            assert_refused(&rebind(&doorward, &stage.bob, device).await, 503, "Rebind could not be completed");
        }
        let answer = rebind(&doorward, &stage.alice, device).await;
        assert_moved(&answer, MOVED, name);
    }
    let doorward = stage.doorward(&config(HOOK, PATIENT)).await;
    for (round, Guest { name, device, .. }) in stage.guests.iter().enumerate() {
        assert_eq!(stage.events(round, "alias", &mut monitor).await, "1", "{device}");
        assert_no_op(&rebind(&doorward, &stage.alice, device).await);
        stage.guest_ends(&doorward, round, &mut monitor).await;
        let asked =
            stage.upstream.requests().into_iter().filter(|request| request.method == "POST" && request.complete);
        let bodies: Vec<Value> = asked.filter_map(|request| serde_json::from_slice(&request.body).ok()).collect();
        let keys: BTreeSet<String> = bodies
            .iter()
            .filter(|body| body["from"] == **name)
            .map(|body| body["idempotency_key"].to_string())
            .collect();
        assert_eq!(keys.len(), 1, "{device} was asked for under one key: {keys:?}");
    }
}

async fn kill_at(stage: &Stage, moment: Moment, round: usize, monitor: &mut Monitor) {
    let name = stage.guests[round].name.clone();
    let asked = async |path: &str| {
        let wanted = |request: &Recorded| {
            request.target == path && request.complete && String::from_utf8_lossy(&request.body).contains(&name)
        };
        stage.upstream.wait_for(wanted).await;
    };
    match moment {
        Moment::Claim => {
            let doorward = stage.doorward(&config(HOOK, PATIENT)).await;
            stage.kill_at(doorward, (Step::Record, ready(())), round, monitor).await;
        }
        Moment::Answered => {
            let doorward = stage.doorward(&config(HOOK, PATIENT)).await;
            stage.kill_at(doorward, (Step::Alias, asked(HOOK)), round, monitor).await;
        }
        Moment::Asked => {
            let doorward = stage.doorward(&config("/hang", PATIENT)).await;
            let asking = stage.ask(doorward.client(), round);
            tokio::pin!(asking);
            tokio::select! {
                answer = &mut asking => panic!("a hook that hangs was not waited for: {answer:?}"),
                () = asked("/hang") => {}
            }
            drop(doorward);
            assert!(asking.await.is_none(), "nobody is left to answer");
        }
    }
}
