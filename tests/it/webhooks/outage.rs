//! What cannot be done now is 503, so that the sender comes again; and who depends on what.

use serde_json::{Value, json};

use super::{DELETED, Database, RECEIVED, REVOKED, Site, deleted, new_id, session};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::surface::answers::{PATIENT, assert_answer, assert_refused, token_of};

const NOWHERE: &str = "postgres://unused@127.0.0.1:1/none";
const UNAVAILABLE: &str = "Session store unavailable";

fn ends() -> [(&'static str, Value); 4] {
    let left = json!({ "organization": { "id": "org_1" }, "public_user_data": { "user_id": "user_alice" } });
    let banned = json!({ "id": "user_alice", "banned": true, "updated_at": 1 });
    [
        ("session.ended", session("sess_1", "user_alice")),
        ("organizationMembership.deleted", left),
        ("user.updated", banned),
        ("user.deleted", deleted("user_alice")),
    ]
}

#[tokio::test]
async fn without_the_store_the_sender_is_asked_to_come_again_and_then_it_is_done() {
    for database in Database::both().await {
        let mut redis = Redis::options().append_only().start().await;
        let url = redis.url();
        let site = Site::start(database, |builder| builder.store(&url).config(PATIENT)).await;
        let token = site.sign_in(&json!({ "sub": "user_alice", "sid": "sess_1" })).await;
        let bystander = site.sign_in(&json!({ "sub": "user_bob" })).await;
        redis.kill();
        let ids: Vec<String> = ends().iter().map(|_| new_id()).collect();
        for ((kind, data), id) in ends().iter().zip(&ids) {
            assert_refused(&site.deliver_as(id, kind, data).await, 503, UNAVAILABLE);
            assert_eq!(site.counted(kind, "unavailable").await, 1);
        }
        assert_eq!(site.ask("select cast(count(*) as text) from doorward_receipts").await, "0");
        redis.restart().await;
        for ((kind, data), id) in ends().iter().zip(&ids) {
            eventually("the delivery to be taken", async || {
                let answer = site.deliver_as(id, kind, data).await;
                (answer.status != 503).then(|| assert_answer(&answer, 200, RECEIVED))
            })
            .await;
        }
        site.assert_ended(&token).await;
        site.assert_live(&bystander).await;
        site.assert_refused(&json!({ "sub": "user_alice" }), DELETED).await;
    }
}

#[tokio::test]
async fn without_the_directory_nothing_that_depends_on_it_is_answered() {
    let site = Site::start(Database::Sqlite, |builder| builder.database(NOWHERE)).await;
    for (kind, data) in ends() {
        assert_refused(&site.deliver(kind, &data).await, 503, UNAVAILABLE);
    }
    site.tell("email.created", &json!({})).await;
    // Whether a user was deleted cannot be known.
    assert_refused(&site.exchange(&json!({ "sub": "user_alice" })).await, 503, UNAVAILABLE);
    let metrics = site.doorward.admin_get("/metrics").await.text();
    assert!(metrics.contains("doorward_sessions_created_total{kind=\"user\",method=\"clerk\"} 0\n"), "{metrics}");
}

#[tokio::test]
async fn a_connection_to_the_database_that_is_cut_is_made_again() {
    let site = Site::start(Database::Postgres(Postgres::start().await), |builder| builder).await;
    let token = site.sign_in(&json!({ "sub": "user_alice", "sid": "sess_1" })).await;
    let Database::Postgres(postgres) = &site.database else { unreachable!("it was just started") };
    postgres.cut_connections();
    let id = new_id();
    eventually("the delivery to be taken", async || {
        let answer = site.deliver_as(&id, "session.ended", &session("sess_1", "user_alice")).await;
        assert!(answer.status == 200 || answer.status == 503, "{}", answer.text());
        (answer.status == 200).then_some(())
    })
    .await;
    site.assert_ended(&token).await;
    site.assert_refused(&json!({ "sub": "user_alice", "sid": "sess_1" }), REVOKED).await;
}

#[tokio::test]
async fn without_webhooks_signing_in_does_not_depend_on_the_directory_and_feeds_it() {
    let idp = Idp::start().await;
    let away = Doorward::builder().idp(&idp).database(NOWHERE).start().await;
    for _ in 0..100 {
        token_of(&away.client().post("/auth/session").bearer(&idp.mint_for("user_alice")).send().await);
    }
    for database in Database::both().await {
        let none = "webhooks: { clerk: null }";
        let site = Site::start(database, |builder| builder.config(none)).await;
        site.sign_in(&json!({ "sub": "user_alice", "o": { "id": "org_1", "rol": "admin" } })).await;
        let known = "select tenant || ' ' || roles from doorward_user_tenants where user_id = 'user_alice'";
        eventually("the sign-in to be noted", async || (site.ask(known).await == "org_1 org:admin").then_some(()))
            .await;
        assert_eq!(site.person("user_alice").await, "- -");
    }
}
