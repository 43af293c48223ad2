//! 503 says "cannot know": contracts §3 rule 9.

use super::answers::{PATIENT, assert_refused, token_of};
use super::logout::LOGOUTS;
use crate::support::client::{Client, sign_in};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use serde_json::json;

#[tokio::test]
async fn without_a_store_what_needs_it_is_unavailable_and_what_does_not_is_still_refused() {
    let (idp, mut redis) = (Idp::start().await, Redis::start().await);
    let doorward = Doorward::builder().idp(&idp).store(&redis.url()).config(PATIENT).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    redis.kill();
    let client = doorward.client();
    let unavailable = "Session store unavailable";
    for _ in 0..2 {
        let exchange = client.post("/auth/session").bearer(&idp.mint_for("user_alice")).send().await;
        assert_refused(&exchange, 503, unavailable);
        let guest = client.post("/auth/anonymous").json(&json!({"device_id": "x"})).send().await;
        assert_refused(&guest, 503, unavailable);
    }
    for (method, path) in LOGOUTS {
        let request = client.request(method.parse().expect("a method"), path);
        assert_refused(&request.send().await, 401, "Missing Bearer token");
        let request = client.request(method.parse().expect("a method"), path);
        assert_refused(&request.bearer("dw_garbage").send().await, 401, "Invalid token: malformed");
    }
    let expired = idp.mint(&json!({"exp": idp.claims(&json!({}))["iat"].as_u64().map(|iat| iat - 60)}));
    assert_refused(&client.post("/auth/session").bearer(&expired).send().await, 401, "Token expired");
    assert_refused(&client.post("/auth/anonymous").send().await, 422, "device_id required");
    assert_refused(&client.delete("/auth/session").bearer(&token).send().await, 503, unavailable);

    redis.restart().await;
    eventually("the store to be back", async || {
        let answer = client.post("/auth/session").bearer(&idp.mint_for("user_alice")).send().await;
        if answer.status == 503 {
            return None;
        }
        token_of(&answer);
        Some(())
    })
    .await;
}

#[tokio::test]
async fn without_keys_jwts_cannot_be_judged_and_guests_can_come() {
    let idp = Idp::start().await;
    idp.fail();
    let doorward = Doorward::builder().idp(&idp).spawn();
    let client = doorward.client();
    eventually("the proxy port to open", async || Client::get(&client, "/auth").try_send().await.ok()).await;
    let expired = idp.mint(&json!({"exp": 1}));
    for jwt in [idp.mint_for("user_alice"), expired] {
        assert_refused(&client.post("/auth/session").bearer(&jwt).send().await, 503, "JWKS not loaded");
    }
    // What is not even a JWT needs no keys to be refused.
    let refused = client.post("/auth/session").bearer("opaque").send().await;
    assert_refused(&refused, 401, "Invalid token: expected a Clerk JWT");
    assert_refused(&client.post("/auth/session").send().await, 401, "Missing Bearer token");
    token_of(&client.post("/auth/anonymous").json(&json!({"device_id": "x"})).send().await);
    assert_eq!(doorward.admin_get("/readyz").await.status, 503);
    assert_eq!(doorward.admin_get("/livez").await.status, 200);

    idp.recover();
    eventually("keys to be loaded", async || (doorward.admin_get("/readyz").await.status == 200).then_some(())).await;
    token_of(&client.post("/auth/session").bearer(&idp.mint_for("user_alice")).send().await);
    // What was loaded once stays good while its source is away.
    idp.fail();
    token_of(&client.post("/auth/session").bearer(&idp.mint_for("user_alice")).send().await);
    assert_eq!(doorward.admin_get("/readyz").await.status, 200);
}
