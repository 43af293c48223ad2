//! A fake identity provider: real RSA keys, really signed JWTs, and a key server on a free port
//! that can be rotated, counted, held and made to fail. Names nothing of this crate, so that any
//! test binary can include it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// An issuer's key pair.
pub(crate) struct SigningKey(RsaKeyPair);

/// A key server. It stops with the runtime it was started on.
pub(crate) struct Idp {
    /// Where the key set is.
    pub(crate) jwks_url: String,
    state: Arc<Served>,
}

/// What the key server answers.
#[derive(Clone)]
pub(crate) enum Answer {
    /// 200 with these keys.
    Keys(Vec<Value>),
    /// 200 with this text.
    Text(String),
    /// This status and no body.
    Status(u16),
    /// This status and, all the same, these keys.
    KeysWithStatus(u16, Vec<Value>),
    /// 302 to this address.
    Redirect(String),
}

struct Served {
    answer: Mutex<Answer>,
    requests: AtomicUsize,
    open: watch::Sender<bool>,
}

struct TlsListener {
    tcp: TcpListener,
    acceptor: TlsAcceptor,
}

impl SigningKey {
    pub(crate) fn generate() -> Self {
        Self(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// Returns the public half as a JSON Web Key.
    pub(crate) fn jwk(&self, kid: &str) -> Value {
        let der = self.0.public_key().as_ref();
        let (n, e) = rsa_components(der);
        let [n, e] = [n, e].map(|part| URL_SAFE_NO_PAD.encode(part));
        json!({"kty": "RSA", "use": "sig", "alg": "RS256", "kid": kid, "n": n, "e": e})
    }

    /// Returns the public half as a PEM file.
    pub(crate) fn pem(&self) -> String {
        let der = self.0.public_key().as_der().unwrap();
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(der.as_ref()))
    }

    /// Returns a compact JWS over exactly these texts.
    pub(crate) fn sign_text(&self, header: &str, payload: &str) -> String {
        let message = unsigned(header, payload);
        let mut signature = vec![0; self.0.public_modulus_len()];
        self.0.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message.as_bytes(), &mut signature).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Returns a JWT.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }
}

impl Idp {
    /// Starts a key server in clear.
    pub(crate) async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (idp, router) = Self::at("http", address, answer);
        tokio::spawn(async move { axum::serve(listener, router).await });
        idp
    }

    /// Starts a key server with TLS.
    pub(crate) async fn start_tls(answer: Answer, config: rustls::ServerConfig) -> Self {
        let tcp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = tcp.local_addr().unwrap();
        let (idp, router) = Self::at("https", address, answer);
        let listener = TlsListener { tcp, acceptor: TlsAcceptor::from(Arc::new(config)) };
        tokio::spawn(async move { axum::serve(listener, router).await });
        idp
    }

    /// Changes what is answered from now on.
    pub(crate) fn answer(&self, answer: Answer) {
        *self.state.answer.lock().unwrap() = answer;
    }

    /// Returns how many requests arrived, answered or not.
    pub(crate) fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Lets requests wait unanswered until [`release`](Self::release).
    pub(crate) fn hold(&self) {
        self.state.open.send_replace(false);
    }

    /// Answers what waits.
    pub(crate) fn release(&self) {
        self.state.open.send_replace(true);
    }

    fn at(scheme: &str, address: SocketAddr, answer: Answer) -> (Self, Router) {
        let (answer, requests, open) = (Mutex::new(answer), AtomicUsize::new(0), watch::Sender::new(true));
        let state = Arc::new(Served { answer, requests, open });
        let jwks_url = format!("{scheme}://{address}/.well-known/jwks.json");
        let router = Router::new().fallback(serve).with_state(state.clone());
        (Self { jwks_url, state }, router)
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            let (stream, address) = self.tcp.accept().await.unwrap();
            if let Ok(stream) = self.acceptor.accept(stream).await {
                return (stream, address);
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        self.tcp.local_addr()
    }
}

/// Returns header and payload as the first two parts of a compact JWS.
pub(crate) fn unsigned(header: &str, payload: &str) -> String {
    format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
}

async fn serve(State(state): State<Arc<Served>>) -> Response {
    state.requests.fetch_add(1, Ordering::SeqCst);
    state.open.subscribe().wait_for(|open| *open).await.unwrap();
    let answer = state.answer.lock().unwrap().clone();
    match answer {
        Answer::Keys(keys) => json!({"keys": keys}).to_string().into_response(),
        Answer::KeysWithStatus(status, keys) => {
            (StatusCode::from_u16(status).unwrap(), json!({"keys": keys}).to_string()).into_response()
        }
        Answer::Text(text) => text.into_response(),
        Answer::Status(status) => StatusCode::from_u16(status).unwrap().into_response(),
        Answer::Redirect(to) => (StatusCode::FOUND, [(header::LOCATION, to)]).into_response(),
    }
}

// RSAPublicKey of RFC 8017 A.1.1: SEQUENCE { INTEGER n, INTEGER e }, DER.
fn rsa_components(der: &[u8]) -> (&[u8], &[u8]) {
    let (sequence, _) = der_value(der);
    let (n, rest) = der_value(sequence);
    let (e, _) = der_value(rest);
    (n.strip_prefix(&[0]).unwrap_or(n), e)
}

fn der_value(der: &[u8]) -> (&[u8], &[u8]) {
    let (length, rest) = match der[1] {
        long if long & 0x80 != 0 => {
            let (digits, rest) = der[2..].split_at(usize::from(long & 0x7f));
            (digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit)), rest)
        }
        short => (usize::from(short), &der[2..]),
    };
    rest.split_at(length)
}
