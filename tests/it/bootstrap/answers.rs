//! What is answered without anything configured, and to whom.

use doorward::model::TokenKind;
use doorward::time::Timestamp;
use serde_json::json;

use super::{Database, PATIENT, ask, defaults, whole};
use crate::support::client::{sign_in, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::surface::answers::{Caller, assert_answer, assert_refused, known_key, now, stray_token};

#[tokio::test]
async fn without_configuration_it_is_what_doorward_knows_and_the_defaults() {
    let idp = Idp::start().await;
    for database in Database::both().await {
        let builder = Doorward::builder().idp(&idp).config(PATIENT);
        let doorward = database.of(builder).start().await;
        let unknown = ask(&doorward, &idp.mint_for("user_nobody")).await;
        assert_eq!(whole(&unknown), defaults());
        assert_answer(&unknown, 200, &unknown.text());
        assert!(unknown.text().starts_with(r#"{"profile":{"#), "{}", unknown.text());
        let token = sign_in(&doorward, &idp, "user_jordan").await;
        // Whether the sign-in has been noted by now or will be: it changes nothing that is there.
        let insert = "insert into doorward_users (id, name, email, created_at, updated_at) \
                      values ('user_jordan', 'Jordan Lee', 'jordan@example.com', 1767225600000, 1767225600000) \
                      on conflict (id) do update \
                      set name = excluded.name, email = excluded.email, created_at = excluded.created_at";
        database.run(&doorward, insert).await;
        let mut expected = defaults();
        for (key, value) in
            [("name", "Jordan Lee"), ("email", "jordan@example.com"), ("created_at", "2026-01-01T00:00:00.000Z")]
        {
            expected["profile"][key] = json!(value);
        }
        assert_eq!(whole(&ask(&doorward, &token).await), expected);
        // A provider's JWT is as good, and brings its roles.
        let jwt = idp.mint(&json!({ "sub": "user_jordan", "o": { "id": "org_1", "rol": "admin" } }));
        expected["profile"]["roles"] = json!(["org:admin"]);
        assert_eq!(whole(&ask(&doorward, &jwt).await), expected);
        database.run(&doorward, "update doorward_users set deleted_at = 1").await;
        assert_eq!(whole(&ask(&doorward, &token).await), defaults(), "a deleted user is not known");
        let guest = sign_in_guest(&doorward, "a-device").await;
        assert_eq!(whole(&ask(&doorward, &guest).await), defaults());
    }
}

#[tokio::test]
async fn who_is_not_signed_in_is_refused_as_at_the_exchange() {
    let idp = Idp::start().await;
    let closed = "bootstrap: { allow_anonymous: false }";
    let doorward = Doorward::builder().idp(&idp).config(&known_key()).config(closed).start().await;
    let guest = sign_in_guest(&doorward, "a-device").await;
    let ended = sign_in(&doorward, &idp, "user_alice").await;
    assert_eq!(doorward.client().delete("/auth/session").bearer(&ended).send().await.status, 200);
    let expired = stray_token(TokenKind::Access, Timestamp(now().0 - 1_000));
    let old = idp.mint(&json!({ "exp": 1 }));
    let pending = idp.mint(&json!({ "sts": "pending" }));
    for caller in Caller::both(&doorward).await {
        let get = async |headers: &[(&str, &str)]| caller.send("GET", "/auth/bootstrap", headers, "").await;
        assert_refused(&get(&[]).await, 401, "Missing Bearer token");
        for (token, status, text) in [
            ("nonsense", 401, "Invalid token: malformed"),
            (ended.as_str(), 401, "Invalid token: session revoked"),
            (&expired, 401, "Token expired"),
            (&old, 401, "Token expired"),
            (&pending, 401, "Invalid token: session pending"),
            ("a.b.c", 401, "Invalid token: malformed"),
            (&guest, 403, "Insufficient permissions"),
        ] {
            let bearer = format!("Bearer {token}");
            assert_refused(&get(&[("authorization", &bearer)]).await, status, text);
        }
        let user = format!("Bearer {}", idp.mint_for("user_nobody"));
        let field = [("authorization", user.as_str())];
        assert_eq!(get(&field).await.json(), defaults());
        let head = caller.send("HEAD", "/auth/bootstrap", &field, "").await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let refused = caller.send("POST", "/auth/bootstrap", &field, "").await;
        assert_refused(&refused, 405, "Method Not Allowed");
        assert_eq!(refused.headers.all("allow"), ["GET,HEAD"]);
        assert_eq!(caller.send("GET", "/auth/bootstrap/", &field, "").await.status, 404);
    }
}

#[tokio::test]
async fn what_nobody_can_know_is_503() {
    let (idp, mut redis) = (Idp::start().await, Redis::start().await);
    idp.fail();
    let patient = crate::surface::answers::PATIENT;
    let doorward = Doorward::builder().idp(&idp).store(&redis.url()).config(patient).spawn();
    eventually("the proxy port to open", async || doorward.client().get("/auth").try_send().await.ok()).await;
    assert_refused(&ask(&doorward, &idp.mint_for("user_alice")).await, 503, "JWKS not loaded");
    idp.recover();
    eventually("keys to be loaded", async || (doorward.admin_get("/readyz").await.status == 200).then_some(())).await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    redis.kill();
    assert_refused(&ask(&doorward, &token).await, 503, "Session store unavailable");
}
