//! Request bodies as they come on the wire: by length, in chunks, after `100 Continue`, unwanted, broken.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::answers::{assert_answer, assert_guard_refuses, assert_refused, token_of};
use super::logout::LOGOUTS;
use crate::support::client::{RawConnection, raw, sign_in};
use crate::support::doorward::Doorward;
use crate::support::h2_client::H2Client;
use crate::support::idp::Idp;
use crate::support::upstream::Upstream;
use crate::support::within;

const DEVICE: &str = r#"{"device_id":"x"}"#;
const ANONYMOUS: &str = "POST /auth/anonymous HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";

fn chunked(pieces: &[&str]) -> String {
    let chunks = pieces.iter().fold(String::new(), |all, piece| all + &format!("{:x}\r\n{piece}\r\n", piece.len()));
    format!("transfer-encoding: chunked\r\n\r\n{chunks}0\r\n\r\n")
}

#[tokio::test]
async fn a_body_may_come_in_pieces_and_leaves_the_connection_usable() {
    let doorward = Doorward::builder().start().await;
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    let (start, end) = DEVICE.split_at(5);
    for framing in [
        format!("content-length: {}\r\n\r\n{DEVICE}", DEVICE.len()),
        chunked(&[DEVICE]),
        chunked(&[start, end]),
        chunked(&DEVICE.split_inclusive(|_| true).collect::<Vec<_>>()),
    ] {
        // One write, and byte by byte of the body.
        connection.write(format!("{ANONYMOUS}{framing}")).await;
        token_of(&connection.response().await.expect("an answer"));
        let (head, body) = framing.split_once("\r\n\r\n").expect("a body");
        connection.write(format!("{ANONYMOUS}{head}\r\n\r\n")).await;
        for byte in body.as_bytes() {
            connection.write([*byte]).await;
        }
        token_of(&connection.response().await.expect("an answer"));
    }
}

#[tokio::test]
async fn a_caller_that_waits_is_told_to_continue() {
    let doorward = Doorward::builder().start().await;
    for (framing, body) in [
        (format!("content-length: {}", DEVICE.len()), DEVICE.to_owned()),
        ("transfer-encoding: chunked".to_owned(), format!("11\r\n{DEVICE}\r\n0\r\n\r\n")),
    ] {
        let mut stream = TcpStream::connect(doorward.proxy_addr()).await.expect("the server listens");
        for _ in 0..2 {
            let head = format!("{ANONYMOUS}{framing}\r\nexpect: 100-continue\r\n\r\n");
            stream.write_all(head.as_bytes()).await.expect("the server reads");
            let mut interim = [0; 25];
            within("100 Continue", stream.read_exact(&mut interim)).await.expect("an interim answer");
            assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
            stream.write_all(body.as_bytes()).await.expect("the server reads");
            let mut answer = String::new();
            while !answer.ends_with(r#""expires_in":1800}"#) {
                let mut piece = [0; 1024];
                let read = within("the answer", stream.read(&mut piece)).await.expect("an answer");
                assert_ne!(read, 0, "{answer}");
                answer.push_str(&String::from_utf8_lossy(&piece[..read]));
            }
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
    }
}

#[tokio::test]
async fn a_body_too_large_is_refused_however_it_is_framed() {
    let doorward = Doorward::builder().start().await;
    let (piece, pieces) = (" ".repeat(8192), 9);
    let all = piece.repeat(pieces);
    for framing in [
        format!("content-length: {}\r\n\r\n{all}", all.len()),
        chunked(&vec![piece.as_str(); pieces]),
        // Said, and not even sent.
        "content-length: 99999999999\r\n\r\n".to_owned() + &all,
    ] {
        let answer = raw(doorward.proxy_addr(), format!("{ANONYMOUS}{framing}")).await.expect("an answer");
        assert_refused(&answer, 413, "Request body too large");
    }
}

#[tokio::test]
async fn bytes_that_are_no_text_are_no_json() {
    let doorward = Doorward::builder().start().await;
    for body in [&b"{\"device_id\":\"\xff\"}"[..], b"\xef\xbb\xbf{\"device_id\":\"x\"}", b"\0"] {
        let mut request = format!("{ANONYMOUS}content-length: {}\r\n\r\n", body.len()).into_bytes();
        request.extend(body);
        let answer = raw(doorward.proxy_addr(), request).await.expect("an answer");
        assert_refused(&answer, 422, "Invalid JSON body");
    }
}

#[tokio::test]
async fn a_body_that_nobody_wants_is_neither_an_obstacle_nor_the_next_request() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let builder = Doorward::builder().upstream(upstream.url()).idp(&idp);
    let doorward = builder.config("routes: [{ path: '/open/**', auth: none }]").start().await;
    let smuggled = "GET /open/smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let framings = [
        format!("content-length: {}\r\n\r\n{smuggled}", smuggled.len()),
        chunked(&[smuggled]),
        "content-type: application/json\r\ncontent-length: 0\r\n\r\n".to_owned(),
        "content-type: application/json\r\ncontent-length: 2\r\n\r\n{}".to_owned(),
    ];
    for framing in &framings {
        for (method, path) in LOGOUTS {
            let token = sign_in(&doorward, &idp, "user_alice").await;
            let head = format!("{method} {path} HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {token}\r\n");
            let answer = raw(doorward.proxy_addr(), format!("{head}{framing}")).await.expect("an answer");
            assert_answer(&answer, 200, r#"{"revoked":true}"#);
            assert_guard_refuses(&doorward, &token, "Invalid token: session revoked").await;
        }
        let jwt = idp.mint_for("user_alice");
        let head = format!("POST /auth/session HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {jwt}\r\n");
        token_of(&raw(doorward.proxy_addr(), format!("{head}{framing}")).await.expect("an answer"));
    }
    for path in ["/auth/x", "/auth/session"] {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(format!("PUT {path} HTTP/1.1\r\nhost: a\r\n{}", framings[0])).await;
        let answers = String::from_utf8_lossy(&connection.closed().await).into_owned();
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
    }
    assert!(upstream.requests().is_empty(), "{:?}", upstream.requests());
}

#[tokio::test]
async fn a_large_unwanted_body_does_not_take_the_answer_away() {
    let idp = Idp::start().await;
    let doorward = Doorward::builder().idp(&idp).start().await;
    let body = "x".repeat(1024 * 1024);
    for method in ["DELETE", "POST"] {
        let head = format!("{method} /auth/session HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n", body.len());
        let answer = raw(doorward.proxy_addr(), format!("{head}{body}")).await.expect("an answer");
        assert_refused(&answer, 401, "Missing Bearer token");
    }
    let client = H2Client::connect(doorward.proxy_addr()).await;
    for method in [http::Method::DELETE, http::Method::POST] {
        let answer = client.ask(method, "/auth/session", &[], &body).await;
        assert_refused(&answer, 401, "Missing Bearer token");
    }
}

#[tokio::test]
async fn a_broken_body_starts_no_session() {
    let doorward = Doorward::builder().start().await;
    for broken in [
        "transfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 17\r\n\r\n11\r\n{\"device_id\":\"x\"}\r\n0\r\n\r\n",
        "content-length: 17\r\ncontent-length: 18\r\n\r\n{\"device_id\":\"x\"} ",
        "content-length: -1\r\n\r\n{\"device_id\":\"x\"}",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = raw(doorward.proxy_addr(), format!("{ANONYMOUS}{broken}")).await;
        assert_eq!(answer.as_ref().map_or(400, |answer| answer.status), 400, "{broken}");
    }
    let metrics = doorward.admin_get("/metrics").await.text();
    let started = "doorward_sessions_created_total{kind=\"anonymous\",method=\"anonymous\"} 0";
    assert!(metrics.lines().any(|line| line == started), "{metrics}");
}
