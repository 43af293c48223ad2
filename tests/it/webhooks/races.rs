//! A sign-in that is under way when its user or login ends leaves no live session; and what is open
//! elsewhere is cut.

use std::time::Duration;

use futures_util::future::join_all;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

use super::{Database, RECEIVED, Site, configured, deleted, new_id, session};
use crate::support::client::Response;
use crate::support::doorward::Doorward;
use crate::support::postgres::Postgres;
use crate::support::redis::Redis;
use crate::support::{eventually, within};
use crate::surface::answers::{PATIENT, assert_answer, assert_refused, token_of};

/// The default lease.
const LEASE: Duration = Duration::from_secs(2);
/// How often it is tried.
const ROUNDS: usize = 80;
/// Sign-ins at once, in several tenants.
const SIGN_INS: usize = 6;

fn claims(user: &str, login: &str, number: usize) -> Value {
    match number % 3 {
        0 => json!({ "sub": user, "sid": login }),
        tenant => json!({ "sub": user, "sid": login, "o": { "id": format!("org_{tenant}") } }),
    }
}

/// Signs in several times while `kind` is told; afterwards no session is left and none can start.
///
/// Returns how many sign-ins got a token first.
async fn race(site: &Site, entrance: &Doorward, round: usize, kind: &str) -> usize {
    let (user, login) = (format!("user_{round}"), format!("sess_{round}"));
    let jwts: Vec<String> = (0..SIGN_INS).map(|number| site.idp.mint(&claims(&user, &login, number))).collect();
    let data = if kind == "user.deleted" { deleted(&user) } else { session(&login, &user) };
    let delivery = super::signed(&site.svix, &new_id(), &super::event(kind, &data));
    let exchange = async |(number, jwt): (usize, &String)| -> Response {
        // Some before the event, some after it, most of them with it.
        for _ in 0..number * (round % 7) {
            tokio::task::yield_now().await;
        }
        entrance.client().post("/auth/session").bearer(jwt).send().await
    };
    let (answers, told) =
        tokio::join!(join_all(jwts.iter().enumerate().map(exchange)), super::send(&site.doorward, &delivery));
    assert_answer(&told, 200, RECEIVED);
    let refusals = [super::DELETED, super::REVOKED];
    let mut started = 0;
    for answer in answers {
        if answer.status != 200 {
            let said = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(answer.status == 401 && refusals.contains(&said.as_str()), "{} {said}", answer.status);
            continue;
        }
        started += 1;
        let token = token_of(&answer);
        // At once where the event came in; elsewhere within the lease.
        site.assert_ended(&token).await;
        eventually("the session to be refused where it began", async || {
            (entrance.client().get("/private").bearer(&token).send().await.status == 401).then_some(())
        })
        .await;
    }
    let text = if kind == "user.deleted" { super::DELETED } else { super::REVOKED };
    for number in 0..3 {
        let jwt = site.idp.mint(&claims(&user, &login, number));
        assert_refused(&entrance.client().post("/auth/session").bearer(&jwt).send().await, 401, text);
    }
    started
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to see")]
async fn race_often(site: &Site, entrance: &Doorward) {
    let mut first = 0;
    for round in 0..ROUNDS {
        let kind = if round % 2 == 0 { "user.deleted" } else { "session.revoked" };
        first += race(site, entrance, round, kind).await;
    }
    println!("{first} of {} sign-ins came before the end", ROUNDS * SIGN_INS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_under_way_leaves_no_session_on_one_replica() {
    for site in Site::both().await {
        race_often(&site, &site.doorward).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sign_in_under_way_on_another_replica_leaves_no_session() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let (store, database) = (redis.url(), postgres.url());
    let site = Site::start(Database::Postgres(postgres), |builder| builder.store(&store).config(PATIENT)).await;
    let other = configured(&site.idp, &site.upstream).store(&store).database(&database).config(PATIENT).start().await;
    race_often(&site, &other).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_web_socket_on_another_replica_is_cut_within_the_lease() {
    let (redis, postgres) = (Redis::start().await, Postgres::start().await);
    let (store, database) = (redis.url(), postgres.url());
    let patient = "sessions: { redis: { timeout: 1s } }";
    let site = Site::start(Database::Postgres(postgres), |builder| builder.store(&store).config(patient)).await;
    let other = configured(&site.idp, &site.upstream).store(&store).database(&database).config(patient).start().await;
    for (user, kind, data) in [
        ("user_alice", "user.deleted", deleted("user_alice")),
        ("user_bob", "session.ended", session("sess_bob", "user_bob")),
        ("user_carol", "user.updated", json!({ "id": "user_carol", "banned": true, "updated_at": 1 })),
    ] {
        let login = user.replace("user", "sess");
        let token = site.sign_in(&json!({ "sub": user, "sid": login, "o": { "id": "org_1" } })).await;
        let bystander = site.sign_in(&json!({ "sub": "user_dave", "o": { "id": "org_1" } })).await;
        let mut sockets = Vec::new();
        for token in [&token, &bystander] {
            let opened = other.client().web_socket("/ws", &[("authorization", &format!("Bearer {token}"))]).await;
            sockets.push(opened.unwrap_or_else(|refusal| panic!("{}: {}", refusal.status, refusal.text())));
        }
        let [cut, kept] = sockets.as_mut_slice() else { panic!("two sockets") };
        for socket in [&mut *cut, &mut *kept] {
            socket.send(Message::text("are you there")).await.expect("the socket is open");
            within("an echo", socket.next()).await.expect("the socket is open").expect("it is sound");
        }
        site.tell(kind, &data).await;
        let told = Instant::now();
        within("the socket to be closed", async { while let Some(Ok(_)) = cut.next().await {} }).await;
        let took = told.elapsed();
        assert!(took <= LEASE, "{kind} took {took:?}");
        kept.send(Message::text("and you")).await.expect("the socket is open");
        within("an echo", kept.next()).await.expect("the socket is open").expect("it is sound");
    }
}
