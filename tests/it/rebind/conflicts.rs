//! What happens when guest and user both have a row that a unique index allows once.

use super::{ALICE, Scene, assert_moved, sql};
use crate::support::database::Database;
use crate::surface::answers::assert_refused;

/// A table of settings: one a user and name; of every policy one, and beside them what must not matter.
const TABLES: &str = "\
    create table app.strict (owner text, name text, value text, unique (owner, name)); \
    create table app.theirs (owner text, name text, value text, unique (owner, name)); \
    create table app.mine (owner text, name text, value text, unique (owner, name)); \
    create table app.single (owner text primary key, value text); \
    create table app.tenants (owner text, tenant text, name text, value text, unique (tenant, owner, name))";

const CONFIG: [(&str, &str); 5] = [
    ("strict", ""),
    ("theirs", ", on_conflict: keep_user"),
    ("mine", ", on_conflict: keep_guest"),
    ("single", ", on_conflict: keep_user"),
    ("tenants", ", tenant_column: tenant, on_conflict: keep_guest"),
];

async fn scene(database: Database) -> (Scene, String) {
    let scene = Scene::start(database, TABLES, |database| sql(database, &CONFIG)).await;
    let (_, name) = scene.guest("a-device").await;
    (scene, name)
}

#[tokio::test]
async fn one_of_two_rows_is_kept_as_configured_and_nulls_never_meet() {
    for database in Database::both().await {
        let (scene, guest) = scene(database).await;
        let bob = "user_bob";
        for table in ["theirs", "mine"] {
            scene
                .database
                .app(&format!(
                    "insert into app.{table} values ('{guest}', 'both', 'g'), ('{ALICE}', 'both', 'u'), \
                     ('{guest}', 'guest', 'g'), ('{ALICE}', 'user', 'u'), ('{bob}', 'both', 'b'), \
                     ('{guest}', null, 'g'), ('{ALICE}', null, 'u')"
                ))
                .await;
        }
        scene.database.app(&format!("insert into app.single values ('{guest}', 'g'), ('{ALICE}', 'u')")).await;
        scene
            .database
            .app(&format!(
                "insert into app.tenants values ('{guest}', 'default', 'x', 'g'), ('{ALICE}', 'default', 'x', 'u'), \
                 ('{guest}', 'other', 'x', 'g'), ('{ALICE}', 'other', 'x', 'u')"
            ))
            .await;
        let answer = scene.rebind(&scene.user(ALICE).await, "a-device").await;
        // theirs: guest and null; mine: both, guest and null; single: none; tenants: one.
        assert_moved(&answer, 2 + 3 + 1, &guest);
        let rows = async |table: &str, columns: &str| {
            let sql = format!("select {columns} from app.{table} order by {columns}");
            let text = scene.database.app(&sql).await;
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let alices = |rows: &[&str]| -> Vec<String> {
            let mut lines: Vec<String> = rows.iter().map(|row| format!("{ALICE}|{row}")).collect();
            lines.push(format!("{bob}|both|b"));
            lines
        };
        let columns = "owner, name, value";
        assert_eq!(rows("theirs", columns).await, alices(&["both|u", "guest|g", "user|u", "|g", "|u"]));
        assert_eq!(rows("mine", columns).await, alices(&["both|g", "guest|g", "user|u", "|g", "|u"]));
        assert_eq!(rows("single", "owner, value").await, [format!("{ALICE}|u")]);
        let expected = [format!("{guest}|other|x|g"), format!("{ALICE}|default|x|g"), format!("{ALICE}|other|x|u")];
        assert_eq!(rows("tenants", "owner, tenant, name, value").await, expected);
    }
}

#[tokio::test]
async fn a_conflict_that_must_fail_leaves_everything_as_it_was() {
    for database in Database::both().await {
        let (scene, guest) = scene(database).await;
        scene.database.app(&format!("insert into app.mine values ('{guest}', 'a', 'g'), ('{ALICE}', 'a', 'u')")).await;
        scene
            .database
            .app(&format!("insert into app.strict values ('{guest}', 'a', 'g'), ('{ALICE}', 'a', 'u')"))
            .await;
        let alice = scene.user(ALICE).await;
        assert_refused(&scene.rebind(&alice, "a-device").await, 503, "Rebind could not be completed");
        for table in ["mine", "strict"] {
            let rows = scene.database.app(&format!("select owner, value from app.{table} order by value")).await;
            assert_eq!(rows, format!("{guest}|g\n{ALICE}|u"), "{table}");
        }
        assert_eq!(scene.devices().await, "-|0|1|-");
        assert_eq!(scene.database.sql("select count(*) from doorward_outbox").await, "0");
        // The guest is still one, and the next try succeeds once nothing is in the way.
        scene.database.app(&format!("delete from app.strict where owner = '{ALICE}'")).await;
        assert_moved(&scene.rebind(&alice, "a-device").await, 2, &guest);
    }
}

#[tokio::test]
async fn indexes_over_some_rows_or_over_expressions_are_left_to_fail() {
    for database in Database::both().await {
        let tables = "create table app.some (owner text, name text, live bigint); \
                      create unique index some_live on app.some (owner, name) where live = 1; \
                      create table app.folded (owner text, name text); \
                      create unique index folded_name on app.folded (owner, lower(name))";
        // SQLite puts the schema before the index, and there is none to put.
        let scene = Scene::start(database, tables, |database| {
            sql(database, &[("some", ", on_conflict: keep_user"), ("folded", ", on_conflict: keep_guest")])
        })
        .await;
        let (_, guest) = scene.guest("a-device").await;
        let alice = scene.user(ALICE).await;
        let refused = async |insert: String, clear: &str| {
            scene.database.app(&insert).await;
            assert_refused(&scene.rebind(&alice, "a-device").await, 503, "Rebind could not be completed");
            assert_eq!(scene.devices().await, "-|0|1|-");
            scene.database.app(clear).await;
        };
        let some = format!("insert into app.some values ('{guest}', 'a', 1), ('{ALICE}', 'a', 1)");
        refused(some, "delete from app.some").await;
        let folded = format!("insert into app.folded values ('{guest}', 'A'), ('{ALICE}', 'a')");
        refused(folded, "delete from app.folded").await;
        // Rows outside of the partial index do not meet, and none of them is deleted.
        scene
            .database
            .app(&format!("insert into app.some values ('{guest}', 'a', 0), ('{ALICE}', 'a', 1), ('{ALICE}', 'a', 0)"))
            .await;
        assert_moved(&scene.rebind(&alice, "a-device").await, 1, &guest);
        assert_eq!(scene.database.app("select count(*) from app.some").await, "3");
    }
}

#[tokio::test]
async fn an_index_that_folds_letters_or_equates_nulls_is_obeyed() {
    let tables = "create table app.notes (owner text, name text collate nocase); \
                  create unique index notes_name on app.notes (owner, name)";
    let twins = ("'Same'", "'same'");
    let config = |database: &Database| sql(database, &[("notes", ", on_conflict: keep_user")]);
    let scene = Scene::start(Database::sqlite(), tables, config).await;
    only_the_users_is_kept(&scene, twins).await;
    let tables = "create table app.notes (owner text, name text); \
                  create unique index notes_name on app.notes (owner, name) nulls not distinct";
    let scene = Scene::start(Database::postgres().await, tables, config).await;
    only_the_users_is_kept(&scene, ("null", "null")).await;
}

async fn only_the_users_is_kept(scene: &Scene, (guests, users): (&str, &str)) {
    let (_, guest) = scene.guest("a-device").await;
    scene.database.app(&format!("insert into app.notes values ('{guest}', {guests}), ('{ALICE}', {users})")).await;
    assert_moved(&scene.rebind(&scene.user(ALICE).await, "a-device").await, 0, &guest);
    let kept = scene.database.app("select owner, coalesce(name, '-') from app.notes").await;
    assert_eq!(kept, format!("{ALICE}|{}", users.trim_matches('\'').replace("null", "-")));
}
