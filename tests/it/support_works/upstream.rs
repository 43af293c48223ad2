//! The recording upstreams.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, RawConnection, raw};
use crate::support::h2_client::H2Client;
use crate::support::h2_upstream::H2Upstream;
use crate::support::temp::TempDir;
use crate::support::upstream::{FIRST_EVENT, Upstream};
use crate::support::within;

fn address(url: &str) -> SocketAddr {
    url.strip_prefix("http://").and_then(|address| address.parse().ok()).expect("an upstream on TCP")
}

#[tokio::test]
async fn the_exact_bytes_are_recorded() {
    let upstream = Upstream::start().await;
    let head = "POST /a?b=c HTTP/1.1\r\nHOST: x\r\nX-user_ID:  me\r\ntransfer-encoding: chunked\r\n\r\n";
    let body = "3;ext=1\r\nabc\r\n2\r\nde\r\n0\r\nx-last: 1\r\n\r\n";
    let answer = raw(address(upstream.url()), format!("{head}{body}")).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["target"], "/a?b=c");
    assert_eq!(answer.json()["body"], "abcde");
    let requests = upstream.requests();
    let [request] = requests.as_slice() else { panic!("one request, not {requests:?}") };
    assert_eq!(String::from_utf8_lossy(&request.head), head);
    assert_eq!(String::from_utf8_lossy(&request.raw_body), body);
    assert_eq!(request.body, b"abcde");
    assert!(request.complete);
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/a?b=c"));
    assert_eq!(request.header("x-USER_id"), Some("me"));
    assert_eq!(request.headers.all("x-user_id"), ["me"]);
}

#[tokio::test]
async fn connections_are_told_apart() {
    let upstream = Upstream::start().await;
    let mut first = RawConnection::open(address(upstream.url())).await;
    for path in ["/1", "/2"] {
        first.write(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        assert_eq!(first.response().await.expect("an answer").status, 200);
    }
    raw(address(upstream.url()), "GET /3 HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("an answer");
    let connections: Vec<u64> = upstream.requests().iter().map(|request| request.connection).collect();
    assert_eq!(connections, [1, 1, 2]);
    assert_eq!(upstream.connections(), 2);
    assert!(upstream.is_open(&upstream.requests()[0]));
    drop(first);
    upstream.closed(&upstream.requests()[0]).await;
}

#[tokio::test]
async fn statuses_and_canned_answers() {
    let upstream = Upstream::start().await;
    let client = Client::new(address(upstream.url()));
    assert_eq!(client.get("/status/418").send().await.status, 418);
    let empty = client.get("/status/204").send().await;
    assert_eq!((empty.status, empty.body.len()), (204, 0));
    upstream
        .respond("/canned", "HTTP/1.1 299 Odd\r\nset-cookie: a=b\r\nset-cookie: c=d\r\ncontent-length: 2\r\n\r\nhi");
    let canned = client.get("/canned").send().await;
    assert_eq!((canned.status, canned.text().as_str()), (299, "hi"));
    assert_eq!(canned.headers.all("Set-Cookie"), ["a=b", "c=d"]);
    assert_eq!(canned.header("content-length"), Some("2"));
}

#[tokio::test]
async fn a_head_request_gets_no_body() {
    let upstream = Upstream::start().await;
    let mut connection = RawConnection::open(address(upstream.url())).await;
    connection.write("HEAD / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
    let answer = connection.head_response().await.expect("an answer");
    assert!(answer.header("content-length").is_some());
    assert_eq!(connection.closed().await, b"");
    let answer = Client::new(address(upstream.url())).request(Method::HEAD, "/").send().await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn a_hanging_request_is_seen_and_its_end_too() {
    let upstream = Upstream::start().await;
    let mut connection = RawConnection::open(address(upstream.url())).await;
    connection.write("GET /hang HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let request = upstream.wait_for(|request| request.target == "/hang").await;
    assert!(upstream.is_open(&request));
    drop(connection);
    upstream.closed(&request).await;
    assert!(!upstream.is_open(&request));
}

#[tokio::test]
async fn a_slow_body_waits_for_its_release() {
    let upstream = Upstream::start().await;
    let mut answer = Client::new(address(upstream.url())).get("/slow-body").stream().await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers.first("content-length"), Some("12"));
    assert_eq!(answer.next().await.as_deref(), Some(b"first-".as_slice()));
    upstream.release();
    assert_eq!(answer.next().await.as_deref(), Some(b"second".as_slice()));
    assert!(answer.ended().await);
}

#[tokio::test]
async fn a_body_broken_off_did_not_end_properly() {
    let upstream = Upstream::start().await;
    upstream.respond("/broken", "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort");
    let client = Client::new(address(upstream.url()));
    let mut answer = client.get("/broken").header("connection", "close").stream().await;
    assert!(!answer.ended().await);
    assert!(client.get("/broken").header("connection", "close").try_send().await.is_err());
}

#[tokio::test]
async fn events_flow_until_the_caller_leaves() {
    let upstream = Upstream::start().await;
    let mut answer = Client::new(address(upstream.url())).get("/sse").stream().await;
    assert_eq!(answer.headers.first("content-type"), Some("text/event-stream"));
    assert_eq!(answer.next().await.as_deref(), Some(FIRST_EVENT.as_bytes()));
    assert_eq!(answer.next().await.as_deref(), Some(b"data: 1\n\n".as_slice()));
    let request = upstream.wait_for(|request| request.target == "/sse").await;
    assert!(upstream.is_open(&request));
    drop(answer);
    upstream.closed(&request).await;
}

#[tokio::test]
async fn web_sockets_echo_and_are_recorded() {
    let upstream = Upstream::start().await;
    let client = Client::new(address(upstream.url()));
    let headers = [("authorization", "Bearer t"), ("cookie", "session=t")];
    let mut socket = client.web_socket("/ws?x=1", &headers).await.expect("an upgrade");
    socket.send(Message::text("hello")).await.expect("the socket is open");
    let echo = within("the echo", socket.next()).await.expect("a message").expect("no error");
    assert_eq!(echo, Message::text("hello"));
    let request = upstream.wait_for(|request| request.body == b"hello").await;
    assert_eq!(request.target, "/ws?x=1");
    assert_eq!((request.header("authorization"), request.header("cookie")), (Some("Bearer t"), Some("session=t")));
    drop(socket);
    upstream.closed(&request).await;
    let refusal = client.web_socket("/status/403", &[]).await.expect_err("no upgrade");
    assert_eq!(refusal.status, 403);
}

#[tokio::test]
async fn uploads_are_recorded_as_they_arrive() {
    let upstream = Upstream::start().await;
    let mut connection = RawConnection::open(address(upstream.url())).await;
    connection
        .write("POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\nexpect: 100-continue\r\n\r\n")
        .await;
    connection.write(vec![b'a'; 60_000]).await;
    let half = upstream.wait_for(|request| request.body.len() == 60_000).await;
    assert!(!half.complete);
    connection.write(vec![b'a'; 40_000]).await;
    assert_eq!(connection.response().await.expect("an answer").status, 200, "after 100 Continue");
    let whole = upstream.wait_for(|request| request.complete).await;
    assert_eq!(whole.raw_body.len(), 100_000);
}

#[tokio::test]
async fn an_unfinished_upload_is_incomplete() {
    let upstream = Upstream::start().await;
    let mut connection = RawConnection::open(address(upstream.url())).await;
    connection.write("POST /upload HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\nabc").await;
    let request = upstream.wait_for(|request| request.body == b"abc").await;
    drop(connection);
    upstream.closed(&request).await;
    assert!(!upstream.requests()[0].complete);
}

#[tokio::test]
async fn a_unix_socket_serves_too() {
    let directory = TempDir::new("unix");
    let path = directory.join("app.sock");
    let upstream = Upstream::unix(&path);
    assert_eq!(upstream.url(), format!("unix:{}", path.display()));
    let mut stream = UnixStream::connect(&path).await.expect("the upstream listens");
    stream.write_all(b"GET /u HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.expect("it reads");
    let mut answer = String::new();
    within("the answer", stream.read_to_string(&mut answer)).await.expect("it answers");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(upstream.requests()[0].target, "/u");
    let kept = directory.path().to_owned();
    drop(directory);
    assert!(!kept.exists());
}

#[tokio::test]
async fn json_bodies_arrive_as_sent() {
    let upstream = Upstream::start().await;
    let sent = json!({"device_id": "d"});
    let answer =
        Client::new(address(upstream.url())).post("/x").cookie("session", "t").bearer("t").json(&sent).send().await;
    assert_eq!(answer.json()["body"], sent.to_string());
    let request = &upstream.requests()[0];
    assert_eq!(request.header("cookie"), Some("session=t"));
    assert_eq!(request.header("authorization"), Some("Bearer t"));
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(Client::new(address(upstream.url())).delete("/x").send().await.json()["method"], "DELETE");
}

#[tokio::test]
async fn a_unary_h2c_call_ends_with_trailers() {
    let upstream = H2Upstream::start().await;
    let client = H2Client::connect(address(upstream.url())).await;
    let answer = client.call("/echo.Echo/Say?x=1", &[("x-colour", "blue"), ("te", "trailers")], "hello").await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    assert_eq!(answer.trailers.expect("trailers").first("grpc-status"), Some("0"));
    let call = upstream.wait_for(|call| call.ended).await;
    assert_eq!((call.method.as_str(), call.path.as_str()), ("POST", "/echo.Echo/Say?x=1"));
    assert_eq!((call.headers.first("x-colour"), call.body.as_slice()), (Some("blue"), b"hello".as_slice()));
    assert!(!call.reset);
}

#[tokio::test]
async fn an_h2c_stream_goes_both_ways_until_it_is_reset() {
    let upstream = H2Upstream::start().await;
    let client = H2Client::connect(address(upstream.url())).await;
    let mut call = client.open("/echo.Echo/Chat", &[]).await;
    assert_eq!(call.head().await.status, 200);
    for word in ["one", "two"] {
        call.send(word);
        assert_eq!(call.next().await.expect("not reset").as_deref(), Some(word.as_bytes()));
    }
    assert!(!upstream.wait_for(|call| call.body == b"onetwo").await.ended);
    drop(call);
    assert!(upstream.wait_for(|call| call.ended).await.reset);
}
