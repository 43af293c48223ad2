//! The application's tables against the catalogue, and what happens when the database fails.

use serde_json::json;

use super::{ALICE, Scene, assert_moved, builder, rebind, sql};
use crate::support::chaos::Chaos;
use crate::support::client::{sign_in, sign_in_guest};
use crate::support::database::Database;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::postgres::Postgres;
use crate::surface::answers::assert_refused;

const FAILED: &str = "Rebind could not be completed";

/// Starts Doorward with `tables` configured and returns why it did not come up.
async fn refusal(database: &str, tables: &str) -> String {
    let idp = Idp::start().await;
    let config = format!("rebind: {{ backend: sql, tables: [{tables}] }}");
    let mut doorward = Doorward::builder().database(database).idp(&idp).config(&config).spawn();
    let status = doorward.wait_exit().await;
    assert_eq!(status.code(), Some(1), "{}", doorward.logs());
    doorward.logs()
}

#[tokio::test]
async fn every_table_that_cannot_be_re_owned_is_named_before_anything_is_served() {
    let postgres = Database::postgres().await;
    postgres
        .create(
            "create table app.good (owner text); create table app.numbers (owner bigint, tenant uuid); \
             create table app.short (owner varchar(40)); create view app.looked as select 1 as owner; \
             create table app.made (owner text generated always as ('x') stored); \
             create view app.plain as select * from app.good; create sequence app.counted; \
             create materialized view app.kept as select * from app.good",
        )
        .await;
    let tables = "{ table: app.good, column: owner }, { table: app.absent, column: owner }, \
                  { table: elsewhere.good, column: owner }, { table: app.good, column: Owner }, \
                  { table: app.numbers, column: owner, tenant_column: tenant }, { table: app.short, column: owner }, \
                  { table: app.looked, column: owner }, { table: app.made, column: owner }, \
                  { table: app.plain, column: owner, on_conflict: keep_user }, { table: app.plain, column: owner }, \
                  { table: app.counted, column: owner }, { table: app.kept, column: owner }";
    // The same table and column twice is a mistake of its own, found before the database is asked.
    let twice = refusal_code(&postgres.url(), tables).await;
    assert_eq!(twice.0, Some(64));
    assert!(twice.1.contains("rebind.tables[9]: names the table and column of an earlier one"), "{}", twice.1);
    let told = refusal(&postgres.url(), &tables.replace("{ table: app.plain, column: owner }, ", "")).await;
    for expected in [
        "rebind.tables[1]: app.absent does not exist",
        "rebind.tables[2]: elsewhere.good does not exist",
        "rebind.tables[3]: app.good has no column \"Owner\"",
        "rebind.tables[4]: app.numbers has a column \"owner\" that is not of a type for text",
        "rebind.tables[4]: app.numbers has a column \"tenant\" that is not of a type for text",
        "rebind.tables[5]: app.short has a column \"owner\" too short for a guest",
        "rebind.tables[6]: app.looked is a view that cannot be updated",
        "rebind.tables[7]: app.made has a column \"owner\" that cannot be updated",
        "rebind.tables[8]: app.plain is a view, which has no unique indexes",
        "rebind.tables[9]: app.counted is no table",
        "rebind.tables[10]: app.kept is no table",
    ] {
        assert!(told.contains(&expected.replace('"', "\\\"")) || told.contains(expected), "{expected} in {told}");
    }
    assert!(!told.contains("tables[0]"), "{told}");
}

async fn refusal_code(database: &str, tables: &str) -> (Option<i32>, String) {
    let config = format!("rebind: {{ backend: sql, tables: [{tables}] }}");
    let mut doorward = Doorward::builder().database(database).config(&config).spawn();
    (doorward.wait_exit().await.code(), doorward.logs())
}

#[tokio::test]
async fn a_file_names_its_bad_tables_too() {
    let database = Database::sqlite();
    database
        .create(
            "create table good (owner text, bare); create table numbers (owner integer); \
             create view looked as select owner from good; \
             create table made (name text, owner text generated always as (name) stored)",
        )
        .await;
    let told = refusal(
        &database.url(),
        "{ table: good, column: owner }, { table: main.good, column: bare }, { table: absent, column: owner }, \
         { table: good, column: nobody }, { table: numbers, column: owner }, { table: looked, column: owner }, \
         { table: made, column: owner }, { table: good, column: owner, tenant_column: nowhere }"
            .replace("{ table: good, column: owner, tenant", "{ table: main.good, column: owner, tenant")
            .as_str(),
    )
    .await;
    for expected in [
        "rebind.tables[2]: absent does not exist",
        "rebind.tables[3]: good has no column \"nobody\"",
        "rebind.tables[4]: numbers has a column \"owner\" that is not of a type for text",
        "rebind.tables[5]: looked is no table",
        "rebind.tables[6]: made has a column \"owner\" that cannot be updated",
        "rebind.tables[7]: main.good has no column \"nowhere\"",
    ] {
        assert!(told.contains(&expected.replace('"', "\\\"")) || told.contains(expected), "{expected} in {told}");
    }
    assert!(!told.contains("tables[0]") && !told.contains("tables[1]"), "{told}");
}

#[tokio::test]
async fn what_the_database_user_may_not_do_is_named() {
    let postgres = Postgres::start().await;
    let database = Database::Postgres(postgres);
    let role = format!("limited_{}", uuid::Uuid::new_v4().simple());
    database
        .create(
            "create table app.readable (owner text); create table app.writable (owner text, name text unique); \
             create table app.kept (owner text, name text, unique (owner, name)); create table app.rows (owner text); \
             alter table app.rows enable row level security; create schema closed; create table closed.notes (owner text)",
        )
        .await;
    database
        .sql(&format!(
            "create role {role} login; grant create on schema public to {role}; grant usage on schema app to {role}; \
             grant select on app.readable to {role}; grant select (owner), update (owner) on app.writable to {role}; \
             grant select (owner), update on app.kept to {role}; grant select, update on app.rows to {role}; \
             grant select, update on closed.notes to {role}"
        ))
        .await;
    let url = database.url().replace("doorward@", &format!("{role}@"));
    let told = refusal(
        &url,
        "{ table: app.readable, column: owner }, { table: app.writable, column: owner }, \
         { table: app.kept, column: owner, on_conflict: keep_guest }, { table: app.rows, column: owner }, \
         { table: closed.notes, column: owner }",
    )
    .await;
    for expected in [
        "rebind.tables[0]: app.readable has a column \"owner\" that this database user may not update",
        "rebind.tables[2]: app.kept may not be deleted from by this database user",
        "rebind.tables[2]: app.kept has a column \"name\" in a unique index that this database user may not read",
        "rebind.tables[3]: app.rows has row security",
        "rebind.tables[4]: closed.notes is in a schema that this database user may not use",
    ] {
        assert!(told.contains(&expected.replace('"', "\\\"")) || told.contains(expected), "{expected} in {told}");
    }
    assert!(!told.contains("tables[1]"), "{told}");
    database.sql(&format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_partitioned_table_and_an_updatable_view_are_re_owned_like_any_other() {
    let tables = "create table app.notes (id bigint, owner text) partition by range (id); \
                  create table app.notes_low partition of app.notes for values from (0) to (100); \
                  create table app.\"Odd \"\"name\" (\"The Owner\" varchar(41)); \
                  create table app.base (owner text); create view app.seen as select * from app.base";
    let scene = Scene::start(Database::postgres().await, tables, |_| {
        "rebind: { backend: sql, tables: [{ table: app.notes, column: owner }, { table: app.seen, column: owner }, \
         { table: 'app.Odd \"name', column: The Owner }] }"
            .to_owned()
    })
    .await;
    let (_, guest) = scene.guest("a-device").await;
    scene.database.sql(&format!("insert into app.notes values (1, '{guest}'), (2, '{guest}')")).await;
    scene.database.sql(&format!("insert into app.base values ('{guest}')")).await;
    scene.database.sql(&format!("insert into app.\"Odd \"\"name\" values ('{guest}')")).await;
    assert_moved(&scene.rebind(&scene.user(ALICE).await, "a-device").await, 4, &guest);
}

#[tokio::test]
async fn a_table_that_changed_fails_the_rebind_and_not_the_next_one() {
    for database in Database::both().await {
        let tables = "create table app.notes (owner text); create table app.files (owner text)";
        let scene = Scene::start(database, tables, |database| sql(database, &[("notes", ""), ("files", "")])).await;
        let (_, guest) = scene.guest("a-device").await;
        scene.database.app(&format!("insert into app.notes values ('{guest}')")).await;
        scene.database.app("alter table app.files rename column owner to keeper").await;
        let alice = scene.user(ALICE).await;
        for _ in 0..2 {
            assert_refused(&scene.rebind(&alice, "a-device").await, 503, FAILED);
            assert_eq!(scene.database.app("select owner from app.notes").await, guest);
            assert_eq!(scene.devices().await, "-|0|1|-");
        }
        assert!(scene.doorward.logs().contains("files has no column"), "the log says why");
        scene.database.app("alter table app.files rename column keeper to owner").await;
        assert_moved(&scene.rebind(&alice, "a-device").await, 1, &guest);
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_in_the_middle_changes_nothing() {
    let database = Database::postgres().await;
    let tables = "create table app.notes (owner text); create table app.files (owner text)";
    let scene = Scene::start(database, tables, |database| sql(database, &[("notes", ""), ("files", "")])).await;
    let (token, guest) = scene.guest("a-device").await;
    for table in ["notes", "files"] {
        scene.database.sql(&format!("insert into app.{table} values ('{guest}')")).await;
    }
    let alice = scene.user(ALICE).await;
    for _ in 0..3 {
        let mut holder = scene.database.session().await;
        holder.run("begin; lock table app.files in access exclusive mode").await.expect("nobody else has it");
        let (answer, ()) = tokio::join!(scene.rebind(&alice, "a-device"), async {
            eventually("the rebind to wait", async || (waiting(&scene.database).await == "1").then_some(())).await;
            scene
                .database
                .sql(
                    "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'doorward' \
                     and datname = current_database() and wait_event_type = 'Lock'",
                )
                .await;
        });
        assert_refused(&answer, 503, FAILED);
        holder.run("rollback").await.expect("it was begun");
        for table in ["notes", "files"] {
            assert_eq!(scene.database.sql(&format!("select owner from app.{table}")).await, guest);
        }
        assert_eq!(scene.devices().await, "-|0|1|-");
        assert_eq!(scene.database.sql("select count(*) from doorward_outbox").await, "0");
        assert_eq!(scene.doorward.client().get("/").bearer(&token).send().await.status, 200, "still a guest");
    }
    assert_moved(&scene.rebind(&alice, "a-device").await, 2, &guest);
}

async fn waiting(database: &Database) -> String {
    database
        .sql(
            "select count(*) from pg_stat_activity where application_name = 'doorward' \
             and datname = current_database() and wait_event_type = 'Lock'",
        )
        .await
}

#[tokio::test]
async fn a_rebind_that_takes_too_long_is_given_up_by_the_database_too() {
    let tables = "create table app.notes (owner text)";
    let scene = Scene::start(Database::postgres().await, tables, |database| {
        sql(database, &[("notes", "")]).replace("backend: sql,", "backend: sql, timeout: 200ms,")
    })
    .await;
    let (_, guest) = scene.guest("a-device").await;
    scene.database.sql(&format!("insert into app.notes values ('{guest}')")).await;
    let alice = scene.user(ALICE).await;
    let mut holder = scene.database.session().await;
    holder.run("begin; lock table app.notes in access exclusive mode").await.expect("nobody else has it");
    assert_refused(&scene.rebind(&alice, "a-device").await, 503, FAILED);
    // While the table is still locked: nothing of ours waits for it.
    eventually("nothing to wait", async || (waiting(&scene.database).await == "0").then_some(())).await;
    holder.run("rollback").await.expect("it was begun");
    assert_eq!(scene.database.sql("select owner from app.notes").await, guest);
    assert_eq!(scene.devices().await, "-|0|1|-");
}

#[tokio::test]
async fn a_database_that_comes_later_is_looked_at_when_it_comes() {
    let (postgres, idp) = (Postgres::start().await, Idp::start().await);
    let chaos = Chaos::to(postgres.port()).await;
    chaos.cut();
    let database = Database::Postgres(postgres);
    let url = database.url();
    let (_, name) = url.rsplit_once('/').expect("a database");
    let through = format!("postgres://doorward@127.0.0.1:{}/{name}", chaos.port());
    let config = sql(&database, &[("notes", "")]);
    let doorward = builder(&database, &idp).database(&through).config(&config).start().await;
    let alice = sign_in(&doorward, &idp, ALICE).await;
    assert_refused(&rebind(&doorward, &alice, "a-device").await, 503, FAILED);
    chaos.restore();
    // The table is not there yet: that is said, and still nobody's rebind is half done.
    doorward.wait_log("rebind.tables[0]: app.notes does not exist").await;
    let guest = eventually("a guest", async || {
        let body = json!({ "device_id": "a-device" });
        let answer = doorward.client().post("/auth/anonymous").json(&body).send().await;
        (answer.status == 200).then_some(())
    });
    guest.await;
    assert_refused(&rebind(&doorward, &alice, "a-device").await, 503, FAILED);
    database.create("create table app.notes (owner text)").await;
    let answer = rebind(&doorward, &alice, "a-device").await;
    assert_eq!((answer.status, &answer.json()["rebound"]), (200, &json!(true)), "{}", answer.text());
    sign_in_guest(&doorward, "a-device").await;
}
