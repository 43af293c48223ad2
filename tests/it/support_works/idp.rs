//! The fake identity provider: what it signs verifies with what it publishes, and only that.

use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde_json::{Value, json};

use crate::support::client::{Client, Response};
use crate::support::idp::{Idp, KID, Key};

async fn fetch(idp: &Idp) -> Response {
    let address = idp.issuer().strip_prefix("http://").and_then(|address| address.parse().ok());
    let path = idp.jwks_url().strip_prefix(idp.issuer()).map(str::to_owned).expect("published by the issuer");
    Client::new(address.expect("the issuer is on TCP")).get(&path).send().await
}

async fn keys(idp: &Idp) -> Vec<Jwk> {
    serde_json::from_slice::<JwkSet>(&fetch(idp).await.body).expect("a key set").keys
}

fn verified(jwt: &str, keys: &[Jwk]) -> Option<Value> {
    let kid = jsonwebtoken::decode_header(jwt).expect("a JWT").kid;
    let key = keys.iter().find(|key| key.common.key_id == kid)?;
    let key = DecodingKey::from_jwk(key).expect("an RSA key");
    jsonwebtoken::decode(jwt, &key, &Validation::new(Algorithm::RS256)).ok().map(|token| token.claims)
}

#[tokio::test]
async fn its_jwts_verify_with_its_key_set() {
    let idp = Idp::start().await;
    let published = keys(&idp).await;
    let claims = verified(&idp.mint_for("user_alice"), &published).expect("verifies");
    assert_eq!(claims["sub"], "user_alice");
    assert_eq!(claims["iss"], idp.issuer());
    assert_eq!(claims["v"], 2);
    assert_eq!(claims["exp"].as_u64(), claims["iat"].as_u64().map(|iat| iat + 60));
    let other = Key::generate(KID).sign(&idp.claims(&json!({})));
    assert_eq!(verified(&other, &published), None, "a forged signature under the published kid");
}

#[tokio::test]
async fn overrides_replace_and_remove_claims() {
    let idp = Idp::start().await;
    let claims = idp.claims(&json!({"sub": "user_bob", "azp": null, "o": {"id": "org_1"}}));
    assert_eq!((&claims["sub"], &claims["o"]["id"]), (&json!("user_bob"), &json!("org_1")));
    assert!(claims.get("azp").is_none());
    assert!(claims["sid"].as_str().is_some_and(|sid| sid.starts_with("sess_")));
}

#[tokio::test]
async fn keys_rotate_under_the_same_name() {
    let idp = Idp::start().await;
    let before = keys(&idp).await;
    let old = idp.mint(&json!({}));
    idp.rotate_same_kid();
    let after = keys(&idp).await;
    assert_eq!(after.iter().map(|key| key.common.key_id.as_deref()).collect::<Vec<_>>(), [Some(KID)]);
    assert_eq!(verified(&old, &after), None);
    assert!(verified(&idp.mint(&json!({})), &after).is_some());
    assert_eq!(verified(&idp.mint(&json!({})), &before), None);
}

#[tokio::test]
async fn an_added_key_signs_and_the_old_one_stays() {
    let idp = Idp::start().await;
    let old = idp.mint(&json!({}));
    idp.add_key("ins_second");
    assert_eq!(idp.key().kid, "ins_second");
    let published = keys(&idp).await;
    assert!(verified(&old, &published).is_some());
    assert!(verified(&idp.mint(&json!({})), &published).is_some());
}

#[tokio::test]
async fn it_fails_hangs_and_recovers_and_counts() {
    let idp = Idp::start().await;
    assert_eq!(idp.fetches(), 0);
    idp.fail();
    assert_eq!(fetch(&idp).await.status, 500);
    idp.hang();
    let recover = async {
        idp.wait_fetches(2).await;
        idp.recover();
    };
    let (answer, ()) = tokio::join!(fetch(&idp), recover);
    assert_eq!(answer.status, 200);
    assert_eq!(idp.fetches(), 2);
}
