//! The `http` backend: what the application is asked, and what becomes of each of its answers.

use serde_json::{Value, json};

use super::{ALICE, BOB, Scene, assert_moved, assert_no_op, builder, rebind};
use crate::support::client::{Response, sign_in, sign_in_guest};
use crate::support::database::Database;
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::{Recorded, Upstream};
use crate::support::{eventually, within};
use crate::surface::answers::{assert_refused, identity_of};

const FAILED: &str = "Rebind could not be completed";
const HOOK: &str = "/internal/rebind";
const SECRET: &str = "between-doorward-and-the-application";

fn config(timeout: &str) -> String {
    format!("rebind: {{ backend: http, hook: {{ url: {HOOK}, secret: {SECRET}, timeout: {timeout} }} }}")
}

async fn scene(database: Database, timeout: &str) -> Scene {
    Scene::start(database, "create table app.unused (id bigint)", |_| config(timeout)).await
}

fn answer(upstream: &Upstream, status: &str, body: &str) {
    let length = body.len();
    upstream.respond(HOOK, &format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}"));
}

/// Returns the calls of the hook so far.
fn calls(upstream: &Upstream) -> Vec<Value> {
    let calls = upstream.requests().into_iter().filter(|request| request.target == HOOK && request.complete);
    calls.map(|request| serde_json::from_slice(&request.body).expect("JSON")).collect()
}

async fn claims(scene: &Scene) -> String {
    scene.database.sql("select coalesce(pending_user, '-') from doorward_devices").await
}

#[tokio::test]
async fn the_application_is_asked_once_and_told_who_asks() {
    for database in Database::both().await {
        let scene = scene(database, "5s").await;
        answer(&scene.upstream, "200 OK", r#"{"rows":12,"more":null}"#);
        let (guest, name) = scene.guest("a-device").await;
        let alice = scene.user(ALICE).await;
        assert_moved(&scene.rebind(&alice, "a-device").await, 12, &name);
        assert_no_op(&scene.rebind(&alice, "a-device").await);
        let refused = scene.rebind(&scene.user(BOB).await, "a-device").await;
        assert_refused(&refused, 409, "device a-device already rebound to a different user");
        let asked: Vec<Recorded> =
            scene.upstream.requests().into_iter().filter(|request| request.target == HOOK).collect();
        let [call] = asked.as_slice() else { panic!("one call, not {asked:?}") };
        assert_eq!(call.method, "POST");
        assert_eq!(call.headers.all("content-type"), ["application/json"]);
        assert_eq!(call.headers.all("authorization"), [format!("Bearer {SECRET}")]);
        let body: Value = serde_json::from_slice(&call.body).expect("JSON");
        let key = body["idempotency_key"].as_str().expect("a key");
        assert_eq!(body, json!({ "from": name, "to": ALICE, "idempotency_key": key }));
        assert!(uuid::Uuid::parse_str(key).is_ok(), "{key}");
        assert_eq!(scene.devices().await, format!("{ALICE}|1|0|-"));
        assert_eq!(scene.database.sql("select count(*) from doorward_outbox where kind = 'alias'").await, "1");
        let gone = scene.doorward.client().get("/").bearer(&guest).send().await;
        assert_refused(&gone, 401, "Invalid token: session revoked");
        // The next guest's rebind is another one, and has another key.
        scene.guest("a-device").await;
        assert_eq!(scene.rebind(&alice, "a-device").await.json()["rows_updated"], 12);
        let keys: Vec<Value> = calls(&scene.upstream).iter().map(|call| call["idempotency_key"].clone()).collect();
        assert_ne!(keys[0], keys[1]);
        assert!(!scene.doorward.logs().contains(SECRET));
    }
}

#[tokio::test]
async fn a_refusal_undoes_the_claim() {
    for database in Database::both().await {
        let scene = scene(database, "5s").await;
        let (token, name) = scene.guest("a-device").await;
        let (alice, bob) = (scene.user(ALICE).await, scene.user(BOB).await);
        for status in ["400 Bad Request", "403 Forbidden", "404 Not Found", "409 Conflict", "422 Unprocessable"] {
            answer(&scene.upstream, status, "{}");
            assert_refused(&scene.rebind(&alice, "a-device").await, 503, FAILED);
            assert_eq!(scene.devices().await, "-|0|1|-", "{status}");
        }
        assert_eq!(scene.doorward.client().get("/").bearer(&token).send().await.status, 200, "still a guest");
        answer(&scene.upstream, "200 OK", r#"{"rows":1}"#);
        assert_moved(&scene.rebind(&bob, "a-device").await, 1, &name);
    }
}

#[tokio::test]
async fn an_unclear_answer_keeps_the_claim_until_the_same_user_knows() {
    for database in Database::both().await {
        // So long that only the user tries again.
        let scene = scene(database, "1h").await;
        let (token, name) = scene.guest("a-device").await;
        let (alice, bob) = (scene.user(ALICE).await, scene.user(BOB).await);
        for (status, body) in [
            ("500 Internal Server Error", "{}"),
            ("302 Found\r\nlocation: /status/200", ""),
            ("204 No Content", ""),
            ("408 Request Timeout", ""),
            ("429 Too Many Requests", ""),
            ("200 OK", "{}"),
            ("200 OK", r#"{"rows":-1}"#),
            ("200 OK", r#"{"rows":1,"data":{"a":1,"a":2}}"#),
            ("200 OK", "moved"),
        ] {
            answer(&scene.upstream, status, body);
            assert_refused(&scene.rebind(&alice, "a-device").await, 503, FAILED);
            assert_eq!(claims(&scene).await, ALICE, "{status}");
            // Another user must wait; the application is not asked for it.
            let before = calls(&scene.upstream).len();
            assert_refused(&scene.rebind(&bob, "a-device").await, 503, FAILED);
            assert_eq!(calls(&scene.upstream).len(), before);
        }
        assert_eq!(scene.doorward.client().get("/").bearer(&token).send().await.status, 200, "still a guest");
        answer(&scene.upstream, "200 OK", r#"{"rows":3}"#);
        assert_moved(&scene.rebind(&alice, "a-device").await, 3, &name);
        let all = calls(&scene.upstream);
        assert_eq!(all.len(), 10);
        assert!(all.iter().all(|call| call == &all[0]), "every try is the same to the application: {all:?}");
        assert!(!scene.upstream.requests().iter().any(|request| request.target == "/status/200"), "no redirects");
    }
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_without_the_user() {
    for database in Database::both().await {
        let scene = scene(database, "300ms").await;
        let (token, name) = scene.guest("a-device").await;
        let alice = scene.user(ALICE).await;
        answer(&scene.upstream, "503 Service Unavailable", "");
        assert_refused(&scene.rebind(&alice, "a-device").await, 503, FAILED);
        within("another try", async {
            scene.upstream.wait_for(|request| request.target == HOOK).await;
        })
        .await;
        answer(&scene.upstream, "200 OK", r#"{"rows":4}"#);
        let done = format!("{ALICE}|1|0|-");
        eventually("the rebind to end", async || (scene.devices().await == done).then_some(())).await;
        let all = calls(&scene.upstream);
        assert!(all.len() >= 2 && all.iter().all(|call| call == &all[0]), "{all:?}");
        assert_eq!(all[0]["from"], json!(name));
        assert_no_op(&scene.rebind(&alice, "a-device").await);
        eventually("the guest to be refused", async || {
            (scene.doorward.client().get("/").bearer(&token).send().await.status == 401).then_some(())
        })
        .await;
        assert_eq!(scene.database.sql("select count(*) from doorward_outbox where kind = 'alias'").await, "1");
        assert!(scene.doorward.logs().contains("guest-rebound"), "it is audited all the same");
    }
}

#[tokio::test]
async fn an_application_that_is_silent_or_away_is_unclear() {
    let scene = scene(Database::sqlite(), "1s").await;
    scene.guest("a-device").await;
    let alice = scene.user(ALICE).await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let address = silent.local_addr().expect("it is bound");
    for url in [format!("http://{address}/hook"), "http://127.0.0.1:1/hook".to_owned()] {
        let database = Database::sqlite();
        let hook = format!("rebind: {{ backend: http, hook: {{ url: '{url}', timeout: 200ms }} }}");
        let doorward = builder(&database, &scene.idp).config(&hook).start().await;
        sign_in_guest(&doorward, "a-device").await;
        let token = sign_in(&doorward, &scene.idp, ALICE).await;
        assert_refused(&rebind(&doorward, &token, "a-device").await, 503, FAILED);
        let claimed = database.sql("select pending_user from doorward_devices").await;
        assert_eq!(claimed, ALICE, "{url}");
    }
    // The upstream itself answers the hook of this one: nothing of the above concerns it.
    answer(&scene.upstream, "200 OK", r#"{"rows":0}"#);
    assert_eq!(scene.rebind(&alice, "a-device").await.status, 200);
}

#[tokio::test]
async fn the_hook_of_an_upstream_on_a_unix_socket_is_reached_there() {
    let directory = TempDir::new("hook");
    let (upstream, idp) = (Upstream::unix(&directory.join("app.sock")), Idp::start().await);
    answer(&upstream, "200 OK", r#"{"rows":2}"#);
    let database = Database::sqlite();
    let doorward = builder(&database, &idp).upstream(upstream.url()).config(&config("5s")).start().await;
    let guest = sign_in_guest(&doorward, "a-device").await;
    let (name, _) = identity_of(&doorward, &upstream, &guest).await;
    let alice = sign_in(&doorward, &idp, ALICE).await;
    assert_moved(&rebind(&doorward, &alice, "a-device").await, 2, &name);
}

#[tokio::test]
async fn an_upstream_with_tls_is_asked_under_its_name() {
    let (authority, directory) = (Authority::new(), TempDir::new("hook"));
    authority.write(&directory.join("ca.pem"));
    let acceptor = authority.identity(&["app.internal"]).acceptor(&["http/1.1"]);
    let (upstream, idp) = (Upstream::tls(acceptor).await, Idp::start().await);
    answer(&upstream, "200 OK", r#"{"rows":2}"#);
    let ca = directory.join("ca.pem");
    let more = format!("upstream: {{ ca: '{}', server_name: app.internal }}", ca.display());
    let database = Database::sqlite();
    let doorward = builder(&database, &idp).upstream(upstream.url()).config(&more).config(&config("5s")).start().await;
    let guest = sign_in_guest(&doorward, "a-device").await;
    let (name, _) = identity_of(&doorward, &upstream, &guest).await;
    let alice = sign_in(&doorward, &idp, ALICE).await;
    assert_moved(&rebind(&doorward, &alice, "a-device").await, 2, &name);
}

#[tokio::test]
async fn fifty_at_once_are_one_rebind() {
    for database in Database::both().await {
        let scene = Scene::start(database, "create table app.unused (id bigint)", |_| {
            format!("directory: {{ timeout: 20s }}\n{}", config("20s"))
        })
        .await;
        answer(&scene.upstream, "200 OK", r#"{"rows":7}"#);
        let (_, name) = scene.guest("a-device").await;
        let alice = scene.user(ALICE).await;
        let answers: Vec<Response> =
            futures_util::future::join_all((0..50).map(|_| scene.rebind(&alice, "a-device"))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let moved: Vec<&Response> = answers.iter().filter(|answer| answer.json()["rebound"] == true).collect();
        assert_eq!(moved.len(), 1);
        assert_moved(moved[0], 7, &name);
        let all = calls(&scene.upstream);
        assert!(all.iter().all(|call| call == &all[0]), "one key for all of them: {all:?}");
    }
}

#[tokio::test]
async fn a_path_of_the_upstream_needs_a_secret() {
    let config = format!("rebind: {{ backend: http, hook: {{ url: {HOOK} }} }}");
    let mut doorward = Doorward::builder().config(&config).spawn();
    assert_eq!(doorward.wait_exit().await.code(), Some(64));
    assert!(doorward.logs().contains("rebind.hook.secret: is missing"), "{}", doorward.logs());
}
