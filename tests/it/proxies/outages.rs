//! Parts that are away: nobody passes who would need them, and everything works once they are back.

use super::front::Tells;
use super::identity::{assert_named, assert_unnamed};
use super::stage::{Stage, bearer};
use crate::support::eventually;
use crate::support::stage::USER;

/// Doorward is killed and comes back; sessions are in the store.
pub(super) async fn without_doorward_nothing_arrives(stage: &mut Stage) {
    let user = stage.user_field();
    assert_named(stage.request("GET /app", &[&user]).await.forwarded(), USER);
    stage.end_doorward();
    for start in ["GET /app", "POST /app", "GET /open/a", "GET /optional/a", "GET /auth/session", "GET /users/a"] {
        for fields in [vec![], vec![user.as_str()], vec!["X-User-ID: mallory"]] {
            let asked = stage.request(start, &fields).await;
            assert!(asked.status() == 403 || asked.status() >= 500, "{start} {fields:?}: {asked:?}");
            assert!(asked.seen.is_empty(), "{start} {fields:?}: {asked:?}");
        }
    }
    stage.restart_doorward().await;
    assert_named(stage.request("GET /app", &[&user]).await.forwarded(), USER);
    assert_unnamed(stage.request("GET /open/a", &[""; 0]).await.forwarded());
    stage.request("GET /app", &[""; 0]).await.refused_with(401);
}

/// Doorward stands still: the proxy waits as long as it is told to.
pub(super) async fn without_an_answer_nothing_arrives(stage: &mut Stage) {
    stage.signal_doorward("STOP");
    let user = stage.user_field();
    let asked = stage.request("GET /app", &[user.as_str()]).await;
    assert!(asked.status() == 403 || asked.status() >= 500, "{asked:?}");
    assert!(asked.seen.is_empty(), "{asked:?}");
    stage.signal_doorward("CONT");
    // Having heard nothing of the store for so long, it believes no session until it has.
    eventually("sessions to be good again", async || {
        let asked = stage.request("GET /app", &[user.as_str()]).await;
        match asked.seen.as_slice() {
            [seen] => assert_named(seen, USER),
            seen => assert!(seen.is_empty() && asked.status() >= 500, "{asked:?}"),
        }
        (asked.status() == 200).then_some(())
    })
    .await;
}

/// The store is killed and comes back empty: 503 in between, never 401, and open paths stay open.
pub(super) async fn without_the_store_sessions_are_unknown(stage: &mut Stage) {
    let user = stage.user_field();
    stage.redis.kill();
    // What Doorward has cached it may use until it has noticed.
    let outage = eventually("the outage to be shown", async || {
        let asked = stage.request("GET /app", &[&user]).await;
        match asked.seen.as_slice() {
            [seen] => assert_named(seen, USER),
            seen => assert!(seen.is_empty() && asked.status() == 503, "{asked:?}"),
        }
        asked.seen.is_empty().then_some(asked)
    })
    .await;
    let response = outage.response.as_ref().expect("an answer");
    if stage.proxy.tells == Tells::Everything {
        assert_eq!(response.text(), r#"{"detail":"Session store unavailable"}"#);
    }
    if stage.proxy.tells != Tells::Refusals {
        assert_eq!(response.headers.all("retry-after").len(), 1, "{outage:?}");
    }
    for start in ["GET /app", "POST /app", "GET /optional/a", "GET /users/a"] {
        stage.request(start, &[&user]).await.refused_with(503);
    }
    stage.request("GET /app", &[""; 0]).await.refused_with(401);
    assert_unnamed(stage.request("GET /open/a", &[""; 0]).await.forwarded());
    stage.redis.restart().await;
    eventually("the store to be found again", async || {
        (stage.request("GET /app", &[&user]).await.status() == 401).then_some(())
    })
    .await;
    let again = bearer(&stage.sign_in().await);
    assert_named(stage.request("GET /app", &[again]).await.forwarded(), USER);
}
