//! Status, headers and body of every answer.

use serde_json::json;

use super::{ALICE, BOB, SINK, Scene, assert_moved, assert_no_op, builder, rebind, sql};
use crate::support::client::{Response, sign_in, sign_in_guest};
use crate::support::database::Database;
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::surface::answers::{Caller, assert_answer, assert_refused, identity_of};

const NOTES: &str = "create table app.notes (id bigint, owner text not null); \
                     create table app.files (id bigint, owner varchar(255))";

/// Header fields and body of a request, status and text of its answer.
type Row<'a> = (&'a [(&'a str, &'a str)], &'a str, u16, &'a str);

const JSON: (&str, &str) = ("content-type", "application/json");
const REQUIRED: &str = "device_id and clerk_user_id required";

async fn scene(database: Database) -> Scene {
    Scene::start(database, NOTES, |database| sql(database, &[("notes", ""), ("files", "")])).await
}

#[tokio::test]
async fn what_a_guest_made_becomes_the_users_once() {
    for database in Database::both().await {
        let scene = scene(database).await;
        let (guest, name) = scene.guest("a-device").await;
        let other = "anon:00000000-0000-0000-0000-000000000000";
        for (id, owner) in [(1, name.as_str()), (2, &name), (3, other), (4, BOB)] {
            scene.database.app(&format!("insert into app.notes values ({id}, '{owner}')")).await;
        }
        scene.database.app(&format!("insert into app.files values (1, '{name}'), (2, null)")).await;
        let alice = scene.user(ALICE).await;

        assert_moved(&scene.rebind(&alice, "a-device").await, 3, &name);
        let notes = scene.database.app("select id, owner from app.notes order by id").await;
        assert_eq!(notes, format!("1|{ALICE}\n2|{ALICE}\n3|{other}\n4|{BOB}"));
        assert_eq!(scene.database.app("select id, owner from app.files order by id").await, format!("1|{ALICE}\n2|"));
        assert_eq!(scene.devices().await, format!("{ALICE}|1|0|-"));
        let alias = json!({ "distinct_id": ALICE, "alias": name }).to_string();
        assert_eq!(scene.events("alias").await, alias);
        assert_eq!(scene.events("revoke_guest").await, "", "its sessions were ended at once");

        // The guest is gone, and whoever comes next is somebody else.
        assert_refused(
            &scene.doorward.client().get("/").bearer(&guest).send().await,
            401,
            "Invalid token: session revoked",
        );
        assert_no_op(&scene.rebind(&alice, "a-device").await);
        let (_, next) = scene.guest("a-device").await;
        assert_ne!(next, name);

        // The device stays the user's: they may take its next guest too, and nobody else may.
        scene.database.app(&format!("insert into app.notes values (5, '{next}')")).await;
        let bob = scene.user(BOB).await;
        let refused = scene.rebind(&bob, "a-device").await;
        assert_refused(&refused, 409, "device a-device already rebound to a different user");
        assert_eq!(scene.devices().await, format!("{ALICE}|1|1|-"));
        assert_moved(&scene.rebind(&alice, "a-device").await, 1, &next);
        assert_eq!(scene.devices().await, format!("{ALICE}|2|0|-"));
        let moved = scene.database.app("select owner from app.notes where id = 5").await;
        assert_eq!(moved, ALICE);
        assert_eq!(scene.database.sql("select count(*) from doorward_outbox where kind = 'alias'").await, "2");
    }
}

#[tokio::test]
async fn without_a_backend_only_whose_the_device_is_is_recorded() {
    for database in Database::both().await {
        let scene = Scene::start(database, NOTES, |_| "{}".to_owned()).await;
        let (_, name) = scene.guest("a-device").await;
        scene.database.app(&format!("insert into app.notes values (1, '{name}')")).await;
        let alice = scene.user(ALICE).await;
        assert_moved(&scene.rebind(&alice, "a-device").await, 0, &name);
        assert_eq!(scene.database.app("select owner from app.notes").await, name);
        assert_eq!(scene.devices().await, format!("{ALICE}|1|0|-"));
    }
}

#[tokio::test]
async fn without_a_sink_no_alias_is_written() {
    let (database, idp) = (Database::sqlite(), Idp::start().await);
    let doorward = Doorward::builder().database(&database.url()).idp(&idp).start().await;
    sign_in_guest(&doorward, "a-device").await;
    let alice = sign_in(&doorward, &idp, ALICE).await;
    assert_eq!(rebind(&doorward, &alice, "a-device").await.json()["rebound"], true);
    assert_eq!(database.sql("select count(*) from doorward_outbox").await, "0");
}

#[tokio::test]
async fn a_device_without_a_guest_has_nothing_to_rebind() {
    for database in Database::both().await {
        let scene = scene(database).await;
        let alice = scene.user(ALICE).await;
        assert_no_op(&scene.rebind(&alice, "never seen").await);
        assert_eq!(scene.devices().await, "");
        // And nothing was recorded: another user's is still free.
        let (_, name) = scene.guest("never seen").await;
        assert_moved(&scene.rebind(&scene.user(BOB).await, "never seen").await, 0, &name);
    }
}

#[tokio::test]
async fn every_refusal_comes_in_the_contracts_order() {
    for database in Database::both().await {
        let scene = scene(database).await;
        let (guest, _) = scene.guest("a-device").await;
        let alice = format!("Bearer {}", scene.user(ALICE).await);
        let guest = format!("Bearer {guest}");
        let expired = format!("Bearer {}", scene.idp.mint(&json!({ "sub": ALICE, "exp": 1_000_000_000 })));
        let stranger = format!("Bearer {}", Idp::start().await.mint_for(ALICE));
        let auth = |value: &'static str| ("authorization", value);
        let (alice, guest) = (("authorization", alice.as_str()), ("authorization", guest.as_str()));
        let (expired, stranger) = (("authorization", expired.as_str()), ("authorization", stranger.as_str()));
        let anonymous = "Rebind requires an authenticated user token; got anonymous session";
        let large = format!(r#"{{"device_id":"{}"}}"#, "x".repeat(64 * 1024));
        let long = json!({ "device_id": "é".repeat(201) }).to_string();
        let rows: [Row<'_>; 24] = [
            (&[], "{", 401, "Missing Bearer token"),
            (&[auth("Basic eA==")], "{", 401, "Missing Bearer token"),
            (&[auth("Bearer a b")], "{", 401, "Invalid token: malformed"),
            (&[auth("Bearer garbage")], "{", 401, "Invalid token: malformed"),
            (&[auth("Bearer x.y.z")], "{", 401, "Invalid token: malformed"),
            (&[expired], "{", 401, "Token expired"),
            (&[stranger], "{", 401, "Invalid token: signature verification failed"),
            (&[guest], "{", 401, anonymous),
            (&[guest, JSON], r#"{"device_id":"a-device"}"#, 401, anonymous),
            (&[alice, JSON], "{", 422, "Invalid JSON body"),
            (&[alice, JSON], r#"{"device_id":"a","device_id":"b"}"#, 422, "Invalid JSON body"),
            (&[alice], "{}", 415, "Unsupported media type"),
            (&[alice, JSON], &large, 413, "Request body too large"),
            (&[alice], "", 422, REQUIRED),
            (&[alice, JSON], "{}", 422, REQUIRED),
            (&[alice, JSON], r#"{"device_id":null}"#, 422, REQUIRED),
            (&[alice, JSON], r#"{"device_id":"  "}"#, 422, REQUIRED),
            (&[alice, JSON], r#"{"clerk_user_id":"user_alice"}"#, 422, REQUIRED),
            (&[alice, JSON], r#"{"device_id":7}"#, 422, "device_id must be a string"),
            (&[alice, JSON], &long, 422, "device_id must be 1-200 characters"),
            (&[alice, JSON, ("idempotency-key", "a b")], "{}", 422, REQUIRED),
            (
                &[alice, JSON, ("idempotency-key", "a b")],
                r#"{"device_id":"a-device"}"#,
                422,
                "Idempotency-Key must be 1-255 visible ASCII characters",
            ),
            (
                &[alice, JSON, ("idempotency-key", "a"), ("idempotency-key", "a")],
                r#"{"device_id":"a-device"}"#,
                422,
                "Idempotency-Key must be 1-255 visible ASCII characters",
            ),
            (
                &[alice, JSON, ("idempotency-key", "")],
                r#"{"device_id":"a-device"}"#,
                422,
                "Idempotency-Key must be 1-255 visible ASCII characters",
            ),
        ];
        for caller in Caller::both(&scene.doorward).await {
            for (headers, body, status, text) in rows {
                let answer = caller.send("POST", "/auth/rebind", headers, body).await;
                assert_refused(&answer, status, text);
            }
            let answer = caller.send("GET", "/auth/rebind", &[alice], "").await;
            assert_eq!((answer.status, answer.header("allow")), (405, Some("POST")));
        }
        assert_eq!(scene.devices().await, "-|0|1|-", "none of them changed anything");
    }
}

#[tokio::test]
async fn the_user_is_the_tokens_whatever_the_body_says() {
    for database in Database::both().await {
        let scene = scene(database).await;
        let (_, name) = scene.guest("a \"device\" é").await;
        let body = json!({ "device_id": "a \"device\" é", "clerk_user_id": BOB });
        let jwt = scene.idp.mint_for(ALICE);
        let answer = scene.doorward.client().post("/auth/rebind").bearer(&jwt).json(&body).send().await;
        assert_moved(&answer, 0, &name);
        assert_eq!(scene.devices().await, format!("{ALICE}|1|0|-"));
        let refused = scene.rebind(&scene.user(BOB).await, "a \"device\" é").await;
        let text = r#"device a \"device\" é already rebound to a different user"#;
        assert_refused(&refused, 409, text);
        assert!(!scene.doorward.logs().contains("device\\\" é"), "a device id is a secret");
    }
}

#[tokio::test]
async fn without_keys_or_store_nobody_can_say() {
    let idp = Idp::start().await;
    idp.fail();
    let doorward = Doorward::builder().idp(&idp).spawn();
    let jwt = idp.mint_for(ALICE);
    let answer = crate::support::eventually("an answer", async || {
        let body = json!({ "device_id": "a-device" });
        doorward.client().post("/auth/rebind").bearer(&jwt).json(&body).try_send().await.ok()
    })
    .await;
    assert_refused(&answer, 503, "JWKS not loaded");
}

#[tokio::test]
async fn while_the_database_is_away_no_rebind_is_completed() {
    let idp = Idp::start().await;
    let doorward =
        Doorward::builder().idp(&idp).database("postgres://unused@127.0.0.1:1/none").config(SINK).start().await;
    let alice = sign_in(&doorward, &idp, ALICE).await;
    for _ in 0..2 {
        assert_refused(&rebind(&doorward, &alice, "a-device").await, 503, "Rebind could not be completed");
    }
}

#[tokio::test]
async fn an_idempotency_key_repeats_the_first_answer_to_its_user_and_device() {
    for database in Database::both().await {
        let scene = scene(database).await;
        let (_, name) = scene.guest("a-device").await;
        scene.guest("another").await;
        scene.database.app(&format!("insert into app.notes values (1, '{name}')")).await;
        let (alice, bob) = (scene.user(ALICE).await, scene.user(BOB).await);
        let longest = "~".repeat(255);
        let ask = async |token: &str, device: &str, key: &str| -> Response {
            let body = json!({ "device_id": device });
            let request = scene.doorward.client().post("/auth/rebind").bearer(token).json(&body);
            request.header("idempotency-key", key).send().await
        };
        assert_moved(&ask(&alice, "a-device", &longest).await, 1, &name);
        for _ in 0..3 {
            assert_moved(&ask(&alice, "a-device", &longest).await, 1, &name);
        }
        // Another key, another user and another device have answers of their own; so has no key.
        assert_no_op(&ask(&alice, "a-device", "other").await);
        assert_no_op(&scene.rebind(&alice, "a-device").await);
        let refused = ask(&bob, "a-device", &longest).await;
        assert_refused(&refused, 409, "device a-device already rebound to a different user");
        assert_eq!(ask(&alice, "another", &longest).await.json()["rebound"], true);
        // A repeated no-op stays one, although there is a new guest.
        let (_, next) = scene.guest("a-device").await;
        assert_no_op(&ask(&alice, "a-device", "other").await);
        // What has run out is forgotten: the key is new again.
        scene.database.sql("update doorward_receipts set until = 1").await;
        assert_moved(&ask(&alice, "a-device", &longest).await, 0, &next);
        assert_moved(&ask(&alice, "a-device", &longest).await, 0, &next);
        let day = 24 * 60 * 60 * 1000;
        let kept = scene.database.sql("select max(until - rebound_at) from doorward_receipts, doorward_devices").await;
        assert!(kept.parse::<i64>().expect("a number") >= day, "{kept}");
    }
}

#[tokio::test]
async fn two_keys_of_the_answer_may_have_other_names() {
    let config = "rebind: { fields: { rows_updated: moved, anonymous_id: was } }";
    let scene = Scene::start(Database::sqlite(), NOTES, |_| config.to_owned()).await;
    let (_, name) = scene.guest("a-device").await;
    let alice = scene.user(ALICE).await;
    let uuid = name.trim_start_matches("anon:");
    let moved = format!(r#"{{"rebound":true,"moved":0,"was":"{uuid}"}}"#);
    assert_answer(&scene.rebind(&alice, "a-device").await, 200, &moved);
    assert_answer(&scene.rebind(&alice, "a-device").await, 200, r#"{"rebound":false,"moved":0,"was":null}"#);
}

#[tokio::test]
async fn rebinds_are_counted_and_audited() {
    let scene = scene(Database::sqlite()).await;
    let metrics = async || scene.doorward.admin_get("/metrics").await.text();
    for outcome in ["moved", "no_op", "replayed", "other_user", "refused", "failed"] {
        let series = format!("doorward_rebinds_total{{outcome=\"{outcome}\"}} 0");
        assert!(metrics().await.contains(&series), "{series}");
    }
    let (_, name) = scene.guest("a-device").await;
    scene.database.app(&format!("insert into app.notes values (1, '{name}'), (2, '{name}')")).await;
    let alice = scene.user(ALICE).await;
    scene.rebind(&alice, "a-device").await;
    scene.rebind(&alice, "a-device").await;
    scene.rebind(&scene.user(BOB).await, "a-device").await;
    let text = metrics().await;
    for series in [
        "doorward_rebinds_total{outcome=\"moved\"} 1",
        "doorward_rebinds_total{outcome=\"no_op\"} 1",
        "doorward_rebinds_total{outcome=\"other_user\"} 1",
        "doorward_rebound_rows_total 2",
    ] {
        assert!(text.contains(series), "{series}");
    }
    let audited = scene.doorward.logs();
    let line = audited.lines().find(|line| line.contains("guest-rebound")).expect("an audit line");
    let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
    assert_eq!((&line["user.id"], &line["guest.id"], &line["rows"]), (&json!(ALICE), &json!(name), &json!(2)));
}

#[tokio::test]
async fn a_users_organisation_does_not_change_whose_guest_it_was() {
    for database in Database::both().await {
        let tables = "create table app.notes (id bigint, owner text, tenant text)";
        let scene =
            Scene::start(database, tables, |database| sql(database, &[("notes", ", tenant_column: tenant")])).await;
        let (_, name) = scene.guest("a-device").await;
        scene
            .database
            .app(&format!("insert into app.notes values (1, '{name}', 'default'), (2, '{name}', 'elsewhere')"))
            .await;
        let jwt = scene.idp.mint(&json!({ "sub": ALICE, "o": { "id": "org_1", "rol": "member" } }));
        assert_moved(&scene.rebind(&jwt, "a-device").await, 1, &name);
        let notes = scene.database.app("select id, owner, tenant from app.notes order by id").await;
        assert_eq!(notes, format!("1|{ALICE}|org_1\n2|{name}|elsewhere"));
        // The same user, seen from another tenant, is the same user.
        assert_no_op(&scene.rebind(&scene.user(ALICE).await, "a-device").await);
    }
}

#[tokio::test]
async fn a_second_replica_refuses_the_guest_too() {
    let redis = crate::support::redis::Redis::start().await;
    let (database, idp) = (Database::postgres().await, Idp::start().await);
    let upstream = crate::support::upstream::Upstream::start().await;
    let replica = || builder(&database, &idp).store(&redis.url()).upstream(upstream.url()).start();
    let (one, two) = tokio::join!(replica(), replica());
    let guest = sign_in_guest(&one, "a-device").await;
    let (name, _) = identity_of(&two, &upstream, &guest).await;
    let alice = sign_in(&one, &idp, ALICE).await;
    assert_moved(&rebind(&two, &alice, "a-device").await, 0, &name);
    for replica in [&one, &two] {
        crate::support::eventually("the guest to be refused", async || {
            let answer = replica.client().get("/").bearer(&guest).send().await;
            (answer.status == 401).then_some(())
        })
        .await;
    }
    assert_no_op(&rebind(&one, &alice, "a-device").await);
}
