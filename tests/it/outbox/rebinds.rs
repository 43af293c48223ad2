//! From a rebind to the sink: what the transaction wrote is delivered, and only if there is a sink.

use serde_json::json;

use super::database::Database;
use super::sink::{Answer, Sink};
use super::{delivered, delivering};
use crate::support::client::{sign_in, sign_in_guest};
use crate::support::doorward::{Builder, Doorward};
use crate::support::idp::Idp;

/// Signs the guests of `devices` in and makes all of them `user_alice`; returns the names they had.
async fn rebind(doorward: &Doorward, idp: &Idp, devices: &[&str]) -> Vec<String> {
    let alice = sign_in(doorward, idp, "user_alice").await;
    let mut guests = Vec::new();
    for device in devices {
        sign_in_guest(doorward, device).await;
        let body = json!({ "device_id": device });
        let answer = doorward.client().post("/auth/rebind").bearer(&alice).json(&body).send().await.json();
        assert_eq!(answer["rebound"], true, "{answer}");
        guests.push(format!("anon:{}", answer["anonymous_id"].as_str().expect("a UUID")));
    }
    guests
}

async fn reaches_the_sink(database: Database) {
    let (idp, sink) = (Idp::start().await, Sink::start().await);
    sink.plan([Answer::Status(500, String::new()), Answer::CloseRead]);
    // Nobody looks again within the test: a rebind wakes the delivery, or nothing does.
    let doorward = delivering(&database, &sink).idp(&idp).config("outbox: { poll_interval: 1h }").start().await;
    let guests = rebind(&doorward, &idp, &["phone", "tablet", "desktop"]).await;
    delivered(&database).await;
    let told: Vec<_> = sink.accepted().into_iter().map(|event| (event.person, event.alias)).collect();
    let expected: Vec<_> = guests.into_iter().map(|guest| ("user_alice".to_owned(), guest)).collect();
    assert_eq!(told, expected, "each once, in the order of the rebinds");
}

#[tokio::test]
async fn a_rebinds_alias_reaches_the_sink_at_once_on_sqlite() {
    reaches_the_sink(Database::sqlite()).await;
}

#[tokio::test]
async fn a_rebinds_alias_reaches_the_sink_at_once_on_postgresql() {
    reaches_the_sink(Database::postgres().await).await;
}

#[tokio::test]
async fn without_a_sink_a_rebind_leaves_nothing_behind() {
    let (database, idp) = (Database::sqlite(), Idp::start().await);
    let builder: Builder = Doorward::builder().database(&database.url()).idp(&idp);
    rebind(&builder.start().await, &idp, &["phone"]).await;
    assert_eq!(database.depth().await, 0);
}
