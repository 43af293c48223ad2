//! What must happen after a commit does, at least once and in order, whatever fails meanwhile.

mod cli;
mod crashes;
mod database;
mod failures;
mod guests;
mod posthog;
mod rebinds;
mod sink;

use std::collections::BTreeMap;

use self::database::Database;
use self::sink::Sink;
use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;

/// A sink may take as long as a loaded machine needs.
const PATIENT: &str = "outbox: { alias: { timeout: 20s }, lease: 30s }";

const BINARY: &str = env!("CARGO_BIN_EXE_doorward");

/// Returns a Doorward that delivers `database`'s aliases to `sink`, with short waits after failures.
///
/// Who counts deliveries by a sink that is slow on purpose adds [`PATIENT`].
fn delivering(database: &Database, sink: &Sink) -> Builder {
    Doorward::builder().database(&database.url()).config(&format!(
        "outbox: {{ alias: {{ url: '{}', api_key: phc_canary, timeout: 2s }}, poll_interval: 50ms, lease: 7s, \
         retry: {{ first: 10ms, max: 100ms }} }}",
        sink.url()
    ))
}

fn people(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("user_{number}")).collect()
}

/// Waits until nothing is left to deliver.
async fn delivered(database: &Database) {
    eventually("the outbox to be empty", async || (database.depth().await == 0).then_some(())).await;
}

/// Returns how often the sink has accepted each of `ids`.
fn times(sink: &Sink, ids: &[String]) -> Vec<usize> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    for event in sink.accepted() {
        *times.entry(event.uuid).or_default() += 1;
    }
    ids.iter().map(|id| times.get(id).copied().unwrap_or(0)).collect()
}

/// Checks that nobody's alias was accepted after a later one of theirs.
#[track_caller]
fn assert_in_order(sink: &Sink) {
    let mut last: BTreeMap<String, String> = BTreeMap::new();
    for event in sink.accepted() {
        let before = last.insert(event.person.clone(), event.alias.clone());
        assert!(before.is_none_or(|before| before <= event.alias), "{event:?} came too late");
    }
}

/// Returns the value of a series on the admin port, as it is written there.
async fn metric(doorward: &Doorward, series: &str) -> String {
    let text = doorward.admin_get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("doorward_{series} ")));
    value.unwrap_or_else(|| panic!("no series {series}")).to_owned()
}

/// Returns how many attempts to deliver an event of `kind` ended like this.
async fn attempts(doorward: &Doorward, kind: &str, outcome: &str) -> u64 {
    let series = format!("outbox_deliveries_total{{kind=\"{kind}\",outcome=\"{outcome}\"}}");
    metric(doorward, &series).await.parse().expect("a count")
}

/// Waits until this many events of `kind` are counted in `state`.
async fn counted(doorward: &Doorward, kind: &str, state: &str, count: u64) {
    let series = format!("outbox_depth{{kind=\"{kind}\",state=\"{state}\"}}");
    let what = format!("{series} to be {count}");
    eventually(&what, async || (metric(doorward, &series).await == count.to_string()).then_some(())).await;
}
