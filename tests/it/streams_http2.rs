//! A request over HTTP/2 that nobody has answered when its session ends is refused, whatever it waits
//! for and whatever the application speaks; one whose answer has begun is reset. Nothing of it stays
//! behind on the application's side, and the connection's other streams live on.

use std::time::Duration;

use http::Method;
use tokio::net::TcpListener;

use crate::support::client::{Response, sign_in_guest};
use crate::support::doorward::{Builder, Doorward};
use crate::support::h2_client::{H2Call, H2Client};
use crate::support::h2_upstream::H2Upstream;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::{FIRST_EVENT, Upstream};
use crate::support::{eventually, within};

const REVOKED: &str = r#"{"detail":"Invalid token: session revoked"}"#;
const EXPIRED: &str = r#"{"detail":"Token expired"}"#;
const H2: &str = "upstream: { protocol: http2 }";
/// The first window of an HTTP/2 stream (RFC 9113 §6.9.2).
const WINDOW: usize = 65_535;

/// An application that hangs, and what it speaks.
enum App {
    Http1(Upstream),
    Http2(H2Upstream),
}

/// A caller with a session, on a connection of its own.
struct Caller {
    connection: H2Client,
    token: String,
}

impl App {
    fn doorward(&self) -> Builder {
        Doorward::builder().upstream(match self {
            Self::Http1(upstream) => upstream.url(),
            Self::Http2(upstream) => upstream.url(),
        })
    }

    /// Waits for a request and as much of its body.
    async fn arrived(&self, target: &str, body: &str) {
        match self {
            Self::Http1(upstream) => {
                upstream.wait_for(|request| request.target == target && request.body == body.as_bytes()).await;
            }
            Self::Http2(upstream) => {
                upstream.wait_for(|call| call.path == target && call.body == body.as_bytes()).await;
            }
        }
    }

    /// Waits until a request that arrived was given up.
    async fn given_up(&self, target: &str) {
        match self {
            Self::Http1(upstream) => {
                let request = upstream.wait_for(|request| request.target == target).await;
                upstream.closed(&request).await;
            }
            Self::Http2(upstream) => {
                upstream.wait_for(|call| call.path == target && call.reset).await;
            }
        }
    }
}

impl Caller {
    async fn new(doorward: &Doorward, device: &str) -> Self {
        let token = sign_in_guest(doorward, device).await;
        Self { connection: H2Client::connect(doorward.proxy_addr()).await, token }
    }

    /// Sends a request without a body and returns the whole answer.
    async fn request(&self, method: Method, path: &str) -> Response {
        let bearer = format!("Bearer {}", self.token);
        let answer = self.connection.request(method, path, &[("authorization", bearer.as_bytes())]).await;
        answer.unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Sends the first piece of a request's body.
    async fn begin(&self, path: &str, piece: &str) -> H2Call {
        let bearer = format!("Bearer {}", self.token);
        let mut call = self.connection.open(path, &[("authorization", &bearer)]).await;
        call.send(piece);
        call
    }

    async fn revoke(&self, doorward: &Doorward) {
        let response = doorward.client().delete("/auth/session").bearer(&self.token).send().await;
        assert_eq!(response.status, 200, "{}", response.text());
    }
}

fn assert_refused(response: &Response, body: &str, what: &str) {
    assert_eq!((response.status, response.text().as_str()), (401, body), "{what}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{what}");
    assert_eq!(response.header("www-authenticate"), Some(r#"Bearer error="invalid_token""#), "{what}");
    assert_eq!(response.header("set-cookie"), None, "{what}");
}

async fn metric(doorward: &Doorward, series: &str) -> u64 {
    let text = doorward.admin_get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in {text}"))
}

/// Every shape of a request that hangs is refused when its session is revoked.
async fn hanging_requests_are_refused(app: &App, doorward: &Doorward, what: &str) {
    let caller = Caller::new(doorward, what).await;
    let mut whole = caller.begin("/hang?whole", "all there is").await;
    whole.finish();
    let mut half = caller.begin("/hang?half", "the first half").await;
    let revoking = async {
        app.arrived("/hang?get", "").await;
        app.arrived("/hang?head", "").await;
        app.arrived("/hang?whole", "all there is").await;
        app.arrived("/hang?half", "the first half").await;
        caller.revoke(doorward).await;
    };
    let (get, head, ()) =
        tokio::join!(caller.request(Method::GET, "/hang?get"), caller.request(Method::HEAD, "/hang?head"), revoking);
    assert_refused(&get, REVOKED, what);
    assert_refused(&whole.whole().await.expect("an answer, no reset"), REVOKED, what);
    assert_refused(&half.whole().await.expect("an answer, no reset"), REVOKED, what);
    assert_refused(&head, "", what);
    assert_eq!(head.header("content-length"), Some(REVOKED.len().to_string().as_str()), "{what}");
    for target in ["/hang?get", "/hang?head", "/hang?whole", "/hang?half"] {
        app.given_up(target).await;
    }
    assert_eq!(metric(doorward, r#"doorward_streams_cut_total{reason="revoked"}"#).await, 4, "{what}");
    let logged = async || {
        let logs = doorward.logs();
        let lines: Vec<_> = logs.lines().filter(|line| line.contains(r#""url.path":"/hang""#)).collect();
        let told = |line: &&&str| {
            line.contains(r#""http.response.status_code":401"#) && line.contains(r#""auth.reason":"revoked""#)
        };
        (lines.len() == 4).then(|| assert_eq!(lines.iter().filter(told).count(), 4, "{what}: {lines:?}"))
    };
    eventually("the access log's lines", logged).await;
    let id = get.header("x-request-id").expect("every answer names its request");
    assert!(doorward.logs().contains(id), "{what}");
    // The connection is as good as before.
    let other = Caller { connection: caller.connection, token: sign_in_guest(doorward, "other").await };
    assert_eq!(other.request(Method::GET, "/").await.status, 200, "{what}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_request_whose_session_was_revoked_is_refused_whatever_the_application_speaks() {
    let (authority, directory) = (Authority::new(), TempDir::new("hung"));
    let ca = directory.join("ca.pem");
    authority.write(&ca);
    let trust = format!("upstream: {{ ca: '{}', server_name: app.test }}", ca.display());
    let acceptor = |alpn: &str| authority.identity(&["app.test"]).acceptor(&[alpn]);
    for (what, app, config) in [
        ("HTTP/1", App::Http1(Upstream::start().await), "{}"),
        ("HTTP/1 over TLS", App::Http1(Upstream::tls(acceptor("http/1.1")).await), trust.as_str()),
        ("HTTP/1 on a unix socket", App::Http1(Upstream::unix(&directory.join("app.sock"))), "{}"),
        ("HTTP/2", App::Http2(H2Upstream::start().await), H2),
        ("HTTP/2 over TLS", App::Http2(H2Upstream::tls(acceptor("h2")).await), trust.as_str()),
    ] {
        let doorward = app.doorward().config(config).start().await;
        hanging_requests_are_refused(&app, &doorward, what).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_cannot_even_be_sent_is_refused_when_its_session_is_revoked() {
    // An application whose window is full.
    let stuck = H2Upstream::start().await;
    let doorward = Doorward::builder().upstream(stuck.url()).config(H2).start().await;
    let caller = Caller::new(&doorward, "stuck").await;
    let mut call = caller.begin("/stuck", &"x".repeat(3 * WINDOW)).await;
    stuck.wait_for(|call| call.path == "/stuck" && call.body.len() == WINDOW).await;
    caller.revoke(&doorward).await;
    assert_refused(&call.whole().await.expect("an answer, no reset"), REVOKED, "a full window");
    stuck.wait_for(|call| call.path == "/stuck" && call.reset).await;

    // One that accepts connections and does nothing with them: the handshake of TLS hangs.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("https://{}", silent.local_addr().expect("a bound socket has an address"));
    let patience = "upstream: { connect_timeout: 5m }";
    let doorward = Doorward::builder().upstream(&url).config(patience).start().await;
    let caller = Caller::new(&doorward, "silent").await;
    let mut call = caller.begin("/", "hello").await;
    let _open = within("a connection to the application", silent.accept()).await.expect("it listens");
    caller.revoke(&doorward).await;
    assert_refused(&call.whole().await.expect("an answer, no reset"), REVOKED, "a handshake that hangs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_request_whose_session_expires_is_told_so() {
    for (app, config) in [(App::Http1(Upstream::start().await), "{}"), (App::Http2(H2Upstream::start().await), H2)] {
        let doorward = app.doorward().config(config).config("sessions: { ttl: 2s }").start().await;
        let caller = Caller::new(&doorward, "device").await;
        let mut half = caller.begin("/hang?half", "the first half").await;
        let (get, ()) =
            tokio::join!(caller.request(Method::GET, "/hang?get"), app.arrived("/hang?half", "the first half"));
        assert_refused(&get, EXPIRED, "GET");
        assert_refused(&half.whole().await.expect("an answer, no reset"), EXPIRED, "half a body");
        app.given_up("/hang?get").await;
        app.given_up("/hang?half").await;
        assert_eq!(metric(&doorward, r#"doorward_streams_cut_total{reason="expired"}"#).await, 2);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_has_begun_is_reset_and_not_followed_by_another() {
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().upstream(upstream.url()).start().await;
    let caller = Caller::new(&doorward, "device").await;
    let mut events = caller.begin("/sse", "").await;
    events.finish();
    assert_eq!(events.head().await.status, 200);
    assert!(events.next().await.expect("it is open").expect("an event").starts_with(FIRST_EVENT.as_bytes()));
    let request = upstream.wait_for(|request| request.target == "/sse").await;
    caller.revoke(&doorward).await;
    let end = async {
        loop {
            match events.next().await {
                Ok(Some(piece)) => assert!(piece.starts_with(b"data: "), "{piece:?}"),
                Ok(None) => panic!("it must not look complete"),
                Err(error) => return error,
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(30), end).await.expect("it is cut");
    assert!(error.is_reset(), "{error}");
    upstream.closed(&request).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_its_stream_takes_the_applications_request_with_it() {
    for (app, config) in [(App::Http1(Upstream::start().await), "{}"), (App::Http2(H2Upstream::start().await), H2)] {
        let doorward = app.doorward().config(config).start().await;
        let caller = Caller::new(&doorward, "device").await;
        let mut whole = caller.begin("/hang?whole", "all there is").await;
        whole.finish();
        let half = caller.begin("/hang?half", "the first half").await;
        app.arrived("/hang?whole", "all there is").await;
        app.arrived("/hang?half", "the first half").await;
        drop((whole, half));
        app.given_up("/hang?whole").await;
        app.given_up("/hang?half").await;
        assert_eq!(caller.request(Method::GET, "/").await.status, 200);
        assert_eq!(metric(&doorward, r#"doorward_streams_cut_total{reason="revoked"}"#).await, 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_its_stream_is_noticed_while_its_body_waits_for_the_application() {
    let stuck = H2Upstream::start().await;
    // Nothing but the reset can end the wait in the time that this test has.
    let patience = "upstream: { protocol: http2, write_timeout: 5m, read_timeout: 5m }";
    let doorward = Doorward::builder().upstream(stuck.url()).config(patience).start().await;
    let caller = Caller::new(&doorward, "device").await;
    let call = caller.begin("/stuck", &"x".repeat(3 * WINDOW)).await;
    stuck.wait_for(|call| call.path == "/stuck" && call.body.len() == WINDOW).await;
    drop(call);
    stuck.wait_for(|call| call.path == "/stuck" && call.reset).await;
    doorward.wait_log(r#""url.path":"/stuck""#).await;
    assert!(!doorward.logs().contains("session_cut"), "its session goes on");
    // What it had sent is no burden on the connection, whose window it had used up.
    let bearer = format!("Bearer {}", caller.token);
    let large = "y".repeat(2 * WINDOW);
    let answer = caller.connection.call("/large", &[("authorization", &bearer)], &large).await;
    assert!(answer.status == 200 && answer.text() == large, "{} {}", answer.status, answer.body.len());
}
