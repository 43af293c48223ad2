//! The demo's identity provider: `GET /.well-known/jwks.json` and `POST /token?user=alice`.
//!
//! It signs for every caller and asks for no proof. Its key is made at the start, and only the public
//! half leaves the process. JWTs have the shape of Clerk's (contracts §11.2), live 60 s,
//! and no two have the same `jti` or `sid`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header::CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jsonwebtoken::jwk::{Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;
use zeroize::Zeroizing;

use crate::time::Clock;

/// Where the key set is published.
pub const JWKS_PATH: &str = "/.well-known/jwks.json";

/// A provider with its key.
pub struct DemoIdp {
    issuer: String,
    key: EncodingKey,
    public: Jwk,
    clock: Arc<dyn Clock>,
    signed: AtomicU64,
}

/// The provider's key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The generator failed.
    #[error("cannot generate an RSA key")]
    Generate,
    /// The generated key cannot be used.
    #[error("cannot use the generated RSA key")]
    Use(#[from] jsonwebtoken::errors::Error),
}

/// A user of the demo: 1 to 64 ASCII letters, digits, `-` or `_`.
struct User<'a>(&'a str);

/// `kid` of the one key, shaped as Clerk's.
const KID: &str = "ins_demo";
const LIFE_SECONDS: u64 = 60;
/// Clerk sets `nbf` this long before `iat`.
const SKEW_SECONDS: u64 = 10;

impl DemoIdp {
    /// Generates a 2048-bit RSA key for a provider whose JWTs say `iss: issuer`.
    pub fn generate(issuer: String, clock: Arc<dyn Clock>) -> Result<Self, KeyError> {
        let pair = KeyPair::generate(KeySize::Rsa2048).map_err(|_| KeyError::Generate)?;
        let der: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| KeyError::Generate)?;
        // jsonwebtoken takes PKCS#8 in PEM only; 48 bytes make the 64 characters of a line.
        let mut pem = Zeroizing::new("-----BEGIN PRIVATE KEY-----\n".to_owned());
        for line in der.as_ref().chunks(48) {
            pem.push_str(&STANDARD.encode(line));
            pem.push('\n');
        }
        pem.push_str("-----END PRIVATE KEY-----\n");
        let key = EncodingKey::from_rsa_pem(pem.as_bytes())?;
        let mut public = Jwk::from_encoding_key(&key, Algorithm::RS256)?;
        public.common.key_id = Some(KID.to_owned());
        public.common.public_key_use = Some(PublicKeyUse::Signature);
        Ok(Self { issuer, key, public, clock, signed: AtomicU64::new(0) })
    }

    fn sign(&self, user: &User<'_>) -> Result<String, jsonwebtoken::errors::Error> {
        let now = self.clock.now().unix_seconds();
        let number = self.signed.fetch_add(1, Ordering::Relaxed);
        let claims = json!({
            "iss": self.issuer,
            "sub": format!("user_{}", user.0),
            "sid": format!("sess_demo{number}"),
            "jti": format!("demo{number}"),
            "iat": now,
            "nbf": now.saturating_sub(SKEW_SECONDS),
            "exp": now.saturating_add(LIFE_SECONDS),
            "v": 2,
            "sts": "active",
            "fva": [0, -1],
        });
        let header = Header { kid: Some(KID.to_owned()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, &claims, &self.key)
    }
}

impl<'a> User<'a> {
    fn parse(query: &'a str) -> Option<Self> {
        let name = query.split('&').find_map(|pair| pair.strip_prefix("user="))?;
        let plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        (plain && (1..=64).contains(&name.len())).then_some(Self(name))
    }
}

/// Returns the provider's two endpoints.
pub fn routes(idp: DemoIdp) -> Router {
    Router::new().route(JWKS_PATH, get(key_set)).route("/token", post(token)).with_state(Arc::new(idp))
}

async fn key_set(State(idp): State<Arc<DemoIdp>>) -> Response {
    ([(CONTENT_TYPE, "application/json")], json!({ "keys": [idp.public] }).to_string()).into_response()
}

async fn token(State(idp): State<Arc<DemoIdp>>, RawQuery(query): RawQuery) -> Response {
    let Some(user) = query.as_deref().and_then(User::parse) else {
        let expected = "say which user to sign in: /token?user=alice; 1 to 64 letters, digits, - or _\n";
        return (StatusCode::BAD_REQUEST, expected).into_response();
    };
    match idp.sign(&user) {
        Ok(jwt) => jwt.into_response(),
        Err(error) => {
            tracing::error!(%error, "the demo's identity provider cannot sign");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{DecodingKey, Validation};
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::time::{ManualClock, Timestamp};

    fn provider() -> Router {
        let clock = ManualClock::at(Timestamp(1_700_000_000_500));
        routes(DemoIdp::generate("http://127.0.0.1:7".to_owned(), Arc::new(clock)).unwrap())
    }

    async fn ask(routes: &Router, method: &str, path: &str) -> (StatusCode, String) {
        let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
        let response = routes.clone().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn published(routes: &Router) -> JwkSet {
        serde_json::from_str(&ask(routes, "GET", JWKS_PATH).await.1).unwrap()
    }

    fn verified(jwt: &str, keys: &JwkSet) -> Option<Value> {
        let kid = jsonwebtoken::decode_header(jwt).unwrap().kid.unwrap();
        let key = DecodingKey::from_jwk(keys.find(&kid)?).unwrap();
        let mut rules = Validation::new(Algorithm::RS256);
        rules.validate_exp = false; // the test's clock does not move
        jsonwebtoken::decode(jwt, &key, &rules).ok().map(|token| token.claims)
    }

    #[tokio::test]
    async fn its_jwts_verify_with_its_key_set_and_no_other() {
        let provider = provider();
        let (status, jwt) = ask(&provider, "POST", "/token?user=alice").await;
        assert_eq!(status, 200);
        let claims = verified(&jwt, &published(&provider).await).unwrap();
        let expected = json!({
            "iss": "http://127.0.0.1:7", "sub": "user_alice", "sid": "sess_demo0", "jti": "demo0",
            "iat": 1_700_000_000, "nbf": 1_699_999_990, "exp": 1_700_000_060,
            "v": 2, "sts": "active", "fva": [0, -1],
        });
        assert_eq!(claims, expected);
        assert_eq!(verified(&jwt, &published(&self::provider()).await), None);
    }

    #[tokio::test]
    async fn two_jwts_are_two_sign_ins() {
        let provider = provider();
        let keys = published(&provider).await;
        let mut sids = Vec::new();
        for _ in 0..2 {
            sids.push(verified(&ask(&provider, "POST", "/token?user=alice").await.1, &keys).unwrap()["sid"].clone());
        }
        assert_ne!(sids[0], sids[1]);
    }

    #[tokio::test]
    async fn its_key_set_has_no_private_part() {
        let (_, text) = ask(&provider(), "GET", JWKS_PATH).await;
        let set: Value = serde_json::from_str(&text).unwrap();
        let mut members: Vec<_> = set["keys"][0].as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "e", "kid", "kty", "n", "use"]);
    }

    #[tokio::test]
    async fn it_signs_only_plain_names_and_only_on_post() {
        let provider = provider();
        let long = format!("/token?user={}", "a".repeat(65));
        for path in ["/token", "/token?user=", "/token?user=a%20b", "/token?user=a.b", "/token?resu=a", &long] {
            assert_eq!(ask(&provider, "POST", path).await.0, 400, "{path}");
        }
        assert_eq!(ask(&provider, "POST", "/token?x=1&user=a-B_9").await.0, 200);
        assert_eq!(ask(&provider, "GET", "/token?user=alice").await.0, 405);
    }
}
