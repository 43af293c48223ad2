//! SIGKILL at each step of a delivery: nothing is lost, and everybody's order holds.

use super::database::Database;
use super::sink::{Sink, Step};
use super::{assert_in_order, delivered, delivering, people, times};
use crate::support::doorward::Builder;
use crate::support::eventually;

/// Where the process is killed.
#[derive(Clone, Copy, Debug)]
enum Death {
    /// While it leases, which PostgreSQL can be asked about.
    Leasing,
    /// With the sink at this step; once answered, before the events can be deleted.
    At(Step),
}

const ANYWHERE: [Death; 4] =
    [Death::At(Step::Connected), Death::At(Step::Received), Death::At(Step::Accepted), Death::At(Step::Answered)];

/// Leases that end soon, so that what a killed process had leased is delivered in the next rounds.
fn short_lived(database: &Database, sink: &Sink) -> Builder {
    delivering(database, sink)
        .config("directory: { timeout: 1s }\noutbox: { alias: { timeout: 1s }, lease: 3100ms, batch: 4 }")
}

async fn waits_for_a_lock(database: &Database) {
    let waiting = "select count(*) from pg_locks join pg_database on pg_database.oid = database \
                   where datname = current_database() and not granted";
    eventually("a statement to wait", async || (database.number(waiting).await > 0).then_some(())).await;
}

async fn survives(database: Database, deaths: &[Death], rounds: usize) {
    let sink = Sink::start().await;
    let mut ids = Vec::new();
    for round in 0..rounds {
        for (number, death) in deaths.iter().enumerate() {
            let persons: Vec<String> = people(3).iter().map(|person| format!("{person}_{round}_{number}")).collect();
            ids.extend(database.add_aliases(&persons, 2).await);
            dies(&database, &sink, *death).await;
        }
    }
    sink.hold(None);
    let _doorward = short_lived(&database, &sink).start().await;
    delivered(&database).await;
    let lost = ids.iter().zip(times(&sink, &ids)).filter(|(_, times)| *times == 0).count();
    assert_eq!((lost, ids.len()), (0, deaths.len() * rounds * 6));
    assert_in_order(&sink);
}

/// Starts a process and kills it where `death` says.
async fn dies(database: &Database, sink: &Sink, death: Death) {
    match death {
        Death::Leasing => {
            let _lock = database.lock().await;
            let doorward = short_lived(database, sink).spawn();
            waits_for_a_lock(database).await;
            // SIGKILL.
            drop(doorward);
        }
        Death::At(Step::Answered) => {
            sink.hold(Some(Step::Accepted));
            let doorward = short_lived(database, sink).spawn();
            sink.held().await;
            let _lock = database.lock().await;
            sink.hold(Some(Step::Answered));
            sink.release_held();
            sink.held().await;
            if matches!(database, Database::Postgres(_)) {
                waits_for_a_lock(database).await;
            }
            drop(doorward);
        }
        Death::At(step) => {
            sink.hold(Some(step));
            let doorward = short_lived(database, sink).spawn();
            sink.held().await;
            drop(doorward);
        }
    }
}

#[tokio::test]
async fn no_alias_is_lost_when_the_process_is_killed_52_times_on_sqlite() {
    survives(Database::sqlite(), &ANYWHERE, 13).await;
}

#[tokio::test]
async fn no_alias_is_lost_when_the_process_is_killed_55_times_on_postgresql() {
    let deaths = [&[Death::Leasing], &ANYWHERE[..]].concat();
    survives(Database::postgres().await, &deaths, 11).await;
}
