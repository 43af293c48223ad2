//! The directory on both databases.

use crate::support::client::{Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;

#[tokio::test]
async fn two_replicas_that_start_on_an_empty_postgresql_at_once_both_come_up() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let replica = || Doorward::builder().store(&redis.url()).database(&postgres.url()).start();
    let (one, two) = tokio::join!(replica(), replica());
    assert_ne!(sign_in_guest(&one, "a-device").await, sign_in_guest(&two, "a-device").await);
    assert_eq!(postgres.psql("select count(*), min(generation), min(guest_seen) from doorward_devices"), "1|0|1");
    assert_eq!(postgres.psql("select count(*) from doorward_devices where device like '%a-device%'"), "0");
}

#[tokio::test]
async fn guests_are_told_that_nobody_can_know_them_while_the_database_is_away() {
    let postgres = Postgres::start().await;
    let doorward = Doorward::builder().database("postgres://unused@127.0.0.1:1/none").start().await;
    let refused: Response =
        doorward.client().post("/auth/anonymous").json(&serde_json::json!({ "device_id": "a-device" })).send().await;
    assert_eq!((refused.status, refused.text().as_str()), (503, r#"{"detail":"Session store unavailable"}"#));
    assert_eq!(refused.header("retry-after"), Some("3"));
    assert_eq!(postgres.psql("select 1"), "1");
}
