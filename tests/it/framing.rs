//! Where one request ends and the next begins, when somebody wants two servers to disagree.
//!
//! What counts is what arrived at the upstream: nothing of a request that can be read in two ways,
//! and never the bytes of a body as a request.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http::Request;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{RawConnection, Response, sign_in};
use crate::support::doorward::{Builder, Doorward};
use crate::support::h2_client::H2Client;
use crate::support::idp::Idp;
use crate::support::redis::Redis;
use crate::support::upstream::Upstream;
use crate::support::within;

const SMUGGLED: &str = "GET /open/smuggled HTTP/1.1\r\nhost: x\r\n\r\n";

fn builder(upstream: &Upstream) -> Builder {
    Doorward::builder().upstream(upstream.url()).config(
        "routes: [{ path: '/open/**', auth: none }, { path: '/admin/**', auth: required, require_any_role: [boss] }, { path: '/**', auth: required }]",
    )
}

async fn open() -> (Upstream, Doorward) {
    let upstream = Upstream::start().await;
    let doorward = builder(&upstream).start().await;
    (upstream, doorward)
}

fn targets(upstream: &Upstream) -> Vec<String> {
    upstream.requests().into_iter().map(|request| request.target).collect()
}

#[tokio::test]
async fn cve_2026_2833_an_upgrade_that_is_not_granted_opens_no_tunnel() {
    let (upstream, doorward) = open().await;
    let websocket = "upgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==";
    for upgrade in ["upgrade: foo", websocket] {
        let before = upstream.requests().len();
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection
            .write(format!("GET /open/first HTTP/1.1\r\nhost: x\r\nconnection: upgrade\r\n{upgrade}\r\n\r\n{SMUGGLED}"))
            .await;
        let answer = connection.response().await.expect("an answer");
        assert_eq!(answer.status, 200, "{upgrade}");
        assert_eq!(answer.json()["target"], "/open/first");
        let rest = connection.closed().await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "{upgrade}");
        let seen = upstream.requests().split_off(before);
        let [request] = seen.as_slice() else { panic!("{upgrade}: one request, not {seen:?}") };
        assert!(upgrade == websocket || request.header("upgrade").is_none(), "{:?}", request.headers);
    }
    assert_eq!(targets(&upstream), ["/open/first", "/open/first"]);
}

#[tokio::test]
async fn cve_2026_2835_a_request_of_two_lengths_reaches_nobody() {
    let (upstream, doorward) = open().await;
    let rows = [
        ("CL.TE", "1.1", "content-length: 4\r\ntransfer-encoding: chunked"),
        ("TE.CL", "1.1", "transfer-encoding: chunked\r\ncontent-length: 4"),
        ("CL of zero and TE", "1.1", "content-length: 0\r\ntransfer-encoding: chunked"),
        ("TE with identity", "1.1", "transfer-encoding: chunked, identity"),
        ("TE with identity first", "1.1", "transfer-encoding: identity, chunked"),
        ("TE identity", "1.1", "transfer-encoding: identity"),
        ("TE unknown", "1.1", "transfer-encoding: xchunked"),
        ("TE with gzip", "1.1", "transfer-encoding: gzip, chunked"),
        ("TE twice", "1.1", "transfer-encoding: chunked\r\ntransfer-encoding: chunked"),
        ("TE twice, one other", "1.1", "transfer-encoding: chunked\r\ntransfer-encoding: identity"),
        ("TE empty", "1.1", "transfer-encoding:"),
        ("TE on HTTP/1.0", "1.0", "transfer-encoding: chunked"),
        ("TE on HTTP/1.0, kept alive", "1.0", "connection: keep-alive\r\ntransfer-encoding: chunked"),
        ("CL twice, different", "1.1", "content-length: 4\r\ncontent-length: 5"),
        ("CL list, different", "1.1", "content-length: 4, 5"),
        ("CL plus", "1.1", "content-length: +4"),
        ("CL minus", "1.1", "content-length: -4"),
        ("CL with a space", "1.1", "content-length: 4 4"),
        ("CL hexadecimal", "1.1", "content-length: 0x4"),
        ("CL empty", "1.1", "content-length:"),
        ("CL overflow", "1.1", "content-length: 18446744073709551620"),
        ("obs-fold", "1.1", "x-folded: a\r\n b: c"),
        ("obs-fold in TE", "1.1", "transfer-encoding:\r\n chunked"),
        ("space before the colon", "1.1", "transfer-encoding : chunked"),
        ("space before the CL's colon", "1.1", "content-length : 4"),
        ("space before the first name", "1.1", " content-length: 4"),
        ("NUL in a value", "1.1", "x-value: a\0b"),
        ("bare CR in a value", "1.1", "x-value: a\rcontent-length: 4"),
    ];
    for (name, version, framing) in rows {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection
            .write(format!("POST /open/row HTTP/{version}\r\nhost: x\r\n{framing}\r\n\r\n0\r\n\r\n{SMUGGLED}"))
            .await;
        let answer = connection.response().await;
        assert_eq!(answer.map(|answer| answer.status), Some(400), "{name}");
        let rest = connection.closed().await;
        assert_eq!(String::from_utf8_lossy(&rest), "", "{name}: only one answer");
        assert_eq!(targets(&upstream), [""; 0], "{name}");
    }
}

#[tokio::test]
async fn cve_2026_2835_a_bare_line_feed_is_refused_or_written_anew() {
    let (upstream, doorward) = open().await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write("POST /open/lf HTTP/1.1\nhost: x\nx-a: b\ncontent-length: 2\n\nhi").await;
    let answer = connection.response().await.expect("an answer");
    assert_eq!(answer.status, 200);
    let requests = upstream.requests();
    let [request] = requests.as_slice() else { panic!("one request, not {requests:?}") };
    assert_eq!(request.body, b"hi");
    let head = String::from_utf8_lossy(&request.head).into_owned();
    assert_eq!(head.matches('\n').count(), head.matches("\r\n").count(), "{head:?}");
    assert_eq!(request.headers.all("x-a"), ["b"]);
}

#[tokio::test]
async fn a_broken_chunk_ends_the_connection_and_the_upstream_sees_no_whole_request() {
    let (upstream, doorward) = open().await;
    for (name, body) in [
        ("no number", "zz\r\nab\r\n0\r\n\r\n"),
        ("a sign", "+2\r\nab\r\n0\r\n\r\n"),
        ("a minus", "-2\r\nab\r\n0\r\n\r\n"),
        ("a prefix", "0x2\r\nab\r\n0\r\n\r\n"),
        ("overflow", "10000000000000002\r\nab\r\n0\r\n\r\n"),
        ("longer than said", "2\r\nabcd\r\n0\r\n\r\n"),
    ] {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection
            .write(format!(
                "POST /open/chunk HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{body}{SMUGGLED}"
            ))
            .await;
        let everything = String::from_utf8_lossy(&connection.closed().await).into_owned();
        assert!(everything.is_empty() || everything.starts_with("HTTP/1.1 400 "), "{name}: {everything}");
        assert!(everything.matches("HTTP/1.1 ").count() <= 1, "{name}: {everything}");
        let whole: Vec<_> = upstream.requests().into_iter().filter(|request| request.complete).collect();
        assert!(whole.is_empty(), "{name}: {whole:?}");
    }
    assert!(!targets(&upstream).contains(&"/open/smuggled".to_owned()));
}

/// One early answer: its name, the head of the request but for its body's framing, and its status.
struct Early {
    name: &'static str,
    head: String,
    status: u16,
}

impl Early {
    fn new(name: &'static str, start: &str, token: Option<&str>, status: u16) -> Self {
        let token = token.map(|token| format!("authorization: Bearer {token}\r\n")).unwrap_or_default();
        Self { name, head: format!("{start} HTTP/1.1\r\nhost: x\r\n{token}"), status }
    }

    /// Pretends that a body is a request, in one piece with the head and after the answer.
    async fn is_not_smuggled_through(&self, address: SocketAddr) {
        let framings = [
            (format!("content-length: {}", SMUGGLED.len()), SMUGGLED.to_owned()),
            ("transfer-encoding: chunked".to_owned(), format!("{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n", SMUGGLED.len())),
        ];
        for (framing, body) in framings {
            for late in [false, true] {
                let mut connection = RawConnection::open(address).await;
                let head = format!("{}{framing}\r\n\r\n", self.head);
                connection.write(if late { head } else { format!("{head}{body}") }).await;
                let answer = connection.response().await.unwrap_or_else(|| panic!("{}: no answer", self.name));
                assert_eq!(answer.status, self.status, "{}: {}", self.name, answer.text());
                connection.write(if late { format!("{body}{SMUGGLED}") } else { SMUGGLED.to_owned() }).await;
                let rest = connection.closed().await;
                assert_eq!(String::from_utf8_lossy(&rest), "", "{} {framing} late={late}", self.name);
            }
        }
    }

    /// Writes a large body to its end before it reads: the answer must still be there.
    async fn is_received_after_a_large_body(&self, address: SocketAddr) {
        let mut stream = TcpStream::connect(address).await.expect("the server listens");
        let body = vec![b'x'; 4 * 1024 * 1024];
        let head = format!("{}content-length: {}\r\n\r\n", self.head, body.len());
        let sent = async {
            stream.write_all(head.as_bytes()).await?;
            stream.write_all(&body).await
        };
        within("the body to be taken", sent).await.unwrap_or_else(|error| panic!("{}: {error}", self.name));
        let answer = RawConnection::over(stream).response().await;
        let answer = answer.unwrap_or_else(|| panic!("{}: the answer was lost", self.name));
        assert_eq!(answer.status, self.status, "{}: {}", self.name, answer.text());
        assert!(answer.json()["detail"].is_string(), "{}: {}", self.name, answer.text());
    }

    async fn check(&self, address: SocketAddr) {
        self.is_not_smuggled_through(address).await;
        self.is_received_after_a_large_body(address).await;
    }
}

#[tokio::test]
async fn cve_2026_2836_an_unread_body_is_never_the_next_request_and_the_answer_arrives() {
    let (upstream, idp, mut redis) = (Upstream::start().await, Idp::start().await, Redis::start().await);
    let doorward = builder(&upstream)
        .idp(&idp)
        .store(&redis.url())
        .config("limits: { body_bytes_max: 10, exchange_per_minute: 2 }")
        .start()
        .await;
    let address = doorward.proxy_addr();
    let token = sign_in(&doorward, &idp, "user_alice").await;
    let limited = idp.mint_for("user_eager");
    for _ in 0..2 {
        assert_eq!(doorward.client().post("/auth/session").bearer(&limited).send().await.status, 200);
    }
    for early in [
        Early::new("401 without a token", "POST /app", None, 401),
        Early::new("401 for a bad token", "POST /app", Some("dw_garbage"), 401),
        Early::new("400 for an ambiguous path", "POST /open/../app", None, 400),
        Early::new("403", "POST /admin/x", Some(&token), 403),
        Early::new("404 of a surface", "POST /auth/nothing", None, 404),
        Early::new("405 of a surface", "PUT /auth/session", None, 405),
        Early::new("401 of a surface", "POST /auth/session", None, 401),
        Early::new("429 of a surface", "POST /auth/session", Some(&limited), 429),
    ] {
        early.check(address).await;
    }
    // A small chunked body is within the limit, so this one only has the large body.
    Early::new("413 announced", "POST /app", Some(&token), 413).is_received_after_a_large_body(address).await;
    Early::new("413 of a surface", "POST /auth/anonymous", None, 413).is_received_after_a_large_body(address).await;
    // Good, but never validated: the store would have to be asked.
    let uncached = sign_in(&doorward, &idp, "user_bob").await;
    redis.kill();
    let other = Early::new("503", "POST /app", Some(&uncached), 503);
    other.check(address).await;
    assert_eq!(targets(&upstream), [""; 0]);
}

#[tokio::test]
async fn a_413_in_the_middle_of_a_chunked_upload_arrives_and_the_upstream_sees_no_whole_request() {
    let upstream = Upstream::start().await;
    let doorward = builder(&upstream).config("limits: { body_bytes_max: 100000 }").start().await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write("POST /open/up HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await;
    let chunk = format!("4000\r\n{}\r\n", "x".repeat(0x4000));
    for _ in 0..100 {
        connection.write(&chunk).await;
    }
    connection.write(format!("0\r\n\r\n{SMUGGLED}")).await;
    let answer = connection.response().await.expect("the answer was not lost");
    assert_eq!((answer.status, answer.text().as_str()), (413, r#"{"detail":"Request body too large"}"#));
    assert_eq!(connection.closed().await, b"");
    for request in upstream.requests() {
        assert_eq!(request.target, "/open/up");
        assert!(!request.complete);
        assert!(request.body.len() <= 100_000, "{}", request.body.len());
        upstream.closed(&request).await;
    }
}

#[tokio::test]
async fn an_early_answer_of_the_upstream_is_passed_on_while_the_client_still_uploads() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let doorward = Doorward::builder().upstream(&url).config("routes: [{ path: '/**', auth: none }]").start().await;
    let hasty = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("Doorward connects");
        let mut head = [0; 1024];
        let read = stream.read(&mut head).await.expect("a request");
        stream.write_all(b"HTTP/1.1 409 Conflict\r\ncontent-length: 3\r\n\r\nno!").await.expect("it is read");
        (read, stream)
    });
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write("POST /up HTTP/1.1\r\nhost: x\r\ncontent-length: 2000000\r\n\r\nbegin").await;
    let answer = connection.response().await.expect("an answer");
    assert_eq!((answer.status, answer.text().as_str()), (409, "no!"));
    connection.write(vec![b'x'; 2_000_000 - 5]).await;
    connection.write(SMUGGLED).await;
    assert_eq!(String::from_utf8_lossy(&connection.closed().await), "");
    let (_, mut stream) = within("the upstream", hasty).await.expect("it did not panic");
    // The connection may be kept, if the whole body went through it; nothing else may have.
    drop(doorward);
    let mut rest = Vec::new();
    let _ = within("the upstream's connection to close", stream.read_to_end(&mut rest)).await;
    assert!(!String::from_utf8_lossy(&rest).contains("smuggled"));
}

#[tokio::test]
async fn h2c_smuggling_an_upgrade_to_http2_is_not_forwarded_and_connect_is_refused() {
    let (upstream, doorward) = open().await;
    let settings = "http2-settings: AAMAAABkAARAAAAAAAIAAAAA";
    for (name, lines) in [
        ("as in the RFC", format!("connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n{settings}")),
        ("settings not nominated", format!("connection: Upgrade\r\nupgrade: h2c\r\n{settings}")),
        ("no connection header", format!("upgrade: h2c\r\n{settings}")),
        ("in a list", format!("connection: Upgrade\r\nupgrade: h2c, websocket\r\n{settings}")),
        ("tls", format!("connection: Upgrade\r\nupgrade: h2\r\n{settings}")),
    ] {
        let before = upstream.requests().len();
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(format!("GET /open/up HTTP/1.1\r\nhost: x\r\n{lines}\r\n\r\n")).await;
        let answer = connection.response().await.expect("an answer");
        assert!([200, 400].contains(&answer.status), "{name}: {}", answer.status);
        for request in upstream.requests().split_off(before) {
            let head = String::from_utf8_lossy(&request.head).to_ascii_lowercase();
            assert!(!head.contains("h2c") && !head.contains("http2-settings"), "{name}: {head}");
        }
    }
    let forwarded = upstream.requests().len();
    assert!(forwarded >= 1);
    for request in ["CONNECT /open/x HTTP/1.1", "CONNECT evil.example:443 HTTP/1.1"] {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(format!("{request}\r\nhost: evil.example:443\r\n\r\n{SMUGGLED}")).await;
        let answer = connection.response().await.expect("an answer");
        assert!([400, 405].contains(&answer.status), "{request}: {}", answer.status);
        assert_eq!(connection.closed().await, b"", "{request}");
    }
    let connect = Request::builder().method("CONNECT").uri("evil.example:443").body(()).expect("a request");
    let refused = H2Client::connect(doorward.proxy_addr()).await.send(connect).await;
    assert!(refused.as_ref().map_or(true, |answer| [400, 405].contains(&answer.status)), "{refused:?}");
    assert_eq!(upstream.requests().len(), forwarded);
}

#[tokio::test]
async fn h2_to_h1_downgrade_no_field_becomes_two() {
    let (upstream, doorward) = open().await;
    let address = doorward.proxy_addr();
    let host = address.to_string();
    let base = [(":method", "GET"), (":scheme", "http"), (":path", "/open/h2"), (":authority", host.as_str())];
    assert_eq!(h2_answer(address, &base).await, Some(200), "the control");
    assert_eq!(targets(&upstream), ["/open/h2"]);
    for field in [
        ("x-a", "b\r\nx-user-id: admin"),
        ("x-a", "b\nx-user-id: admin"),
        ("x-a", "b\rx-user-id: admin"),
        ("x-a", "b\0c"),
        ("x-a: b\r\nx-user-id", "admin"),
        ("x-a\nx-user-id", "admin"),
        ("X-Upper", "case"),
        ("x a", "b"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-a"),
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("proxy-connection", "keep-alive"),
        ("upgrade", "websocket"),
        ("host", "other.example"),
        ("te", "gzip"),
        (":path", "/open/second"),
        (":authority", "other.example"),
        (":unknown", "x"),
    ] {
        let fields: Vec<_> = base.iter().copied().chain([field]).collect();
        let answer = h2_answer(address, &fields).await;
        assert!(answer.is_none_or(|status| status == 400), "{field:?}: {answer:?}");
    }
    for (changed, value) in [
        (":path", "/open/h2 HTTP/1.1\r\nx-user-id: admin\r\nx: "),
        (":path", "/open/h2\r\n"),
        (":path", "open/h2"),
        (":path", ""),
        (":path", "*"),
        (":method", "GET / HTTP/1.1\r\nx: "),
        (":method", "GE T"),
        (":authority", "a b"),
        (":authority", "a\r\nx-user-id: admin"),
        (":authority", ""),
        (":scheme", "http\r\nx: y"),
    ] {
        let fields = base.map(|(name, old)| (name, if name == changed { value } else { old }));
        let answer = h2_answer(address, &fields).await;
        assert!(answer.is_none_or(|status| status == 400), "{changed} {value:?}: {answer:?}");
    }
    let nobody: Vec<_> = base.iter().copied().filter(|(name, _)| *name != ":authority").collect();
    let answer = h2_answer(address, &nobody).await;
    assert!(answer.is_none_or(|status| status == 400), "no authority: {answer:?}");
    assert_eq!(targets(&upstream), ["/open/h2"], "only the control");
}

/// Sends these fields as one HEADERS frame, byte for byte, and returns the status of the answer;
/// `None` when the stream was reset or the connection closed.
async fn h2_answer(address: SocketAddr, fields: &[(&str, &str)]) -> Option<u16> {
    let mut block = Vec::new();
    for (name, value) in fields {
        // RFC 7541 §6.2.2: a literal without indexing, its name new; lengths of one byte.
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).ok().filter(|length| *length < 127).expect("a short text"));
            block.extend(text.as_bytes());
        }
    }
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    bytes.extend(&u32::try_from(block.len()).expect("a short block").to_be_bytes()[1..]);
    // HEADERS, END_STREAM | END_HEADERS, stream 1.
    bytes.extend([1, 5, 0, 0, 0, 1]);
    bytes.extend(block);
    stream.write_all(&bytes).await.expect("the server reads");
    let reading = async {
        loop {
            let mut head = [0; 9];
            stream.read_exact(&mut head).await.ok()?;
            let length = usize::try_from(u32::from_be_bytes([0, head[0], head[1], head[2]])).expect("it fits");
            let mut payload = vec![0; length];
            stream.read_exact(&mut payload).await.ok()?;
            match head[3] {
                1 => return Some(status_of(&payload)),
                // RST_STREAM, GOAWAY.
                3 | 7 => return None,
                _ => {}
            }
        }
    };
    within("an answer to raw HTTP/2", reading).await
}

// RFC 7541, appendix A: the statuses that have an index, which every encoder uses.
fn status_of(block: &[u8]) -> u16 {
    // A dynamic table size update may come first.
    let block = block.iter().copied().find(|byte| byte & 0xe0 != 0x20);
    let known =
        BTreeMap::from([(0x88, 200), (0x89, 204), (0x8a, 206), (0x8b, 304), (0x8c, 400), (0x8d, 404), (0x8e, 500)]);
    block.and_then(|byte| known.get(&byte).copied()).unwrap_or(999)
}

#[tokio::test]
async fn pingora_935_a_chunked_body_ends_once_and_the_next_request_is_clean() {
    let upstream = Upstream::start().await;
    let doorward = builder(&upstream).config("limits: { workers: 1 }").start().await;
    let client = H2Client::connect(doorward.proxy_addr()).await;
    for round in 0..3 {
        let mut call = client.open(&format!("/open/{round}"), &[]).await;
        upstream.wait_for(|request| request.target == format!("/open/{round}")).await;
        call.send("abc");
        // An empty DATA frame ends the stream.
        call.finish();
        assert_eq!(call.head().await.status, 200);
        while let Ok(Some(_)) = call.next().await {}
    }
    let empty = Request::get(format!("http://{}/open/empty", doorward.proxy_addr())).body(()).expect("a request");
    assert_eq!(client.send(empty).await.expect("an answer").status, 200);
    let requests = upstream.requests();
    assert_eq!(targets(&upstream), ["/open/0", "/open/1", "/open/2", "/open/empty"]);
    for request in &requests[..3] {
        assert_eq!(String::from_utf8_lossy(&request.raw_body), "3\r\nabc\r\n0\r\n\r\n");
    }
    // The upstream would have read a second end as the beginning of the next request.
    assert!(requests.iter().all(|request| request.connection == 1), "the connection is used again");
    assert_eq!(requests[3].raw_body, b"");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order_or_not_at_all() {
    let (_upstream, doorward) = open().await;
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
    for (first, second) in [("/open/1", "/open/2"), ("/open/1", "/app"), ("/app", "/open/2"), ("/auth/x", "/open/2")] {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(get(first) + &get(second)).await;
        let answers: Vec<Response> =
            [connection.response().await, connection.response().await].into_iter().flatten().collect();
        let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
        let expected = [first, second].map(status_for);
        assert!(!statuses.is_empty() && expected.starts_with(&statuses), "{first} {second}: {statuses:?}");
        for (answer, path) in answers.iter().zip([first, second]).filter(|(answer, _)| answer.status == 200) {
            assert_eq!(answer.json()["target"], path);
        }
    }
}

fn status_for(path: &str) -> u16 {
    match path {
        "/app" => 401,
        "/auth/x" => 404,
        _ => 200,
    }
}
