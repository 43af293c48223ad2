//! Sizes, counts and deadlines at the proxy port, and what is told upstream about a request.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{RawConnection, raw};
use crate::support::doorward::Doorward;
use crate::support::upstream::Upstream;
use crate::support::within;

async fn open(limits: &str) -> (Upstream, Doorward) {
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder()
        .upstream(upstream.url())
        .config(
            "routes: [{ path: '/open/**', auth: none }, { path: '/ws', auth: none }, { path: '/**', auth: required }]",
        )
        .config(&format!("limits: {{ {limits} }}"))
        .start()
        .await;
    (upstream, doorward)
}

#[tokio::test]
async fn a_body_over_the_limit_is_413_and_never_a_whole_request_upstream() {
    let (upstream, doorward) = open("body_bytes_max: 10").await;
    let address = doorward.proxy_addr();
    for framing in
        ["content-length: 11\r\n\r\n01234567890", "transfer-encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n"]
    {
        let answer = raw(address, format!("POST /open/up HTTP/1.1\r\nhost: x\r\n{framing}")).await.expect("an answer");
        assert_eq!(answer.status, 413, "{framing}");
        assert_eq!(answer.text(), r#"{"detail":"Request body too large"}"#);
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.header("server"), None);
    }
    for request in upstream.requests() {
        assert!(!request.complete, "{request:?}");
    }
    for framing in
        ["content-length: 10\r\n\r\n0123456789", "transfer-encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"]
    {
        let answer = raw(address, format!("POST /open/ok HTTP/1.1\r\nhost: x\r\n{framing}")).await.expect("an answer");
        assert_eq!((answer.status, answer.json()["body"].clone()), (200, json!("0123456789")), "{framing}");
    }
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_cut_off() {
    let (upstream, doorward) = open("header_timeout: 300ms").await;
    let address = doorward.proxy_addr();
    let whole = "GET /open/a HTTP/1.1\r\nhost: x\r\n\r\n";
    for beginning in ["G", "PRI * HT", "GET /open/a HT", "GET /open/a HTTP/1.1\r\nhost: x\r\nx-long: aaaaaaaaaa"] {
        let mut connection = RawConnection::open(address).await;
        connection.write(beginning).await;
        assert!(!String::from_utf8_lossy(&connection.closed().await).contains("200"), "{beginning}");
    }
    let mut later = RawConnection::open(address).await;
    later.write(whole).await;
    assert_eq!(later.response().await.expect("an answer").status, 200);
    later.write("GET /open/b HTTP/1.1\r\nhost: x\r\nx-a: ").await;
    assert!(!String::from_utf8_lossy(&later.closed().await).contains("200"));
    // Each byte in time, the head as a whole not.
    let mut stream = TcpStream::connect(address).await.expect("the server listens");
    let (mut reader, mut writer) = stream.split();
    let mut rest = Vec::new();
    let dripping = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for byte in whole.bytes().take(20).chain(std::iter::repeat(b'a')) {
            pace.tick().await;
            if writer.write_all(&[byte]).await.is_err() {
                break;
            }
        }
    };
    let cut = async {
        tokio::select! {
            () = dripping => {}
            _ = reader.read_to_end(&mut rest) => {}
        }
    };
    within("a dripping client to be cut off", cut).await;
    let targets: Vec<_> = upstream.requests().into_iter().map(|request| request.target).collect();
    assert_eq!(targets, ["/open/a"]);
}

#[tokio::test]
async fn an_idle_connection_outlives_the_head_deadline() {
    let (upstream, doorward) = open("header_timeout: 50ms, keepalive: 60s").await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write("GET /open/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(connection.response().await.expect("an answer").status, 200);
    // A connection that began a head after this one's last answer has been cut off by now.
    let mut other = RawConnection::open(doorward.proxy_addr()).await;
    other.write("GET /").await;
    other.closed().await;
    connection.write("GET /open/b HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(connection.response().await.expect("an answer").status, 200);
    assert_eq!(upstream.requests().len(), 2);
}

#[tokio::test]
async fn an_idle_connection_ends_with_its_keepalive() {
    let (upstream, doorward) = open("keepalive: 100ms").await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write("GET /open/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(connection.response().await.expect("an answer").status, 200);
    assert_eq!(connection.closed().await, b"");
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_later_request_may_come_in_pieces_of_any_size() {
    let (upstream, doorward) = open("header_bytes_max: 32768").await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    let body = "b".repeat(100_000);
    // A first byte, a first line, and beginnings that end at or beyond what is read at once.
    for (round, first) in [1, 20, 4095, 4096, 4097, 8191, 8192, 8193, 16384, 30000].into_iter().enumerate() {
        let head = format!(
            "POST /open/{round} HTTP/1.1\r\nhost: x\r\nx-long: {}\r\ncontent-length: {}\r\n\r\n",
            "a".repeat(7000),
            body.len()
        );
        let request = head + &body;
        let (beginning, rest) = request.split_at(first);
        connection.write(beginning).await;
        // Sent apart as far as a client can do that: nothing tells when the server has read.
        tokio::task::yield_now().await;
        connection.write(rest).await;
        let answer = connection.response().await.expect("an answer");
        assert_eq!((answer.status, answer.json()["body"].as_str()), (200, Some(body.as_str())), "{first}");
    }
    assert_eq!(upstream.requests().len(), 10);
}

#[tokio::test]
async fn a_request_that_was_read_with_the_one_before_is_not_forgotten() {
    let (upstream, doorward) = open("header_bytes_max: 32768").await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    let padding = 4096 - "GET /app HTTP/1.1\r\nhost: x\r\nx-long: \r\n\r\n".len();
    // pingora asks for 4096 bytes at first: exactly the first head.
    let first = format!("GET /app HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(padding));
    connection.write(first + "GET /open/b HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(connection.response().await.expect("an answer").status, 401);
    assert_eq!(connection.response().await.expect("an answer").status, 200);
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn a_head_over_the_limit_reaches_nobody() {
    let (upstream, doorward) = open("header_bytes_max: 8192").await;
    let address = doorward.proxy_addr();
    let head = |size: usize| format!("GET /open/a HTTP/1.1\r\nhost: x\r\nx-long: {}\r\n\r\n", "a".repeat(size));
    assert_eq!(raw(address, head(7000)).await.expect("an answer").status, 200);
    let answer = raw(address, head(9000)).await;
    assert!(answer.as_ref().is_none_or(|answer| answer.status == 400), "{answer:?}");
    let mut later = RawConnection::open(address).await;
    later.write(head(7000)).await;
    assert_eq!(later.response().await.expect("an answer").status, 200, "the count begins anew");
    later.write(head(7000)).await;
    assert_eq!(later.response().await.expect("an answer").status, 200, "the count begins anew");
    // A body is not counted as head.
    later
        .write(format!("POST /open/a HTTP/1.1\r\nhost: x\r\ncontent-length: 100000\r\n\r\n{}", "b".repeat(100_000)))
        .await;
    assert_eq!(later.response().await.expect("an answer").status, 200);
    assert_eq!(upstream.requests().len(), 4);
}

#[tokio::test]
async fn more_than_256_header_fields_are_refused_before_any_hook_runs() {
    let (upstream, doorward) = open("header_bytes_max: 32768").await;
    let fields = |count: usize| (0..count).map(|number| format!("x-{number}: a")).collect::<Vec<_>>().join("\r\n");
    let few = raw(doorward.proxy_addr(), format!("GET /open/a HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", fields(240))).await;
    assert_eq!(few.expect("an answer").status, 200);
    let many = raw(doorward.proxy_addr(), format!("GET /open/a HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", fields(300))).await;
    let many = many.expect("an answer");
    // pingora answers by itself: no body of ours, no request id.
    assert_eq!((many.status, many.body.len(), many.header("x-request-id")), (400, 0, None));
    assert_eq!(upstream.requests().len(), 1);
}

#[tokio::test]
async fn connections_over_the_limit_are_closed() {
    let (_upstream, doorward) = open("max_connections: 2").await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write("GET /open/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(connection.response().await.expect("an answer").status, 200);
        held.push(connection);
    }
    let mut third = RawConnection::open(doorward.proxy_addr()).await;
    third.write("GET /open/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(third.response().await.is_none());
    held.pop();
    let again = async {
        loop {
            let answer = raw(doorward.proxy_addr(), "GET /open/a HTTP/1.1\r\nhost: x\r\n\r\n").await;
            if let Some(answer) = answer {
                break answer.status;
            }
        }
    };
    assert_eq!(within("a place to be free", again).await, 200);
}

#[tokio::test]
async fn a_stalled_upload_is_ended() {
    let (upstream, doorward) = open("body_read_timeout: 200ms").await;
    for framing in ["content-length: 10\r\n\r\n01234", "transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n"] {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(format!("POST /open/stalled HTTP/1.1\r\nhost: x\r\n{framing}")).await;
        let answer = connection.response().await.expect("an answer");
        assert_eq!((answer.status, answer.text().as_str()), (400, r#"{"detail":"Bad Request"}"#), "{framing}");
        assert_eq!(connection.closed().await, b"");
    }
    for request in upstream.requests() {
        assert!(!request.complete);
        upstream.closed(&request).await;
    }
}

#[tokio::test]
async fn the_request_id_is_ours_and_the_same_on_both_sides() {
    let (upstream, doorward) = open("").await;
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = doorward
        .client()
        .get("/open/a")
        .header("x-request-id", "chosen-by-the-client")
        .header("x-request-id", "twice")
        .header("traceparent", trace)
        .header("tracestate", "a=b")
        .send()
        .await;
    let requests = upstream.requests();
    let [request] = requests.as_slice() else { panic!("one request, not {requests:?}") };
    let ids = request.headers.all("x-request-id");
    assert_eq!(ids.len(), 1, "{ids:?}");
    assert!(ids[0].len() == 16 && ids[0].bytes().all(|byte| byte.is_ascii_hexdigit()), "{ids:?}");
    assert_eq!(answer.headers.all("x-request-id"), ids);
    assert_eq!(request.headers.all("traceparent"), [trace]);
    assert_eq!(request.headers.all("tracestate"), ["a=b"]);
    for (path, status) in [("/app", 401), ("/auth/x", 404), ("/open//a", 400)] {
        let answer = doorward.client().get(path).header("x-request-id", "mine").send().await;
        assert_eq!(answer.status, status);
        let id = answer.header("x-request-id").unwrap_or_else(|| panic!("{path}: no id"));
        assert!(id.len() == 16 && id != ids[0], "{path}: {id}");
        assert_eq!(answer.headers.all("x-request-id").len(), 1);
    }
}

#[tokio::test]
async fn the_upstream_learns_where_a_request_came_from_and_its_claims_of_identity_go_nowhere() {
    let (upstream, doorward) = open("").await;
    upstream.respond(
        "/open/leak",
        "HTTP/1.1 200 OK\r\nx-user-id: alice\r\nX-Client-ID: acme\r\nx-request-id: theirs\r\nx-kept: yes\r\ncontent-length: 0\r\n\r\n",
    );
    let request = "GET /open/leak HTTP/1.1\r\nhost: app.example:8443\r\nx-forwarded-for: 6.6.6.6\r\nx-forwarded-proto: https\r\nx-forwarded-host: evil\r\nforwarded: for=6.6.6.6\r\n\r\n";
    let answer = raw(doorward.proxy_addr(), request).await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert_eq!((answer.header("x-user-id"), answer.header("x-client-id")), (None, None));
    assert_eq!(answer.header("x-kept"), Some("yes"));
    let requests = upstream.requests();
    assert_eq!(answer.headers.all("x-request-id"), requests[0].headers.all("x-request-id"));
    assert_eq!(requests[0].headers.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(requests[0].headers.all("x-forwarded-proto"), ["http"]);
    assert_eq!(requests[0].headers.all("x-forwarded-host"), ["app.example:8443"]);
    assert_eq!(requests[0].headers.all("host"), ["app.example:8443"]);
    assert_eq!(requests[0].header("forwarded"), None);
}
