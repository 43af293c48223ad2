//! Secrets stay secret: distinct marked secrets go through every flow, and none of them comes out.
//!
//! Looked at: everything the process writes at its most talkative level, its metrics and probes,
//! and every answer that is Doorward's own. The answer that hands out a token is the one exception.

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use doorward::model::TokenKind;
use doorward::time::Timestamp;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::Response;
use crate::support::doorward::Doorward;
use crate::support::h2_client::H2Client;
use crate::support::idp::{Idp, Key};
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::{eventually, within};
use crate::surface::answers::{PATIENT, TOKEN_KEY, key_ring, known_key, now, stray_token, token_of};

const TEXT: &str = "telemetry: { log_level: trace, log_format: text }";
const TRACE: &str = "telemetry: { log_level: trace }";
const ROUTES: &str = "routes: [{ path: '/open/**', auth: none }, { path: '/maybe/**', auth: optional }, \
                      { path: '/roles', auth: required, require_any_role: ['org:nobody'] }]";

/// Where a token carries its secret (`model::token`).
const SECRET_OF_TOKEN: std::ops::Range<usize> = 26..42;

/// What must not come out, and what did come out.
struct Watch {
    secrets: Vec<(String, String)>,
    answers: Vec<String>,
}

impl Watch {
    fn new() -> Self {
        Self { secrets: Vec::new(), answers: Vec::new() }
    }

    /// Makes up a secret that nothing else contains.
    fn make(&mut self, name: &str) -> String {
        let secret = format!("canary{}", uuid::Uuid::new_v4().simple());
        self.know(name, &secret);
        secret
    }

    fn know(&mut self, name: &str, secret: &str) {
        assert!(secret.len() >= 16, "{name} is too short to be told apart");
        self.secrets.push((name.to_owned(), secret.to_owned()));
        self.secrets.push((format!("{name} in base64"), STANDARD.encode(secret).trim_end_matches('=').to_owned()));
    }

    /// A JWT is given away by its claims as much as by its signature.
    fn jwt(&mut self, name: &str, jwt: String) -> String {
        for (number, part) in jwt.split('.').enumerate().skip(1).filter(|(_, part)| part.len() >= 16) {
            self.know(&format!("{name}, part {number}"), part);
        }
        jwt
    }

    /// A token is given away by its text and by its secret, and a record by the digest of that.
    fn token(&mut self, name: &str, token: String) -> String {
        self.know(name, token.trim_start_matches("dw_"));
        if let Ok(parsed) = key_ring().parse(&[TokenKind::Access, TokenKind::Refresh], &token) {
            let raw = URL_SAFE_NO_PAD.decode(token.trim_start_matches("dw_")).expect("it was parsed");
            for (what, bytes) in [("secret", &raw[SECRET_OF_TOKEN]), ("verifier", &parsed.verifier().0[..])] {
                // A part of it would do.
                let part = &bytes[..12];
                let list = part.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
                let base64url = URL_SAFE_NO_PAD.encode(part);
                for (form, text) in [("hex", hex(part)), ("list", list), ("base64url", base64url)] {
                    self.secrets.push((format!("{what} of {name} as {form}"), text));
                }
                self.secrets.push((format!("{what} of {name} in base64"), STANDARD.encode(part)));
            }
        }
        token
    }

    /// Takes down an answer that is Doorward's own.
    fn heard(&mut self, response: &Response) -> u16 {
        self.answers.push(format!("{} {:?} {}", response.status, response.headers, response.text()));
        response.status
    }

    fn assert_kept(&self, place: &str, text: &str) {
        for (name, secret) in &self.secrets {
            assert!(!text.contains(secret.as_str()), "{name} ({secret}) is in {place}:\n{}", around(text, secret));
        }
    }

    fn assert_all_kept(&self, logs: &str, pages: &[String]) {
        self.assert_kept("the logs", logs);
        for page in pages {
            self.assert_kept("an admin page", page);
        }
        for answer in &self.answers {
            self.assert_kept("an answer", answer);
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}

fn around(text: &str, secret: &str) -> String {
    text.lines().filter(|line| line.contains(secret)).take(3).collect::<Vec<_>>().join("\n")
}

/// Writes bytes that may be no HTTP at all, ends the request, and returns whatever comes back.
async fn shout(doorward: &Doorward, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(doorward.proxy_addr()).await.expect("the server listens");
    let mut answer = Vec::new();
    let _ = stream.write_all(bytes).await;
    let _ = stream.shutdown().await;
    let _ = within("the server to close", stream.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

async fn admin_pages(doorward: &Doorward) -> Vec<String> {
    let mut pages = Vec::new();
    for path in ["/metrics", "/readyz", "/livez", "/startupz", "/readyz?verbose=1"] {
        pages.push(doorward.admin_get(path).await.text());
    }
    pages
}

async fn logs_after_end(mut doorward: Doorward) -> String {
    doorward.signal("TERM");
    doorward.wait_exit().await;
    doorward.logs()
}

/// Exchange, guest, guard by header and by cookie, an eviction, logout.
async fn sessions_come_and_go(watch: &mut Watch, doorward: &Doorward, idp: &Idp) -> String {
    let client = doorward.client();
    let jwt = watch.jwt("a JWT", idp.mint_for("user_alice"));
    let token = token_of(&client.post("/auth/session").bearer(&jwt).send().await);
    let token = watch.token("a token", token);
    let device = watch.make("a device id");
    let guest = token_of(&client.post("/auth/anonymous").json(&json!({"device_id": device})).send().await);
    let guest = watch.token("a guest's token", guest);
    let query = watch.make("a query's secret");
    assert_eq!(client.get(&format!("/private?token={query}")).bearer(&token).send().await.status, 200);
    assert_eq!(client.get("/private").cookie("session", &guest).send().await.status, 200);
    for number in 0..2 {
        let jwt = watch.jwt("a later JWT", idp.mint_for("user_alice"));
        let later = token_of(&client.post("/auth/session").bearer(&jwt).send().await);
        watch.token(&format!("a later token {number}"), later);
    }
    let evicted = watch.heard(&client.get("/private").bearer(&token).send().await);
    assert_eq!(evicted, 401);
    assert_eq!(client.delete("/auth/session").bearer(&guest).send().await.status, 200);
    assert_eq!(watch.heard(&client.get("/private").bearer(&guest).send().await), 401);
    jwt
}

/// Open routes carry what they carry; nobody here looks at it, or writes it down.
async fn open_routes_carry_secrets(watch: &mut Watch, doorward: &Doorward, upstream: &Upstream) {
    let client = doorward.client();
    let basic = watch.make("an Authorization header on an open route");
    let foreign = watch.make("a cookie of the application");
    let response = client.get("/open/x").header("authorization", &format!("Basic {basic}"));
    assert_eq!(response.cookie("app", &foreign).send().await.status, 200);
    let seen = upstream.wait_for(|request| request.target == "/open/x").await;
    assert_eq!(seen.header("cookie"), Some(&*format!("app={foreign}")), "the flow really carries them");
    let body = watch.make("a request body");
    assert_eq!(client.post("/open/y").body(body.clone()).send().await.status, 200);
    let set_cookie = watch.make("a cookie that the application sets");
    let answer = format!("HTTP/1.1 200 OK\r\nset-cookie: s={set_cookie}\r\ncontent-length: 0\r\n\r\n");
    upstream.respond("/open/cookie", &answer);
    let answer = client.get("/open/cookie").send().await;
    assert_eq!(answer.header("set-cookie"), Some(&*format!("s={set_cookie}")));
}

async fn jwts_are_refused(watch: &mut Watch, doorward: &Doorward, idp: &Idp, used: String) {
    let client = doorward.client();
    for (name, jwt) in [
        ("a forged JWT", Key::generate("ins_other").sign(&idp.claims(&json!({})))),
        ("an expired JWT", idp.mint(&json!({"exp": 1}))),
        ("a JWT of another issuer", idp.mint(&json!({"iss": "https://evil.example.com"}))),
        ("a pending JWT", idp.mint(&json!({"sts": "pending"}))),
        ("a JWT with a broken claim", idp.mint(&json!({"o": watch.make("a claim")}))),
        ("a used JWT", used),
    ] {
        let jwt = watch.jwt(name, jwt);
        for request in [client.post("/auth/session"), client.delete("/auth/session"), client.get("/private")] {
            assert_eq!(watch.heard(&request.bearer(&jwt).send().await), 401, "{name}");
        }
        assert_eq!(watch.heard(&client.get("/private").cookie("session", &jwt).send().await), 401, "{name}");
        let twice = client.post("/auth/session").bearer(&jwt).bearer(&jwt).send().await;
        assert_eq!(watch.heard(&twice), 401);
    }
    let limited = watch.jwt("a JWT too many", idp.mint_for("user_alice"));
    for _ in 0..6 {
        watch.heard(&client.post("/auth/session").bearer(&limited).send().await);
    }
    assert!(watch.answers.iter().any(|answer| answer.starts_with("429")), "the limit was reached");
}

async fn tokens_are_refused(watch: &mut Watch, doorward: &Doorward) {
    let client = doorward.client();
    let soon = in_ten_minutes();
    for (name, token) in [
        ("a token without a session", stray_token(TokenKind::Access, soon)),
        ("an expired token", stray_token(TokenKind::Access, Timestamp(now().0 - 10_000))),
        ("a refresh token", stray_token(TokenKind::Refresh, soon)),
        ("what looks like a token", format!("dw_{}", watch.make("garbage"))),
    ] {
        let token = watch.token(name, token);
        for request in [client.post("/auth/session"), client.delete("/auth/session"), client.get("/maybe/x")] {
            assert_eq!(watch.heard(&request.bearer(&token).send().await), 401, "{name}");
        }
        for cookie in [token.clone(), format!("{token}; session={token}"), format!("\"{token}\"")] {
            let answer = client.get("/private").cookie("session", &cookie).send().await;
            assert_eq!(watch.heard(&answer), 401, "{name}");
            watch.heard(&client.post("/private").cookie("session", &cookie).send().await);
        }
    }
}

async fn requests_are_refused(watch: &mut Watch, doorward: &Doorward) {
    let client = doorward.client();
    let (query, body) = (watch.make("a refused query"), watch.make("a refused body"));
    let (basic, foreign) = (watch.make("a refused Authorization"), watch.make("a refused cookie"));
    let device = watch.make("a device id in a broken body");
    for body in [
        format!(r#"{{"device_id":"{device}""#),
        format!(r#"{{"device_id":["{device}"]}}"#),
        format!(r#"{{"device_id":"{}"}}"#, device.repeat(20)),
        format!(r#"{{"device_id":"{device}","device_id":"{device}"}}"#),
        format!(r#"{{"{device}":"{}"}}"#, "x".repeat(70_000)),
    ] {
        let request = client.post("/auth/anonymous").header("content-type", "application/json");
        assert!([413, 422].contains(&watch.heard(&request.body(body.clone()).send().await)));
        assert_eq!(watch.heard(&client.post("/auth/session").body(body).send().await), 401);
    }
    let form = client.post("/auth/anonymous").header("content-type", &format!("text/{device}"));
    assert_eq!(watch.heard(&form.body(device).send().await), 415);
    for path in ["/auth/x", "/auth//x", "/auth/session", "/roles", "/auth/anonymous"] {
        watch.heard(&client.get(&format!("{path}?access_token={query}")).send().await);
    }
    let h2 = H2Client::connect(doorward.proxy_addr()).await;
    let authorization = format!("Basic {basic}");
    let headers = [("authorization", authorization.as_str()), ("cookie", &foreign)];
    watch.heard(&h2.call(&format!("/auth/x?{query}"), &headers, &body).await);
    watch.heard(&h2.call(&format!("/private?{query}"), &headers, &body).await);
}

async fn the_store_goes_away(watch: &mut Watch, doorward: &Doorward, idp: &Idp, redis: &mut Redis) {
    let client = doorward.client();
    let device = watch.make("a device id in an outage");
    redis.kill();
    eventually("the outage to be noticed", async || {
        let answer = client.post("/auth/anonymous").json(&json!({"device_id": device})).send().await;
        (watch.heard(&answer) == 503).then_some(())
    })
    .await;
    let jwt = watch.jwt("a JWT in an outage", idp.mint_for("user_carol"));
    assert_eq!(watch.heard(&client.post("/auth/session").bearer(&jwt).send().await), 503);
    let stray = watch.token("a token in an outage", stray_token(TokenKind::Access, in_ten_minutes()));
    assert_eq!(watch.heard(&client.delete("/auth/session").bearer(&stray).send().await), 503);
    watch.heard(&client.get("/private").bearer(&stray).send().await);
    redis.restart().await;
}

fn in_ten_minutes() -> Timestamp {
    Timestamp(now().0 + 600_000)
}

/// Returns requests that cannot be understood, or are broken off.
fn malformed_requests(secret: &str, token: &str) -> Vec<String> {
    let host = "host: a\r\n";
    let credentials = format!("authorization: Bearer {token}\r\ncookie: session={token}\r\nx-api-key: {secret}\r\n");
    vec![
        format!("GET /open/x?{secret} HTTP/1.1\r\n{credentials}broken line {secret}\r\n\r\n"),
        format!("GET /open/x?{secret} HTTP/1.1\r\n{host}bad name: {secret}\r\n{credentials}\r\n"),
        format!("GET /open/x HTTP/1.1\r\n{host}x: {secret}\0\r\n{credentials}\r\n"),
        format!("GET /open/{{}}?{secret} HTTP/9.9\r\n{host}{credentials}\r\n"),
        format!("{secret}\r\n\r\n"),
        format!("G\x01T /open/{secret} HTTP/1.1\r\n{host}{credentials}\r\n"),
        format!("GET /open/x?{secret}\x7f HTTP/1.1\r\n{host}{credentials}\r\n"),
        format!("GET /open/x HTTP/1.1\r\n{host}{host}{credentials}\r\n"),
        format!("GET /open/x HTTP/1.1\r\n{credentials}\r\n"),
        format!("GET /open/x?{secret} HTTP/1.1\r\n{host}{credentials}x: {}\r\n\r\n", secret.repeat(2000)),
        format!("GET http://u:{secret}@elsewhere/open/x HTTP/1.1\r\n{host}{credentials}\r\n"),
        format!("CONNECT u:{secret}@elsewhere:443 HTTP/1.1\r\n{host}{credentials}\r\n"),
        format!("GET /private HTTP/1.1\r\n{host}{credentials}half a head {secret}"),
        format!("POST /open/x HTTP/1.1\r\n{host}{credentials}content-length: 1000\r\n\r\n{secret}"),
        format!("POST /open/x HTTP/1.1\r\n{host}{credentials}content-length: {secret}\r\n\r\n{secret}"),
        format!("POST /open/x HTTP/1.1\r\n{host}{credentials}transfer-encoding: chunked\r\n\r\n{secret}\r\n{secret}"),
        format!(
            "POST /auth/anonymous HTTP/1.1\r\n{host}content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{secret}\r\n"
        ),
        format!(
            "POST /auth/anonymous HTTP/1.1\r\n{host}content-type: application/json\r\ncontent-length: 900\r\n\r\n{{\"device_id\":\"{secret}"
        ),
        format!("POST /auth/session HTTP/1.1\r\n{host}{credentials}transfer-encoding: {secret}\r\n\r\n"),
        format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{secret}{token}{secret}"),
        format!("PRI * HTTP/2.0\r\n\r\n{secret}"),
        format!(
            "GET /open/ws HTTP/1.1\r\n{host}{credentials}connection: upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: {secret}\r\n\r\n"
        ),
    ]
}

#[tokio::test]
async fn nothing_secret_is_logged_measured_or_answered_when_sessions_come_and_go() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let mut watch = Watch::new();
    let password = watch.make("the Redis password");
    watch.know("the token key", TOKEN_KEY);
    let mut redis = Redis::options().password(&password).start().await;
    let doorward = Doorward::builder()
        .upstream(upstream.url())
        .idp(&idp)
        .store(&redis.url())
        .config(PATIENT)
        .config(&known_key())
        .config(TRACE)
        .config(ROUTES)
        .config("sessions: { max_per_principal: 2 }\nclerk: { single_use: true }\nlimits: { exchange_per_minute: 6 }")
        .start()
        .await;

    let used = sessions_come_and_go(&mut watch, &doorward, &idp).await;
    open_routes_carry_secrets(&mut watch, &doorward, &upstream).await;
    jwts_are_refused(&mut watch, &doorward, &idp, used).await;
    tokens_are_refused(&mut watch, &doorward).await;
    requests_are_refused(&mut watch, &doorward).await;
    the_store_goes_away(&mut watch, &doorward, &idp, &mut redis).await;

    let pages = admin_pages(&doorward).await;
    assert!(pages[0].contains("doorward_login_attempts_total{method=\"clerk\",outcome=\"rate_limited\"}"));
    let logs = logs_after_end(doorward).await;
    for expected in ["session-started", "session-ended", "Session store did not answer", "\"url.path\":\"/open/x\""] {
        assert!(logs.contains(expected), "the logs are those of this run: {expected}");
    }
    watch.assert_all_kept(&logs, &pages);
}

#[tokio::test]
async fn nothing_secret_is_logged_when_the_bytes_are_no_request_or_the_application_fails() {
    let upstream = Upstream::start().await;
    let mut watch = Watch::new();
    let builder = Doorward::builder().upstream(upstream.url()).config(&known_key()).config(TRACE).config(ROUTES);
    let doorward = builder.start().await;
    let client = doorward.client();
    let secret = watch.make("a secret in a malformed request");
    let token =
        watch.token("a token in a malformed request", stray_token(TokenKind::Access, Timestamp(now().0 + 60_000)));

    for head in malformed_requests(&secret, &token) {
        // An answer of the application may carry what was sent to it; its own are Doorward's.
        let answer = shout(&doorward, head.as_bytes()).await;
        if !answer.starts_with("HTTP/1.1 200") {
            watch.answers.push(answer);
        }
    }
    let mut garbage = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec();
    garbage.extend(secret.as_bytes());
    garbage.extend([0; 64]);
    watch.answers.push(shout(&doorward, &garbage).await);

    // The application answers nonsense, half an answer, nothing, and then is gone.
    let theirs = watch.make("a secret of the application");
    for (path, answer) in [
        ("/open/nonsense", format!("{theirs} nonsense\r\n\r\n")),
        ("/open/broken", format!("HTTP/1.1 200 OK\r\nset-cookie: s={theirs}\r\nbroken line {theirs}\r\n\r\n")),
        ("/open/lengths", format!("HTTP/1.1 200 OK\r\ncontent-length: {theirs}\r\nset-cookie: {theirs}\r\n\r\n")),
        ("/open/chunks", format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{theirs}\r\n{theirs}\r\n")),
    ] {
        upstream.respond(path, &answer);
        let request = client.get(&format!("{path}?{secret}")).header("connection", "close");
        let request = request.bearer(&token).cookie("app", &secret);
        // A broken answer may break off after its head.
        if let Ok(answer) = request.try_send().await
            && answer.status >= 400
        {
            watch.heard(&answer);
        }
    }
    assert!(watch.answers.iter().any(|answer| answer.starts_with("502")), "the application was not understood");
    drop(upstream);
    let gone = client.post(&format!("/open/x?{secret}")).bearer(&token).body(secret.clone()).send().await;
    assert_eq!(watch.heard(&gone), 502);

    let pages = admin_pages(&doorward).await;
    let logs = logs_after_end(doorward).await;
    assert!(logs.contains("\"http.response.status_code\":502"), "{logs}");
    watch.assert_all_kept(&logs, &pages);
}

#[tokio::test]
async fn nothing_secret_is_logged_when_doorward_is_misconfigured() {
    let mut watch = Watch::new();
    let redis = Redis::options().password("the-real-one-never-used").start().await;
    let (password, key) = (watch.make("a wrong Redis password"), watch.make("a token key"));
    let user = watch.make("a password with a user");
    let keys = format!("{{ token: {{ keys: [{{ id: 1, secret: '{key}' }}] }} }}");
    let start = |store: String, more: &str| {
        let config = format!("sessions: {keys}\n{TEXT}\n{more}");
        Doorward::builder().store(&store).config(&config).spawn()
    };
    // These are refused at the start.
    for (store, more) in [
        (format!("redis://:{password}@127.0.0.1:notaport/"), ""),
        (format!("redis://:{password}@/"), "no_such_key: 1"),
        (format!("sqlite:///nowhere/{password}/x.db"), "sessions_: 1"),
        (format!("redis://u:{user}@127.0.0.1:1/{password}"), "listen: nowhere"),
    ] {
        let mut refused = start(store, more);
        assert!(!refused.wait_exit().await.success());
        if !more.starts_with("sessions_") {
            watch.assert_kept("what it said", &refused.logs());
        }
    }
    for config in [
        format!("sessions: {{ token: {{ keys: [{{ id: 1, secret: '{}' }}] }} }}", &key[..31]),
        format!("sessions: {{ token: {{ keys: [{{ id: [], secret: '{key}' }}] }} }}"),
        format!("sessions: {{ token: {{ keys: [{{ id: 1, secret: ['{key}'] }}] }} }}"),
        format!("sessions: {{ redis: {{ password: {{ fiel: '{key}' }} }} }}"),
        format!("clerk: {{ issuer: 'https://a.example.com', jwks_url: 'https://u:{key}@a.example.com/' }}"),
        format!("clerk: {{ issuer: 'https://u:{key}@a.example.com', jwks_url: 'nonsense' }}"),
        format!("upstream: {{ url: 'http://u:{key}@127.0.0.1:1' }}"),
    ] {
        let mut refused = Doorward::builder().config(&config).spawn();
        assert!(!refused.wait_exit().await.success());
        watch.assert_kept("what it said", &refused.logs());
        assert!(!refused.logs().contains(&key[..31]), "{}", refused.logs());
    }
    // A provider's address may carry a secret, too.
    let query = watch.make("a secret in the address of a key set");
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let silent = silent.local_addr().expect("a bound socket has an address");
    let failing = Idp::start().await;
    failing.fail();
    let failing = failing.issuer().trim_start_matches("http://").to_owned();
    let started = ["127.0.0.1:1", "no-such-host.invalid", &silent.to_string(), &failing].map(|host| {
        let url = format!("http://{host}/.well-known/jwks.json?key={query}");
        let clerk = format!("clerk: {{ issuer: 'https://clerk.example.com', jwks_url: '{url}' }}");
        Doorward::builder().config(&clerk).config(TRACE).spawn()
    });
    for doorward in started {
        doorward.wait_log("keys could not be loaded").await;
        let pages = admin_pages(&doorward).await;
        let logs = logs_after_end(doorward).await;
        watch.assert_all_kept(&logs, &pages);
    }
    // These start and never become ready.
    let started = [
        redis.url().replace("the-real-one-never-used", &password),
        format!("redis://nobody:{user}@127.0.0.1:{}/", redis.port()),
        format!("redis://:{password}@127.0.0.1:1/"),
        format!("redis://:{password}@no-such-host.invalid/"),
    ]
    .map(|store| start(store, ""));
    for doorward in started {
        eventually("the proxy port to open", async || doorward.client().get("/auth").try_send().await.ok()).await;
        let refused = doorward.client().post("/auth/anonymous").json(&json!({"device_id": "x"})).send().await;
        assert_eq!(watch.heard(&refused), 503);
        assert_eq!(doorward.admin_get("/readyz").await.status, 503);
        let pages = admin_pages(&doorward).await;
        let logs = logs_after_end(doorward).await;
        watch.assert_all_kept(&logs, &pages);
    }
}

#[test]
fn the_watch_finds_what_it_watches_for() {
    let mut watch = Watch::new();
    let token = watch.token("a token", stray_token(TokenKind::Access, Timestamp(now().0 + 60_000)));
    let Ok(parsed) = key_ring().parse(&[TokenKind::Access], &token) else { panic!("a good token") };
    let raw = URL_SAFE_NO_PAD.decode(&token["dw_".len()..]).expect("base64url");
    for bytes in [parsed.verifier().0.to_vec(), raw[SECRET_OF_TOKEN].to_vec()] {
        let forms = [format!("{bytes:?}"), hex(&bytes), URL_SAFE_NO_PAD.encode(&bytes), STANDARD.encode(&bytes)];
        for text in forms.into_iter().chain([format!("x{token}x")]) {
            assert!(watch.secrets.iter().any(|(_, secret)| text.contains(secret.as_str())), "{text}");
        }
    }
    let unrelated = URL_SAFE_NO_PAD.encode(digest(&SHA256, token.as_bytes()));
    watch.assert_kept("an unrelated text", &unrelated);
}
