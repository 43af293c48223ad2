//! Upgrades, and what else a client may say that is for the next hop alone.

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::tungstenite::Message;

use super::identity::{assert_named, assert_unnamed, contains, pairs};
use super::stage::{Stage, bearer};
use crate::support::client::RawConnection;
use crate::support::stage::USER;
use crate::support::upstream::Recorded;
use crate::support::within;

/// The lines of `Upgrade` in one request: none of them is a WebSocket's.
const OTHER_UPGRADES: [&[&str]; 11] = [
    &["h2c"],
    &["H2C"],
    &["foo"],
    &["TLS/1.0"],
    &["websocket/13"],
    &["h2c", "websocket"],
    &["websocket", "h2c"],
    &["foo", "websocket"],
    &["h2c, websocket"],
    &["websocket, h2c"],
    &["websocket,h2c"],
];

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// On an open path, where anybody could: the application would take them all.
pub(super) async fn other_upgrades_open_no_tunnel(stage: &Stage) {
    for lines in OTHER_UPGRADES {
        let mut head = format!("GET /open/upgrade HTTP/1.1\r\nHost: {}\r\n", stage.host());
        head.push_str("Connection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n");
        for line in lines {
            head.extend(["Upgrade: ", line, "\r\n"]);
        }
        head.push_str("\r\n");
        let before = stage.application.count();
        let mut connection = RawConnection::open(stage.front.address()).await;
        connection.write(head.as_bytes()).await;
        let status = connection.response().await.map_or(0, |response| response.status);
        let seen = stage.application.requests_after(before);
        let upgrades = seen.iter().flat_map(|seen| seen.headers.all("upgrade")).collect::<Vec<_>>();
        // Some know only the first of several lines, and so does the application: a WebSocket.
        if lines[0] == "websocket" && upgrades == ["websocket"] {
            assert_eq!((status, seen.len()), (101, 1), "{lines:?}: {seen:?}");
            continue;
        }
        assert!(upgrades.is_empty(), "{lines:?}: {seen:?}");
        for seen in &seen {
            assert!(!contains(&seen.head.to_ascii_lowercase(), "http2-settings"), "{lines:?}: {seen:?}");
            assert_hop_by_hop(seen);
        }
        assert!(status == 200 || (400..500).contains(&status), "{lines:?}: {status}");
        // What follows is a request of its own, and asked about.
        connection.write(format!("GET /app HTTP/1.1\r\nHost: {}\r\n\r\n", stage.host())).await;
        let next = connection.response().await.map(|response| response.status);
        assert!(matches!(next, None | Some(401)), "{lines:?}: {next:?}");
        assert_eq!(stage.application.count(), before + seen.len(), "{lines:?}");
        assert!(stage.application.requests_after(before).iter().all(|seen| seen.body.is_empty()), "{lines:?}");
    }
}

/// In any case of letters, and with a nomination beside it.
pub(super) async fn web_sockets_still_open(stage: &Stage) {
    let before = stage.application.count();
    let opened = stage.front.client().web_socket("/ws", &[("authorization", &format!("Bearer {}", stage.user))]).await;
    let mut socket = opened.unwrap_or_else(|refusal| panic!("{refusal:?}"));
    socket.send(Message::text("hello")).await.expect("the socket is open");
    let echo = within("an echo", socket.next()).await.expect("the socket is open").expect("it is sound");
    assert_eq!(echo, Message::text("hello"));
    assert_named(&stage.application.requests_after(before)[0], USER);
    for (upgrade, connection) in
        [("websocket", "Upgrade"), ("WebSocket", "keep-alive, Upgrade"), ("websocket", "Upgrade, X-User-ID")]
    {
        let fields = [
            format!("Connection: {connection}"),
            format!("Upgrade: {upgrade}"),
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
            "Sec-WebSocket-Version: 13".to_owned(),
            stage.user_field(),
        ];
        let asked = stage.request("GET /ws", &fields).await;
        assert_eq!((asked.status(), asked.seen.len()), (101, 1), "{fields:?}: {asked:?}");
        assert_named(&asked.seen[0], USER);
        assert_eq!(asked.seen[0].headers.all("upgrade").join("\n").to_lowercase(), "websocket");
        assert_hop_by_hop(&asked.seen[0]);
        // A cookie needs the right origin, whatever else of a handshake is there.
        let cookie = format!("Cookie: session={}", stage.user);
        let alone = [fields[0].clone(), fields[1].clone(), cookie.clone()];
        let asked = stage.request("GET /ws", &alone).await;
        // Some refuse a handshake without a key themselves.
        assert!(matches!(asked.status(), 400 | 403) && asked.seen.is_empty(), "{alone:?}: {asked:?}");
        let all = [fields[..4].to_vec(), vec![cookie]].concat();
        stage.request("GET /ws", &all).await.refused_with(403);
    }
}

/// An application, or a hop before it, could drop what `Connection` names (CVE-2024-45410).
pub(super) async fn nominations_end_at_the_proxy(stage: &Stage) {
    for nomination in [
        "Connection: X-User-ID, X-Client-ID",
        "Connection: keep-alive, x-user-id, x-client-id",
        "Connection: close, X-User-ID",
        "Connection: X-Client-ID\r\nConnection: X-User-ID",
        "Connection: Upgrade, X-User-ID",
        "Proxy-Connection: X-User-ID",
    ] {
        let asked = stage.request("GET /app", &[nomination.to_owned(), stage.user_field()]).await;
        assert_named(asked.forwarded(), USER);
        assert_hop_by_hop(asked.forwarded());
    }
}

/// Doorward would believe that the proxy had said it.
pub(super) async fn traces_of_clients_end_at_the_proxy(stage: &Stage) {
    let fields = [format!("traceparent: 00-{TRACE}-00f067aa0ba902b7-01"), "tracestate: congo=t61rcWkgMzE".to_owned()];
    let asked = stage.request("GET /open/a", &fields).await;
    assert_unnamed(asked.forwarded());
    assert!(!contains(&asked.forwarded().head, TRACE) && !contains(&asked.forwarded().head, "congo"), "{asked:?}");
}

/// HTTP/1 allows one line of `Cookie`; what comes in more is read and removed like one.
pub(super) async fn sessions_in_several_cookie_lines_end_at_the_proxy(stage: &Stage) {
    let token = &stage.user;
    let session = format!("session={token}");
    for (lines, left) in [
        ([session.clone(), "a=b".to_owned()], "a=b"),
        (["a=b".to_owned(), session.clone()], "a=b"),
        ([format!("a=b; {session}"), "c=d".to_owned()], "a=b; c=d"),
        (["a=b".to_owned(), format!("{session}; c=d")], "a=b; c=d"),
        (["a=b; c=d".to_owned(), format!("e=f; {session}")], "a=b; c=d; e=f"),
    ] {
        let fields = lines.each_ref().map(|line| format!("Cookie: {line}"));
        for start in ["GET /app", "GET /open/a"] {
            let asked = stage.request(start, &fields).await;
            let seen = asked.forwarded();
            assert!(!contains(&seen.head, token), "{start} {lines:?}: {seen:?}");
            assert_eq!(pairs(&seen.headers.all("cookie").join("; ")), pairs(left), "{start} {lines:?}");
            if start == "GET /app" {
                assert_named(seen, USER);
            }
        }
    }
    let twice = [format!("Cookie: {session}"), format!("Cookie: a=b; {session}")];
    let fields = [twice.as_slice(), &[bearer(token)]].concat();
    for start in ["GET /open/a", "GET /app"] {
        for seen in stage.request(start, &fields).await.seen {
            assert!(!contains(&seen.head, token), "{start}: {seen:?}");
        }
    }
}

fn assert_hop_by_hop(seen: &Recorded) {
    for value in seen.headers.all("connection") {
        for token in value.split(',').map(|token| token.trim().to_lowercase()) {
            assert!(matches!(token.as_str(), "" | "close" | "keep-alive" | "upgrade"), "{token}: {seen:?}");
        }
    }
}
