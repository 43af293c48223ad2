//! Deliveries come at least once and in any order: what ended stays ended, what is old stays old.

use futures_util::future::join_all;
use serde_json::{Value, json};

use super::{DELETED, RECEIVED, Site, deleted, event, new_id, send, session, signed, user};
use crate::surface::answers::assert_answer;

#[tokio::test]
async fn an_older_update_does_not_replace_a_newer_one_and_none_revives_the_deleted() {
    for site in Site::both().await {
        let named = |name: &str, at: u64| json!({ "id": "user_alice", "first_name": name, "updated_at": at });
        site.tell("user.updated", &named("Newer", 2_000)).await;
        site.tell("user.updated", &named("Older", 1_999)).await;
        site.tell("user.created", &named("Oldest", 1)).await;
        site.tell("user.updated", &json!({ "id": "user_alice", "first_name": "Undated" })).await;
        assert_eq!(site.person("user_alice").await, "Newer -");
        site.tell("user.updated", &named("Newest", 2_001)).await;
        assert_eq!(site.person("user_alice").await, "Newest -");

        site.tell("user.deleted", &deleted("user_alice")).await;
        for kind in ["user.created", "user.updated"] {
            site.tell(kind, &named("Revived", 9_000)).await;
        }
        let mut late = user("user_alice");
        late["banned"] = Value::Bool(true);
        site.tell("user.updated", &late).await;
        site.tell("session.ended", &session("sess_late", "user_alice")).await;
        assert_eq!(site.person("user_alice").await, "- -");
        site.assert_refused(&json!({ "sub": "user_alice" }), DELETED).await;
        let first = site.ask("select cast(deleted_at as text) from doorward_users where id = 'user_alice'").await;
        site.tell("user.deleted", &deleted("user_alice")).await;
        let second = site.ask("select cast(deleted_at as text) from doorward_users where id = 'user_alice'").await;
        assert_eq!(first, second, "deleted once");

        // The ban comes late, after its end was told: sessions from before it still end.
        let token = site.sign_in(&json!({ "sub": "user_bob" })).await;
        let mut banned = user("user_bob");
        banned["updated_at"] = json!(100);
        site.tell("user.updated", &banned).await;
        banned["updated_at"] = json!(50);
        banned["banned"] = Value::Bool(true);
        site.tell("user.updated", &banned).await;
        site.assert_ended(&token).await;
    }
}

#[tokio::test]
async fn a_delivery_that_comes_again_does_nothing_more() {
    for site in Site::both().await {
        let mut banned = user("user_alice");
        banned["banned"] = Value::Bool(true);
        let id = new_id();
        let delivery = signed(&site.svix, &id, &event("user.updated", &banned));
        let token = site.sign_in(&json!({ "sub": "user_alice" })).await;
        assert_answer(&send(&site.doorward, &delivery).await, 200, RECEIVED);
        site.assert_ended(&token).await;
        let token = site.sign_in_later("user_alice").await;
        // To the byte, and signed anew as every attempt of the sender is.
        assert_answer(&send(&site.doorward, &delivery).await, 200, RECEIVED);
        assert_answer(&site.deliver_as(&id, "user.updated", &banned).await, 200, RECEIVED);
        site.assert_live(&token).await;
        assert_eq!(site.counted("user.updated", "applied").await, 1);
        assert_eq!(site.counted("user.updated", "duplicate").await, 2);
        let days = 72 * 3_600;
        let (least, most) = ((super::now() + days - 60) * 1000, (super::now() + days + 1) * 1000);
        let receipts = "select cast(count(*) as text) from doorward_receipts where scope = 'clerk'";
        let receipt = format!("{receipts} and id = '{id}' and until between {least} and {most}");
        assert_eq!(site.ask(&receipt).await, "1");
        // Another delivery that says the same is another delivery.
        assert_answer(&site.deliver("user.updated", &banned).await, 200, RECEIVED);
        site.assert_ended(&token).await;
        // What nothing follows from is not remembered.
        site.tell("email.created", &json!({})).await;
        assert_eq!(site.ask(receipts).await, "2");
    }
}

#[tokio::test]
async fn the_same_delivery_many_times_at_once_is_harmless() {
    for site in Site::both().await {
        let token = site.sign_in(&json!({ "sub": "user_alice" })).await;
        for (kind, data) in [
            ("user.updated", json!({ "id": "user_alice", "first_name": "Alice", "locked": true, "updated_at": 7 })),
            ("session.ended", session("sess_1", "user_alice")),
            ("user.deleted", deleted("user_alice")),
        ] {
            let delivery = signed(&site.svix, &new_id(), &event(kind, &data));
            let answers = join_all((0..20).map(|_| send(&site.doorward, &delivery))).await;
            for answer in answers {
                assert_answer(&answer, 200, RECEIVED);
            }
            let (applied, repeated) = (site.counted(kind, "applied").await, site.counted(kind, "duplicate").await);
            assert!(applied >= 1 && applied + repeated == 20, "{applied} and {repeated}");
        }
        site.assert_ended(&token).await;
        site.assert_refused(&json!({ "sub": "user_alice" }), DELETED).await;
        assert_eq!(site.ask("select cast(count(*) as text) from doorward_receipts").await, "3");
    }
}
