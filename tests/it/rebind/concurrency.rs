//! Many at once: one moves, and nothing moves twice.

use futures_util::future::join_all;

use super::{ALICE, BOB, Scene, sql};
use crate::support::client::Response;
use crate::support::database::Database;

const NOTES: &str = "create table app.notes (id bigint, owner text not null)";

async fn scene(database: Database) -> (Scene, String) {
    let config = |database: &Database| {
        // A queue of writers is what this is about, not how long one may wait in it.
        format!("directory: {{ timeout: 20s }}\n{}", sql(database, &[("notes", "")]))
    };
    let scene = Scene::start(database, NOTES, config).await;
    let (_, name) = scene.guest("a-device").await;
    for id in 0..10 {
        scene.database.app(&format!("insert into app.notes values ({id}, '{name}')")).await;
    }
    (scene, name)
}

#[tokio::test]
async fn of_fifty_rebinds_by_one_user_one_moves_and_the_rest_have_nothing_to_do() {
    for database in Database::both().await {
        let (scene, name) = scene(database).await;
        let alice = scene.user(ALICE).await;
        let answers = join_all((0..50).map(|_| scene.rebind(&alice, "a-device"))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let moved: Vec<_> = answers.iter().map(Response::json).filter(|body| body["rebound"] == true).collect();
        assert_eq!(moved.len(), 1, "{answers:?}");
        assert_eq!(moved[0]["rows_updated"], 10);
        assert_eq!(moved[0]["anonymous_id"], name.trim_start_matches("anon:"));
        assert_eq!(scene.devices().await, format!("{ALICE}|1|0|-"));
        assert_eq!(scene.database.app("select distinct owner from app.notes").await, ALICE);
        assert_eq!(scene.database.sql("select count(*) from doorward_outbox where kind = 'alias'").await, "1");
    }
}

#[tokio::test]
async fn of_two_users_one_wins_and_the_other_is_told() {
    for database in Database::both().await {
        let (scene, _) = scene(database).await;
        let tokens = [scene.user(ALICE).await, scene.user(BOB).await];
        let asked = (0..50).map(|turn| scene.rebind(&tokens[turn % 2], "a-device"));
        let answers = join_all(asked).await;
        let winner = scene.database.sql("select user_id from doorward_devices").await;
        let won = usize::from(winner != ALICE);
        assert!([ALICE, BOB].contains(&winner.as_str()));
        let mut moved = 0;
        for (turn, answer) in answers.iter().enumerate() {
            if turn % 2 == won {
                assert_eq!(answer.status, 200, "{answer:?}");
                moved += i32::from(answer.json()["rebound"] == true);
            } else {
                let text = r#"{"detail":"device a-device already rebound to a different user"}"#;
                assert_eq!((answer.status, answer.text().as_str()), (409, text));
            }
        }
        assert_eq!(moved, 1);
        assert_eq!(scene.database.app("select distinct owner from app.notes").await, winner);
        assert_eq!(scene.devices().await, format!("{winner}|1|0|-"));
    }
}
