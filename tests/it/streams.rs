//! An exchange that is under way ends with its session: within the lease of a revocation, wherever
//! that was made, and when its lifetime is over. Both sides see it closed.

use std::time::Duration;

use doorward::time::{Clock, SystemClock};
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::chaos::Chaos;
use crate::support::client::{RawConnection, Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::h2_client::H2Client;
use crate::support::h2_upstream::H2Upstream;
use crate::support::redis::Redis;
use crate::support::upstream::{FIRST_EVENT, Recorded, Upstream};
use crate::support::{eventually, within};

/// The default lease.
const LEASE: Duration = Duration::from_secs(2);
const REVOKED: &str = r#"{"detail":"Invalid token: session revoked"}"#;
const UNAVAILABLE: &str = r#"{"detail":"Session store unavailable"}"#;

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

async fn revoke(doorward: &Doorward, token: &str) -> Instant {
    let response = doorward.client().delete("/auth/session").bearer(token).send().await;
    assert_eq!(response.status, 200, "{}", response.text());
    Instant::now()
}

#[expect(clippy::print_stdout, reason = "the figures are what a reader of the run wants to see")]
fn assert_within_lease(what: &str, since: Instant) {
    let took = since.elapsed();
    println!("{what}: {took:?}");
    assert!(took <= LEASE, "{what} took {took:?}");
}

async fn open_web_socket(doorward: &Doorward, path: &str, token: &str) -> WebSocketStream<TcpStream> {
    let opened = doorward.client().web_socket(path, &[("authorization", &bearer(token))]).await;
    let mut socket = opened.unwrap_or_else(|refusal| panic!("{}: {}", refusal.status, refusal.text()));
    echo(&mut socket).await;
    socket
}

async fn echo(socket: &mut WebSocketStream<TcpStream>) {
    socket.send(Message::text("are you there")).await.expect("the socket is open");
    let answer = within("an echo", socket.next()).await.expect("the socket is open").expect("it is sound");
    assert_eq!(answer, Message::text("are you there"));
}

/// Waits until the server closes the socket, properly or not.
async fn socket_closed(socket: &mut WebSocketStream<TcpStream>) {
    let closing = async { while let Some(Ok(_)) = socket.next().await {} };
    within("the socket to be closed", closing).await;
}

async fn begin(doorward: &Doorward, request_line: &str, token: &str, rest: &str) -> RawConnection {
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    let head = format!("{request_line} HTTP/1.1\r\nhost: app\r\nauthorization: {}\r\n{rest}", bearer(token));
    connection.write(head).await;
    connection
}

async fn arrived(upstream: &Upstream, path: &str) -> Recorded {
    upstream.wait_for_open(path).await
}

fn assert_says(response: &Response, status: u16, body: &str) {
    assert_eq!((response.status, response.text().as_str()), (status, body));
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("set-cookie"), None);
}

async fn metric(doorward: &Doorward, series: &str) -> u64 {
    let text = doorward.admin_get("/metrics").await.text();
    let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
    value.unwrap_or_else(|| panic!("no {series} in {text}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_on_another_replica_cuts_every_kind_of_exchange_on_both_sides() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let replica = || Doorward::builder().store(&redis.url()).upstream(upstream.url()).start();
    let (one, two) = tokio::join!(replica(), replica());

    let token = sign_in_guest(&one, "web socket").await;
    let mut socket = open_web_socket(&two, "/ws", &token).await;
    let request = arrived(&upstream, "/ws").await;
    let revoked = revoke(&one, &token).await;
    socket_closed(&mut socket).await;
    assert_within_lease("web socket, client side", revoked);
    upstream.closed(&request).await;
    assert_within_lease("web socket, application's side", revoked);

    let token = sign_in_guest(&one, "events").await;
    let mut events = two.client().get("/sse").bearer(&token).stream().await;
    assert!(events.next().await.expect("an event").starts_with(FIRST_EVENT.as_bytes()));
    let request = arrived(&upstream, "/sse").await;
    let revoked = revoke(&one, &token).await;
    assert!(!events.ended().await, "it must not look complete");
    assert_within_lease("events, client side", revoked);
    upstream.closed(&request).await;
    assert_within_lease("events, application's side", revoked);

    let token = sign_in_guest(&one, "upload").await;
    let mut upload = begin(&two, "POST /upload", &token, "content-length: 1000000\r\n\r\n").await;
    for _ in 0..3 {
        upload.write("drop by drop ").await;
    }
    let request = upstream.wait_for(|request| request.target == "/upload" && !request.body.is_empty()).await;
    let revoked = revoke(&one, &token).await;
    assert_says(&upload.response().await.expect("its answer was still open"), 401, REVOKED);
    upload.closed().await;
    assert_within_lease("slow upload, client side", revoked);
    upstream.closed(&request).await;
    assert_within_lease("slow upload, application's side", revoked);

    let token = sign_in_guest(&one, "download").await;
    // More than all buffers on the way take.
    let length = 64 << 20;
    upstream.respond("/big", &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{}", "x".repeat(length)));
    let mut download = begin(&two, "GET /big", &token, "\r\n").await;
    let request = arrived(&upstream, "/big").await;
    let revoked = revoke(&one, &token).await;
    upstream.closed(&request).await;
    assert_within_lease("slow download, application's side", revoked);
    let received = download.closed().await.len();
    assert!(received < length, "{received} bytes came");

    let token = sign_in_guest(&one, "hung").await;
    let mut hung = begin(&two, "GET /hang", &token, "\r\n").await;
    let request = arrived(&upstream, "/hang").await;
    let revoked = revoke(&one, &token).await;
    assert_says(&hung.response().await.expect("its answer was still open"), 401, REVOKED);
    hung.closed().await;
    assert_within_lease("hung application, client side", revoked);
    upstream.closed(&request).await;
    assert_within_lease("hung application, application's side", revoked);

    let token = sign_in_guest(&one, "hung h2").await;
    let connection = H2Client::connect(two.proxy_addr()).await;
    let mut call = connection.open("/hang", &[("authorization", &bearer(&token))]).await;
    call.finish();
    let request = arrived(&upstream, "/hang").await;
    let revoked = revoke(&one, &token).await;
    assert_says(&call.whole().await.expect("its answer was still open"), 401, REVOKED);
    assert_within_lease("hung application over HTTP/2, client side", revoked);
    upstream.closed(&request).await;
    assert_within_lease("hung application over HTTP/2, application's side", revoked);
    // Other streams of the connection live on.
    let other = sign_in_guest(&one, "other").await;
    assert_eq!(connection.call("/", &[("authorization", &bearer(&other))], "").await.status, 200);

    assert_eq!(metric(&two, r#"doorward_streams_cut_total{reason="revoked"}"#).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_on_another_replica_resets_a_grpc_stream_on_both_sides() {
    let (redis, upstream) = (Redis::start().await, H2Upstream::start().await);
    let replica = || {
        let protocol = "upstream: { protocol: http2 }";
        Doorward::builder().store(&redis.url()).upstream(upstream.url()).config(protocol).start()
    };
    let (one, two) = tokio::join!(replica(), replica());
    let token = sign_in_guest(&one, "grpc").await;
    let connection = H2Client::connect(two.proxy_addr()).await;
    let headers = [("authorization", bearer(&token)), ("content-type", "application/grpc".to_owned())];
    let mut call = connection.open("/chat", &headers.each_ref().map(|(name, value)| (*name, value.as_str()))).await;
    call.send("hello");
    assert_eq!(call.head().await.status, 200);
    assert_eq!(call.next().await.expect("it is open").expect("an echo"), "hello");
    let revoked = revoke(&one, &token).await;
    assert!(call.next().await.is_err_and(|error| error.is_reset()));
    assert_within_lease("gRPC stream, client side", revoked);
    upstream.wait_for(|call| call.path == "/chat" && call.reset).await;
    assert_within_lease("gRPC stream, application's side", revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_end_with_the_lifetime_of_their_session() {
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().upstream(upstream.url()).config("sessions: { ttl: 2s }").start().await;
    let began = Instant::now();
    let token = sign_in_guest(&doorward, "device").await;
    let mut socket = open_web_socket(&doorward, "/ws", &token).await;
    let mut hung = begin(&doorward, "GET /hang", &token, "\r\n").await;
    let requests = [arrived(&upstream, "/ws").await, arrived(&upstream, "/hang").await];
    socket_closed(&mut socket).await;
    assert!(began.elapsed() >= Duration::from_secs(2), "not before its time");
    assert_says(&hung.response().await.expect("its answer was still open"), 401, r#"{"detail":"Token expired"}"#);
    for request in &requests {
        upstream.closed(request).await;
    }
    // Ends fall on whole seconds.
    assert!(began.elapsed() <= Duration::from_secs(3) + LEASE, "{:?}", began.elapsed());
    let late = doorward.client().get("/").bearer(&token).send().await;
    assert_says(&late, 401, r#"{"detail":"Token expired"}"#);
    assert_eq!(metric(&doorward, r#"doorward_streams_cut_total{reason="expired"}"#).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_stream_route_the_sessions_lifetime_begins_anew_with_the_exchange() {
    let upstream = Upstream::start().await;
    let routes = "routes: [{ path: /ws, auth: required, stream: true }, { path: '/**', auth: required }]";
    let ttl = "sessions: { ttl: 5s }";
    let doorward = Doorward::builder().upstream(upstream.url()).config(routes).config(ttl).start().await;
    let (streaming, other) = tokio::join!(sign_in_guest(&doorward, "streaming"), sign_in_guest(&doorward, "other"));
    let clock = SystemClock::new();
    let old_enough = async || (clock.monotonic().0 >= 3_000).then_some(());
    eventually("the sessions to be three seconds old", old_enough).await;
    let mut socket = open_web_socket(&doorward, "/ws", &streaming).await;
    let request = arrived(&upstream, "/ws").await;
    let other_expired = async || {
        let answer = doorward.client().get("/").bearer(&other).send().await;
        (answer.status == 401).then(|| assert_says(&answer, 401, r#"{"detail":"Token expired"}"#))
    };
    eventually("the other session to expire", other_expired).await;
    echo(&mut socket).await;
    assert_eq!(doorward.client().get("/").bearer(&streaming).send().await.status, 200, "its token is good as well");
    socket_closed(&mut socket).await;
    upstream.closed(&request).await;
    assert_eq!(doorward.client().get("/").bearer(&streaming).send().await.status, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_outlive_a_short_disconnection_unless_their_session_was_ended_during_it() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let network = Chaos::to(redis.port()).await;
    // Long enough for all that happens during the disconnection, however loaded the machine is.
    let lease = "sessions: { revocation: { lease: 15s }, redis: { connect_timeout: 15s } }";
    let replica = |url: String| Doorward::builder().store(&url).upstream(upstream.url()).config(lease).start();
    let (one, two) = tokio::join!(replica(redis.url()), replica(redis.url_through(network.port())));
    let (kept, ended) = (sign_in_guest(&one, "kept").await, sign_in_guest(&one, "ended").await);
    let mut kept_socket = open_web_socket(&two, "/ws", &kept).await;
    let kept_request = arrived(&upstream, "/ws").await;
    let mut events = two.client().get("/sse").bearer(&ended).stream().await;
    assert!(events.next().await.expect("an event").starts_with(FIRST_EVENT.as_bytes()));
    let ended_request = arrived(&upstream, "/sse").await;
    network.cut();
    let deaf = async || (metric(&two, "doorward_store_up{backend=\"redis\"}").await == 0).then_some(());
    eventually("the replica to notice", deaf).await;
    // The next attempt to connect is under way while all this happens, and will succeed in the end.
    let clients = async || {
        let list: String = redis.command(&["CLIENT", "LIST"]).await;
        list.lines().count()
    };
    eventually("its connections to be gone", async || (clients().await <= 3).then_some(())).await;
    network.silence();
    eventually("its attempt to connect", async || (clients().await > 3).then_some(())).await;
    let mut while_deaf = open_web_socket(&two, "/ws", &ended).await;
    let revoked = revoke(&one, &ended).await;
    network.restore();
    assert!(!events.ended().await);
    socket_closed(&mut while_deaf).await;
    assert_within_lease("ended while nobody told us, client side", revoked);
    upstream.closed(&ended_request).await;
    assert_within_lease("ended while nobody told us, application's side", revoked);
    let back = async || (metric(&two, "doorward_store_reconnects_total{backend=\"redis\"}").await > 0).then_some(());
    eventually("the replica to reconnect", back).await;
    echo(&mut kept_socket).await;
    let revoked = revoke(&one, &kept).await;
    socket_closed(&mut kept_socket).await;
    upstream.closed(&kept_request).await;
    assert_within_lease("ended after the reconnect", revoked);
}

#[tokio::test(flavor = "multi_thread")]
async fn exchanges_are_cut_when_nobody_has_vouched_for_them_for_the_lease() {
    let (redis, upstream) = (Redis::start().await, Upstream::start().await);
    let network = Chaos::to(redis.port()).await;
    let url = redis.url_through(network.port());
    let doorward = Doorward::builder().store(&url).upstream(upstream.url()).start().await;
    let token = sign_in_guest(&doorward, "device").await;
    let mut socket = open_web_socket(&doorward, "/ws", &token).await;
    let mut hung = begin(&doorward, "GET /hang", &token, "\r\n").await;
    let connection = H2Client::connect(doorward.proxy_addr()).await;
    let mut call = connection.open("/hang?h2", &[("authorization", &bearer(&token))]).await;
    let requests =
        [arrived(&upstream, "/ws").await, arrived(&upstream, "/hang").await, arrived(&upstream, "/hang?h2").await];
    network.silence();
    let silent = Instant::now();
    let answers = [hung.response().await.expect("its answer was still open"), call.whole().await.expect("so was this")];
    for answer in &answers {
        assert_says(answer, 503, UNAVAILABLE);
        assert_eq!(answer.header("retry-after"), Some("3"), "not knowing is no refusal");
    }
    socket_closed(&mut socket).await;
    for request in &requests {
        upstream.closed(request).await;
    }
    // The lease counts from the last heartbeat that was answered; what comes on top is the cut itself.
    assert!(silent.elapsed() <= LEASE + Duration::from_millis(500), "{:?}", silent.elapsed());
    assert_eq!(metric(&doorward, r#"doorward_streams_cut_total{reason="store_unavailable"}"#).await, 3);
    network.restore();
    let again = async || (doorward.client().get("/").bearer(&token).send().await.status == 200).then_some(());
    eventually("the session to be good again", again).await;
}
