//! Guests who became users lose their sessions, also when the rebind crashed before it got there.

use serde_json::json;

use super::database::Database;
use super::{attempts, counted};
use crate::support::chaos::Chaos;
use crate::support::client::sign_in_guest;
use crate::support::doorward::{Builder, Doorward};
use crate::support::eventually;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;

fn builder(database: &Database, upstream: &Upstream) -> Builder {
    let fast = "outbox: { poll_interval: 50ms, retry: { first: 10ms, max: 50ms } }";
    Doorward::builder().database(&database.url()).upstream(upstream.url()).config(fast)
}

/// Signs a guest in; returns the token and whom the application sees.
async fn guest(doorward: &Doorward, upstream: &Upstream) -> (String, String) {
    let token = sign_in_guest(doorward, "a-device").await;
    assert_eq!(doorward.client().get("/").bearer(&token).send().await.status, 200);
    let seen = upstream.requests().last().expect("it was asked").headers.first("x-user-id").map(str::to_owned);
    (token, seen.expect("the guest has a name"))
}

async fn revoke(database: &Database, guest: &str) {
    let body = json!({ "tenant": "default", "principal": guest }).to_string();
    database.add("revoke_guest", guest, &body).await;
}

async fn ends_sessions(database: Database) {
    let upstream = Upstream::start().await;
    let doorward = builder(&database, &upstream).start().await;
    let (token, name) = guest(&doorward, &upstream).await;
    let alias = database.add_aliases(&["user_a".to_owned()], 1).await;
    revoke(&database, &name).await;
    database.add("revoke_guest", "anon:nonsense", "[1]").await;
    let refused = async || (doorward.client().get("/").bearer(&token).send().await.status == 401).then_some(());
    eventually("the guest to be refused", refused).await;
    let pending = "select count(*) from doorward_outbox where kind = 'revoke_guest' and state = 'pending'";
    eventually("the outbox to hold no such event", async || (database.number(pending).await == 0).then_some(())).await;
    let dead = "select count(*) from doorward_outbox where state = 'dead' and person = 'anon:nonsense'";
    assert_eq!(database.number(dead).await, 1, "what nobody understands is dead at once");
    // Without a sink, an alias that was written earlier is neither delivered nor dropped.
    assert_eq!((alias.len(), database.depth().await), (1, 2));
    counted(&doorward, "alias", "pending", 1).await;
}

#[tokio::test]
async fn a_guest_left_behind_by_a_rebind_is_refused_on_sqlite() {
    ends_sessions(Database::sqlite()).await;
}

#[tokio::test]
async fn a_guest_left_behind_by_a_rebind_is_refused_on_postgresql() {
    ends_sessions(Database::postgres().await).await;
}

#[tokio::test]
async fn a_store_that_is_away_only_delays_the_end_of_a_guest() {
    let (database, redis, upstream) = (Database::postgres().await, Redis::start().await, Upstream::start().await);
    let chaos = Chaos::to(redis.port()).await;
    let doorward = builder(&database, &upstream).store(&format!("redis://127.0.0.1:{}", chaos.port())).start().await;
    let (token, name) = guest(&doorward, &upstream).await;
    chaos.cut();
    revoke(&database, &name).await;
    let failed = async || (attempts(&doorward, "revoke_guest", "retried").await > 0).then_some(());
    eventually("a failed attempt", failed).await;
    assert_eq!(database.depth().await, 1);
    chaos.restore();
    super::delivered(&database).await;
    let refused = async || (doorward.client().get("/").bearer(&token).send().await.status == 401).then_some(());
    eventually("the guest to be refused", refused).await;
}
