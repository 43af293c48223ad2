//! What is spoken on both sides: HTTP/1.1, HTTP/2, TLS, unix sockets, web sockets, event streams, gRPC.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{SinkExt, StreamExt};
use http::{Method, Request};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{RawConnection, raw};
use crate::support::doorward::{Builder, Doorward};
use crate::support::h2_client::H2Client;
use crate::support::h2_upstream::H2Upstream;
use crate::support::ports::free_port;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::{FIRST_EVENT, Upstream};
use crate::support::{eventually, within};

const OPEN: &str = "routes: [{ path: '/app/**', auth: required }, { path: '/**', auth: none }]";

fn builder(url: &str) -> Builder {
    Doorward::builder().upstream(url).config(OPEN)
}

async fn open() -> (Upstream, Doorward) {
    let upstream = Upstream::start().await;
    let doorward = builder(upstream.url()).start().await;
    (upstream, doorward)
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")
}

#[tokio::test]
async fn plain_requests_use_both_connections_again() {
    let (upstream, doorward) = open().await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    for path in ["/1", "/2", "/app/x", "/auth/x", "/3"] {
        connection.write(get(path)).await;
        let answer = connection.response().await.unwrap_or_else(|| panic!("{path}: the connection was closed"));
        let expected = match path {
            "/app/x" => 401,
            "/auth/x" => 404,
            _ => 200,
        };
        assert_eq!(answer.status, expected, "{path}");
        assert_ne!(answer.header("connection"), Some("close"), "{path}");
    }
    connection.write("POST /4 HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi").await;
    assert_eq!(connection.response().await.expect("an answer").json()["body"], "hi");
    connection.write("POST /5 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n").await;
    assert_eq!(connection.response().await.expect("an answer").json()["body"], "hi");
    let connections: Vec<u64> = upstream.requests().iter().map(|request| request.connection).collect();
    // One for the fast path, one for bodies.
    assert_eq!(connections, [1, 1, 1, 2, 2]);
}

#[tokio::test]
async fn a_connection_that_the_client_gave_up_is_never_kept() {
    let (_upstream, doorward) = open().await;
    for path in ["/1", "/app/x", "/auth/x"] {
        for (name, request) in [
            ("close", format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")),
            ("close in a list", format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: x-a, close\r\n\r\n")),
            ("HTTP/1.0", format!("GET {path} HTTP/1.0\r\nhost: x\r\n\r\n")),
        ] {
            let mut connection = RawConnection::open(doorward.proxy_addr()).await;
            connection.write(request).await;
            let answer = connection.response().await.expect("an answer");
            assert_eq!(
                answer.header("connection").map(str::to_ascii_lowercase).as_deref(),
                Some("close"),
                "{name} {path}"
            );
            connection.write(get("/again")).await;
            assert_eq!(connection.closed().await, b"", "{name} {path}");
        }
    }
}

#[tokio::test]
async fn a_request_shorter_than_the_http2_preface_is_answered() {
    let (upstream, doorward) = open().await;
    // 18 bytes each; an HTTP/2 preface has 24.
    let answer = raw(doorward.proxy_addr(), "GET / HTTP/1.0\r\n\r\n").await.expect("an answer");
    assert_eq!(answer.status, 200);
    let answer = raw(doorward.proxy_addr(), "GET / HTTP/1.1\r\n\r\n").await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"detail":"Bad Request"}"#), "HTTP/1.1 needs Host");
    assert_eq!(answer.header("server"), None);
    assert_eq!(upstream.requests().len(), 1);
    // The preface in pieces is still HTTP/2.
    let mut stream = TcpStream::connect(doorward.proxy_addr()).await.expect("the server listens");
    stream.set_nodelay(true).expect("a TCP socket");
    for piece in ["PRI * HT", "TP/2.0\r\n\r\nSM", "\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        stream.write_all(piece.as_bytes()).await.expect("the server reads");
        stream.flush().await.expect("the server reads");
    }
    let mut head = [0; 9];
    within("a SETTINGS frame", stream.read_exact(&mut head)).await.expect("the server speaks HTTP/2");
    assert_eq!(head[3], 4, "SETTINGS");
}

#[tokio::test]
async fn expect_100_continue_is_answered_before_the_body_comes() {
    let (upstream, doorward) = open().await;
    let body = json!({ "device_id": "0123456789abcdef" }).to_string();
    let mut stream = TcpStream::connect(doorward.proxy_addr()).await.expect("the server listens");
    for path in ["/up", "/auth/anonymous", "/up"] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.expect("the server reads");
        let mut interim = Vec::new();
        while !interim.ends_with(b"\r\n\r\n") {
            interim.push(within("100 Continue", stream.read_u8()).await.expect("an interim answer"));
        }
        assert!(interim.starts_with(b"HTTP/1.1 100 "), "{path}: {}", String::from_utf8_lossy(&interim));
        stream.write_all(body.as_bytes()).await.expect("the server reads");
        let mut connection = RawConnection::over(stream);
        let answer = connection.response().await.unwrap_or_else(|| panic!("{path}: no answer"));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        stream = connection.into_stream();
    }
    assert_eq!(upstream.requests().iter().filter(|request| request.body == body.as_bytes()).count(), 2);
    let mut refused = RawConnection::open(doorward.proxy_addr()).await;
    refused.write("POST /app/x HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\n").await;
    let everything = String::from_utf8_lossy(&refused.closed().await).into_owned();
    assert!(everything.starts_with("HTTP/1.1 401 "), "no 100 before it: {everything}");
}

#[tokio::test]
async fn an_upstream_that_is_down_or_silent_is_502_or_504() {
    let dead = builder(&format!("http://127.0.0.1:{}", free_port())).start().await;
    let answer = dead.client().get("/x").send().await;
    assert_eq!((answer.status, answer.text().as_str()), (502, r#"{"detail":"Bad Gateway"}"#));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("server"), None);
    assert!(answer.header("x-request-id").is_some());
    let upstream = Upstream::start().await;
    let silent = builder(upstream.url()).config("upstream: { read_timeout: 200ms }").start().await;
    let answer = silent.client().get("/hang").send().await;
    assert_eq!((answer.status, answer.text().as_str()), (504, r#"{"detail":"Gateway Timeout"}"#));
    assert_eq!(answer.header("server"), None);
    let hung = upstream.wait_for(|request| request.target == "/hang").await;
    upstream.closed(&hung).await;
    assert_eq!(upstream.requests().len(), 1, "not asked twice");
}

#[tokio::test]
async fn a_request_that_may_have_had_its_effect_is_not_sent_twice() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let posts = Arc::new(AtomicUsize::new(0));
    let seen = posts.clone();
    // Answers a GET and keeps the connection; closes it as soon as it has read a POST.
    let upstream = tokio::spawn(async move {
        let mut tasks = tokio::task::JoinSet::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let seen = seen.clone();
            tasks.spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(length) = stream.read(&mut buffer).await {
                    if length == 0 || buffer.starts_with(b"POST") {
                        seen.fetch_add(length.min(1), Ordering::SeqCst);
                        return;
                    }
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
                }
            });
        }
    });
    let doorward = builder(&url).config("limits: { workers: 1 }").start().await;
    for (round, body) in ["", "hi"].into_iter().enumerate() {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(get("/warm")).await;
        assert_eq!(connection.response().await.expect("an answer").status, 200);
        let length = body.len();
        connection.write(format!("POST /pay HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{body}")).await;
        let answer = connection.response().await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (502, r#"{"detail":"Bad Gateway"}"#));
        assert_eq!(posts.load(Ordering::SeqCst), round + 1);
    }
    upstream.abort();
}

#[tokio::test]
async fn a_connect_failure_is_tried_once_more_and_no_more() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("https://{}", listener.local_addr().expect("a bound socket has an address"));
    let attempts = Arc::new(AtomicUsize::new(0));
    let seen = attempts.clone();
    // The TCP connection stands, and its end comes in the middle of the TLS handshake.
    let upstream = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            seen.fetch_add(1, Ordering::SeqCst);
        }
    });
    let doorward = builder(&url).start().await;
    let answer = doorward.client().post("/pay").body("hi").send().await;
    assert_eq!((answer.status, answer.text().as_str()), (502, r#"{"detail":"Bad Gateway"}"#));
    assert_eq!(attempts.load(Ordering::SeqCst), 2);
    upstream.abort();
}

#[tokio::test]
async fn a_client_that_hangs_up_is_no_error_in_the_log() {
    let (upstream, doorward) = open().await;
    let mut waiting = RawConnection::open(doorward.proxy_addr()).await;
    waiting.write(get("/hang")).await;
    let hung = upstream.wait_for(|request| request.target == "/hang").await;
    drop(waiting);
    upstream.closed(&hung).await;
    let mut uploading = RawConnection::open(doorward.proxy_addr()).await;
    uploading.write("POST /half HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf").await;
    let half = upstream.wait_for(|request| request.target == "/half" && request.body == b"half").await;
    drop(uploading);
    upstream.closed(&half).await;
    let mut reading = doorward.client().get("/sse").stream().await;
    assert!(reading.next().await.is_some());
    let events = upstream.wait_for(|request| request.target == "/sse").await;
    drop(reading);
    upstream.closed(&events).await;
    for path in ["/hang", "/half", "/sse"] {
        doorward.wait_log(&format!("{path}\"")).await;
    }
    let errors: Vec<String> = doorward
        .logs()
        .lines()
        .filter(|line| line.to_ascii_uppercase().contains("\"ERROR\""))
        .map(str::to_owned)
        .collect();
    assert!(errors.is_empty(), "{errors:?}");
}

#[tokio::test]
async fn pingora_946_two_hundred_web_sockets_in_a_row_echo() {
    let (_upstream, doorward) = open().await;
    for round in 0..200 {
        let mut socket = doorward.client().web_socket("/ws", &[]).await.expect("an upgrade");
        let text = format!("round {round}");
        socket.send(Message::text(text.clone())).await.expect("an open socket");
        let echo = within("an echo", socket.next()).await.expect("an open socket").expect("a message");
        assert_eq!(echo.into_text().expect("text").as_str(), text);
    }
}

#[tokio::test]
async fn an_event_stream_arrives_event_by_event() {
    let (upstream, doorward) = open().await;
    let mut answer = doorward.client().get("/sse").stream().await;
    assert_eq!((answer.status, answer.headers.first("content-type")), (200, Some("text/event-stream")));
    let mut text = String::new();
    while !text.contains("data: 2\n\n") {
        text.push_str(std::str::from_utf8(&answer.next().await.expect("more events")).expect("text"));
    }
    assert!(text.starts_with(FIRST_EVENT));
    drop(answer);
    upstream.closed(&upstream.requests()[0]).await;
    // The part that is there is not held back for the part that is to come.
    let mut slow = doorward.client().get("/slow-body").stream().await;
    assert_eq!(slow.next().await.as_deref(), Some(b"first-".as_slice()));
    upstream.release();
    assert_eq!(slow.next().await.as_deref(), Some(b"second".as_slice()));
    assert!(slow.ended().await);
}

#[tokio::test]
async fn large_bodies_stream_both_ways_in_bounded_memory() {
    const SIZE: usize = 24 * 1024 * 1024;
    let (upstream, doorward) = open().await;
    assert_eq!(doorward.client().get("/warm").send().await.status, 200);
    let before = resident(&doorward).await;
    let answer = doorward.client().post("/large").body(vec![b'x'; SIZE]).send().await;
    assert_eq!(answer.status, 200);
    // The answer repeats the body.
    assert!(answer.body.len() > SIZE);
    let received = upstream.requests().into_iter().find(|request| request.target == "/large").expect("it came");
    assert!(received.complete && received.body.len() == SIZE);
    let grown = resident(&doorward).await.saturating_sub(before);
    assert!(grown < 12 * 1024 * 1024, "{grown} bytes more for twice {SIZE}");
}

async fn resident(doorward: &Doorward) -> usize {
    let metrics = doorward.admin_get("/metrics").await.text();
    let line = metrics.lines().find_map(|line| line.strip_prefix("process_resident_memory_bytes "));
    line.and_then(|value| value.parse().ok()).expect("the process tells its memory")
}

#[tokio::test]
async fn trailers_do_not_disturb_what_follows() {
    let (upstream, doorward) = open().await;
    upstream.respond(
        "/with-trailers",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n",
    );
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    let chunked = "POST /t HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\ntrailer: x-user-id\r\n\r\n";
    connection.write(format!("{chunked}3;ext=1\r\nabc\r\n0\r\nx-user-id: admin\r\n\r\n")).await;
    let answer = connection.response().await.expect("an answer");
    assert_eq!((answer.status, answer.json()["body"].clone()), (200, json!("abc")));
    let request = upstream.requests().remove(0);
    assert!(request.complete);
    let raw_body = String::from_utf8_lossy(&request.raw_body).into_owned();
    assert!(!raw_body.contains("x-user-id"), "a trailer is no way in: {raw_body}");
    let mut next = RawConnection::open(doorward.proxy_addr()).await;
    for path in ["/with-trailers", "/with-trailers", "/after"] {
        next.write(get(path)).await;
        let answer = next.response().await.unwrap_or_else(|| panic!("{path}: no answer"));
        assert_eq!(answer.status, 200);
        assert!(path == "/after" || answer.text() == "abc", "{}", answer.text());
    }
}

#[tokio::test]
async fn answers_without_a_body_keep_the_connection_in_step() {
    let (upstream, doorward) = open().await;
    upstream.respond("/304", "HTTP/1.1 304 Not Modified\r\netag: \"a\"\r\ncontent-length: 5\r\n\r\n");
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    for path in ["/x", "/app/x", "/auth/x"] {
        connection.write(format!("HEAD {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        let answer = connection.head_response().await.unwrap_or_else(|| panic!("HEAD {path}: no answer"));
        assert!(answer.header("content-length").is_some(), "HEAD {path}");
    }
    for (path, status) in [("/status/204", 204), ("/status/304", 304), ("/304", 304), ("/x", 200)] {
        connection.write(get(path)).await;
        let answer = connection.response().await.unwrap_or_else(|| panic!("{path}: no answer"));
        assert_eq!(answer.status, status, "{path}");
        assert_eq!(answer.body.is_empty(), status != 200, "{path}");
    }
}

#[tokio::test]
async fn the_upstream_may_listen_on_a_unix_socket_and_so_may_we() {
    let directory = TempDir::new("sockets");
    let upstream = Upstream::unix(&directory.join("app.sock"));
    let front = directory.join("front.sock");
    let doorward = builder(upstream.url()).config(&format!("listen: 'unix:{}'", front.display())).start().await;
    let stream = UnixStream::connect(&front).await.expect("Doorward listens");
    let mut connection = RawConnection::over(stream);
    for path in ["/1", "/app/x", "/2"] {
        connection.write(get(path)).await;
        let answer = connection.response().await.expect("an answer");
        assert_eq!(answer.status, if path == "/app/x" { 401 } else { 200 });
    }
    let requests = upstream.requests();
    assert_eq!(requests.iter().map(|request| request.connection).collect::<Vec<_>>(), [1, 1]);
    // Nobody knows an address of the peer; none is invented.
    assert_eq!(requests[0].header("x-forwarded-for"), None);
    drop(doorward);
}

#[tokio::test]
async fn the_upstream_may_speak_tls_under_the_configured_name_only() {
    let (authority, other, directory) = (Authority::new(), Authority::new(), TempDir::new("tls"));
    let ca = directory.join("ca.pem");
    authority.write(&ca);
    let good = Upstream::tls(authority.identity(&["app.test"]).acceptor(&["http/1.1"])).await;
    let foreign = Upstream::tls(other.identity(&["app.test"]).acceptor(&["http/1.1"])).await;
    let trust = |name: &str| format!("upstream: {{ ca: '{}', server_name: {name} }}", ca.display());
    let doorward = builder(good.url()).config(&trust("app.test")).start().await;
    let answer = doorward.client().get("/tls").send().await;
    assert_eq!((answer.status, answer.json()["target"].clone()), (200, json!("/tls")));
    for (upstream, name) in [(&good, "other.test"), (&foreign, "app.test")] {
        let doorward = builder(upstream.url()).config(&trust(name)).start().await;
        let answer = doorward.client().get("/secret").send().await;
        assert_eq!((answer.status, answer.text().as_str()), (502, r#"{"detail":"Bad Gateway"}"#), "{name}");
    }
    assert_eq!(good.requests().len(), 1);
    assert_eq!(foreign.requests().len(), 0);
}

#[tokio::test]
async fn the_upstream_may_speak_http2_in_clear_and_over_tls() {
    let (authority, directory) = (Authority::new(), TempDir::new("tls"));
    let ca = directory.join("ca.pem");
    authority.write(&ca);
    let clear = H2Upstream::start().await;
    let tls = H2Upstream::tls(authority.identity(&["app.test"]).acceptor(&["h2"])).await;
    let trust = format!("upstream: {{ ca: '{}', server_name: app.test }}", ca.display());
    for (upstream, config) in [(&clear, "upstream: { protocol: http2 }"), (&tls, trust.as_str())] {
        let doorward = builder(upstream.url()).config(config).start().await;
        // HTTP/1.1 in front, HTTP/2 behind.
        let answer = doorward.client().post("/echo?a=b").header("x-user-id", "mallory").body("hello").send().await;
        assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
        let call = upstream.wait_for(|call| call.path == "/echo?a=b").await;
        assert_eq!((call.method.as_str(), call.body.as_slice()), ("POST", b"hello".as_slice()));
        assert_eq!(call.headers.first("x-user-id"), None);
        assert!(call.headers.first("x-request-id").is_some());
        let large = "x".repeat(1_000_000);
        let answer = doorward.client().request(Method::PUT, "/large").body(large.clone()).send().await;
        assert!(answer.text() == large, "{} bytes of {}", answer.body.len(), large.len());
    }
}

#[tokio::test]
async fn grpc_calls_pass_end_to_end() {
    let upstream = H2Upstream::start().await;
    let doorward = builder(upstream.url()).config("upstream: { protocol: http2 }").start().await;
    let client = H2Client::connect(doorward.proxy_addr()).await;
    let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
    let unary = client.call("/pkg.Service/Unary", &grpc, "\0\0\0\0\x02hi").await;
    assert_eq!((unary.status, unary.text().as_str()), (200, "\0\0\0\0\x02hi"));
    let trailers = unary.trailers.expect("trailers");
    assert_eq!(trailers.first("grpc-status"), Some("0"));
    let seen = upstream.wait_for(|call| call.path == "/pkg.Service/Unary").await;
    assert_eq!(seen.headers.first("te"), Some("trailers"));
    let mut stream = client.open("/pkg.Service/Chat", &grpc).await;
    stream.send("one");
    assert_eq!(stream.head().await.status, 200);
    assert_eq!(stream.next().await.expect("open").as_deref(), Some(b"one".as_slice()));
    stream.send("two");
    assert_eq!(stream.next().await.expect("open").as_deref(), Some(b"two".as_slice()));
    stream.finish();
    assert_eq!(stream.next().await.expect("a proper end"), None);
    let trailers = stream.trailers().await.expect("trailers");
    assert_eq!(trailers.get("grpc-status").map(http::HeaderValue::as_bytes), Some(b"0".as_slice()));
    let refused = client.call("/app/Service", &grpc, "\0\0\0\0\0").await;
    assert_eq!((refused.status, refused.text().as_str()), (401, r#"{"detail":"Missing Bearer token"}"#));
}

#[tokio::test]
async fn tls_in_front_speaks_both_versions_and_takes_up_new_certificates() {
    let (authority, files) = (Authority::new(), TempDir::new("tls"));
    let first = authority.identity(&["front.test"]);
    let (cert, key) = first.write(files.path());
    let upstream = Upstream::start().await;
    let doorward = builder(upstream.url())
        .config(&format!("tls: {{ cert: '{}', key: '{}' }}", cert.display(), key.display()))
        .config("lifecycle: { reload_interval: 50ms }")
        .start()
        .await;
    let address = doorward.proxy_addr();
    let shown = async |alpn: &[&str]| {
        let stream = authority.connect(address, "front.test", alpn).await;
        let (_, session) = stream.get_ref();
        session.peer_certificates().and_then(|chain| chain.first().cloned()).expect("a certificate")
    };
    let http1 = authority.connect(address, "front.test", &["http/1.1"]).await;
    assert_eq!(http1.get_ref().1.alpn_protocol(), Some(b"http/1.1".as_slice()));
    let mut http1 = RawConnection::over(http1);
    http1.write(get("/1")).await;
    assert_eq!(http1.response().await.expect("an answer").status, 200);
    assert_eq!(upstream.requests()[0].headers.all("x-forwarded-proto"), ["https"]);
    let http2 = authority.connect(address, "front.test", &["h2", "http/1.1"]).await;
    assert_eq!(http2.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()), "HTTP/2 is preferred");
    let http2 = H2Client::over(http2, "front.test").await;
    let ask = || Request::get("https://front.test/2").body(()).expect("a request");
    assert_eq!(http2.send(ask()).await.expect("an answer").status, 200);
    let over_http2 = upstream.wait_for(|request| request.target == "/2").await;
    assert_eq!(over_http2.headers.all("host"), ["front.test"]);
    assert_eq!(over_http2.headers.all("x-forwarded-host"), ["front.test"]);
    assert_eq!(over_http2.headers.all("x-forwarded-proto"), ["https"]);

    assert_eq!(shown(&[]).await, first.der());
    let second = authority.identity(&["front.test"]);
    second.write(files.path());
    eventually("the second certificate", async || (shown(&[]).await == second.der()).then_some(())).await;
    // A key that does not fit changes nothing.
    std::fs::write(&key, &first.key).expect("the directory is writable");
    doorward.wait_log("do not fit").await;
    assert_eq!(shown(&[]).await, second.der());
    // What stood before still stands.
    http1.write(get("/3")).await;
    assert_eq!(http1.response().await.expect("an answer").status, 200);
    assert_eq!(http2.send(ask()).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn sighup_takes_up_a_new_certificate_at_once() {
    let (authority, files) = (Authority::new(), TempDir::new("tls"));
    let (cert, key) = authority.identity(&["front.test"]).write(files.path());
    let upstream = Upstream::start().await;
    let doorward = builder(upstream.url())
        .config(&format!("tls: {{ cert: '{}', key: '{}' }}", cert.display(), key.display()))
        .config("lifecycle: { reload_interval: 1h }")
        .start()
        .await;
    let second = authority.identity(&["front.test"]);
    second.write(files.path());
    doorward.signal("HUP");
    doorward.wait_log("Certificate reloaded").await;
    let stream = authority.connect(doorward.proxy_addr(), "front.test", &[]).await;
    let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first().cloned());
    assert_eq!(shown, Some(second.der()));
}
