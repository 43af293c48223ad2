//! A fake identity provider: it publishes a key set over HTTP and signs JWTs shaped like Clerk's.
//!
//! The keys and signatures are real; nothing about the verifier is replaced.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use doorward::time::{Clock, SystemClock};
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{eventually, within};

/// The `kid` of the first key, shaped like a Clerk instance id.
pub const KID: &str = "ins_2first0000000000000000000";

/// A running provider; it ends on drop.
pub struct Idp {
    address: String,
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

/// An RSA key and the name it is published under.
#[derive(Clone)]
pub struct Key {
    /// What JWTs name it by.
    pub kid: String,
    private: EncodingKey,
}

struct Shared {
    keys: Mutex<Vec<Key>>,
    fetches: AtomicU64,
    answer: watch::Sender<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Keys,
    Failure,
    Silence,
}

impl Key {
    /// Generates a 2048-bit key to be called `kid`.
    pub fn generate(kid: &str) -> Self {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("the system has entropy");
        let der: Pkcs8V1Der<'_> = pair.as_der().expect("a generated key can be written");
        // 48 bytes make the 64 characters of a PEM line.
        let lines: Vec<String> = der.as_ref().chunks(48).map(|line| STANDARD.encode(line)).collect();
        let pem = format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"));
        let private = EncodingKey::from_rsa_pem(pem.as_bytes()).expect("a generated key can be read");
        Self { kid: kid.to_owned(), private }
    }

    /// Returns the public half as it stands in a key set.
    pub fn public(&self) -> Jwk {
        let mut jwk = Jwk::from_encoding_key(&self.private, Algorithm::RS256).expect("an RSA key has a public half");
        jwk.common.key_id = Some(self.kid.clone());
        jwk.common.public_key_use = Some(jsonwebtoken::jwk::PublicKeyUse::Signature);
        jwk
    }

    /// Signs `claims` with this key: RS256, `typ: JWT`, this `kid`.
    pub fn sign(&self, claims: &Value) -> String {
        let header = Header { kid: Some(self.kid.clone()), ..Header::new(Algorithm::RS256) };
        jsonwebtoken::encode(&header, claims, &self.private).expect("an RSA key signs")
    }
}

impl Key {
    /// Signs `claims` with this key under exactly this header, whose `alg` may be any RSA signature's.
    pub fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let algorithm = header["alg"].as_str().and_then(|name| name.parse().ok()).expect("a known algorithm");
        let message = unsigned(header, claims);
        let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &self.private, algorithm);
        format!("{message}.{}", signature.expect("an RSA key signs"))
    }
}

impl Idp {
    /// Starts a provider with one key, [`KID`].
    pub async fn start() -> Self {
        let shared = Arc::new(Shared {
            keys: Mutex::new(vec![Key::generate(KID)]),
            fetches: AtomicU64::new(0),
            answer: watch::Sender::new(Answer::Keys),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
        let address = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
        let routes = Router::new().route("/.well-known/jwks.json", get(key_set)).with_state(Arc::clone(&shared));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            axum::serve(listener, routes).await.expect("axum serves until it is dropped");
        });
        Self { address, shared, _tasks: tasks }
    }

    /// Returns the `iss` of its JWTs.
    pub fn issuer(&self) -> &str {
        &self.address
    }

    /// Returns where its key set is published.
    pub fn jwks_url(&self) -> String {
        format!("{}/.well-known/jwks.json", self.address)
    }

    /// Returns how often the key set was asked for.
    pub fn fetches(&self) -> u64 {
        self.shared.fetches.load(Ordering::SeqCst)
    }

    /// Waits until the key set was asked for at least `count` times since the start.
    pub async fn wait_fetches(&self, count: u64) {
        eventually("the key set to be fetched", async || (self.fetches() >= count).then_some(())).await;
    }

    /// Replaces every key by one new key under the first one's `kid`, as Clerk does.
    pub fn rotate_same_kid(&self) {
        *self.keys() = vec![Key::generate(KID)];
    }

    /// Publishes one more key, which signs from now on.
    pub fn add_key(&self, kid: &str) {
        self.keys().insert(0, Key::generate(kid));
    }

    /// Answers 500 from now on.
    pub fn fail(&self) {
        self.shared.answer.send_replace(Answer::Failure);
    }

    /// Accepts requests and does not answer them until [`Idp::recover`].
    pub fn hang(&self) {
        self.shared.answer.send_replace(Answer::Silence);
    }

    /// Answers with the key set again.
    pub fn recover(&self) {
        self.shared.answer.send_replace(Answer::Keys);
    }

    /// Returns the key that signs.
    pub fn key(&self) -> Key {
        self.keys().first().cloned().expect("a provider has a key")
    }

    /// Returns the claims of a good JWT that lives 60 s, with `overrides` laid over: `null` removes a claim.
    pub fn claims(&self, overrides: &Value) -> Value {
        let now = SystemClock::new().now().unix_seconds();
        let mut claims = json!({
            "iss": self.issuer(),
            "sub": "user_2abc000000000000000000000",
            "sid": format!("sess_{}", uuid::Uuid::new_v4().simple()),
            "azp": "https://app.example.com",
            "iat": now,
            "nbf": now - 10,
            "exp": now + 60,
            "jti": uuid::Uuid::new_v4().simple().to_string(),
            "v": 2,
            "sts": "active",
            "fva": [0, -1],
        });
        let (Some(into), Some(over)) = (claims.as_object_mut(), overrides.as_object()) else {
            panic!("overrides are a JSON object");
        };
        into.extend(over.clone());
        into.retain(|_, value| !value.is_null());
        claims
    }

    /// Returns a JWT with [`Idp::claims`], signed by the current key.
    pub fn mint(&self, overrides: &Value) -> String {
        self.key().sign(&self.claims(overrides))
    }

    /// Returns a good JWT for `subject`, which begins with `user_`.
    pub fn mint_for(&self, subject: &str) -> String {
        self.mint(&json!({"sub": subject}))
    }

    fn keys(&self) -> std::sync::MutexGuard<'_, Vec<Key>> {
        self.shared.keys.lock().expect("no holder panics")
    }
}

/// Returns what a signature covers: header and claims, without the signature itself.
pub fn unsigned(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

async fn key_set(State(shared): State<Arc<Shared>>) -> Response {
    shared.fetches.fetch_add(1, Ordering::SeqCst);
    let mut answer = shared.answer.subscribe();
    let spoken = answer.wait_for(|answer| *answer != Answer::Silence);
    let failed = within("a hanging provider to recover", spoken).await.is_ok_and(|answer| *answer == Answer::Failure);
    if failed {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let keys: Vec<Jwk> = shared.keys.lock().expect("no holder panics").iter().map(Key::public).collect();
    ([("content-type", "application/json")], json!({ "keys": keys }).to_string()).into_response()
}
