//! The fast path and the general way are one to the client and to the application.
//!
//! A request that carries `Keep-Alive` goes the general way, and the header itself goes nowhere: the
//! same request is sent with it and without, and everything that arrives on either side is compared.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::client::{RawConnection, Response, sign_in};
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::upstream::{Recorded, Upstream};
use crate::support::{eventually, within};

const GENERAL: &str = "keep-alive: timeout=5\r\n";
const ROUTES: &str = "routes: [{ path: '/app/**', auth: required }, { path: '/kept/**', auth: required, \
                      keep_credentials: true }, { path: '/**', auth: none }]";

/// What the application answers, at `/answer/{index}` or `/closing/{index}`.
const ANSWERS: [(&str, &str); 17] = [
    ("a length", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nX-SpElLiNg: 1\r\n\r\nhi"),
    ("nothing", "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ("chunks", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n3\r\nyou\r\n0\r\n\r\n"),
    ("chunks and a trailer", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"),
    ("no content", "HTTP/1.1 204 No Content\r\n\r\n"),
    ("not modified", "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 5\r\n\r\n"),
    ("fields twice", "HTTP/1.1 200 OK\r\nset-cookie: a=1\r\nset-cookie: b=2\r\ncontent-length: 0\r\n\r\n"),
    ("a reason", "HTTP/1.1 404 Nowhere To Be Found\r\ncontent-length: 1\r\n\r\nx"),
    ("identity", "HTTP/1.1 200 OK\r\nx-user-id: mallory\r\nx-client-id: m\r\ncontent-length: 0\r\n\r\n"),
    (
        "a hint before",
        "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx",
    ),
    ("a last answer", "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 1\r\n\r\nx"),
    ("HTTP/1.0", "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\nx"),
    ("an unasked upgrade", "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
    ("two lengths", "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nxx"),
    (
        "a length and chunks",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
    ),
    ("no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    (
        "bytes too many",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nxHTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\npoison",
    ),
];

/// What only shows when the application closes the connection after it.
const LAST_WORDS: [(&str, &str); 5] = [
    ("until close", "HTTP/1.1 200 OK\r\n\r\nas long as it takes"),
    ("until close on HTTP/1.0", "HTTP/1.0 200 OK\r\n\r\nas long as it takes"),
    ("cut short", "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nnot a hundred"),
    ("cut in a chunk", "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhe"),
    ("cut in the head", "HTTP/1.1 200 OK\r\ncontent-le"),
];

type Fields = Vec<(String, String)>;

/// All that can be seen of one exchange, without what differs from one to the next.
#[derive(Debug, PartialEq)]
struct Seen {
    forwarded: Vec<(String, String, Fields)>,
    answer: Option<(u16, Fields, Vec<u8>)>,
    /// Every byte, where the client asked for the connection's end.
    bytes: Vec<u8>,
    kept: bool,
}

#[tokio::test]
async fn requests_arrive_the_same_and_so_do_answers() {
    let (upstream, idp) = (Upstream::start().await, Idp::start().await);
    let doorward = Doorward::builder().upstream(upstream.url()).idp(&idp).config(ROUTES).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    let cookies = format!("cookie: a=1; __session={token}; b=2\r\ncookie: c=3\r\n");
    let bearer = format!("authorization: Bearer {token}\r\n");
    let mut cases: Vec<(String, String)> = [
        ("GET /", ""),
        ("GET /a/../b?q=1&r=%20", ""),
        ("GET /twice", "x-a: 1\r\nX-B: 2\r\nx-a: 3\r\n"),
        ("POST /empty", "content-length: 0\r\ncontent-type: text/plain\r\n"),
        ("DELETE /thing", ""),
        ("OPTIONS /thing", "origin: https://a.example\r\n"),
        ("PURGE /thing", ""),
        ("HEAD /thing", ""),
        (
            "GET /forged",
            "x-user-id: mallory\r\nX_Client_ID: m\r\nx-forwarded-for: 1.2.3.4\r\nforwarded: for=1.2.3.4\r\n",
        ),
        (
            "GET /said",
            "x-request-id: theirs\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
        ),
        ("GET /large", &format!("x-large: {}\r\n", "x".repeat(6000))),
        ("GET /app/bearer", &bearer),
        ("GET /kept/bearer", &bearer),
        ("GET /app/both", &format!("{bearer}{cookies}")),
        ("GET /app/none", ""),
    ]
    .map(|(start, fields)| (start.to_owned(), fields.to_owned()))
    .into();
    // The recorder's own answer would tell how names are spelled.
    for (start, _) in &cases {
        let path = start.split([' ', '?']).nth(1).expect("a path").replace("/a/../", "/");
        upstream.respond(&path, ANSWERS[0].1);
    }
    for (index, (_, answer)) in ANSWERS.iter().enumerate() {
        upstream.respond(&format!("/answer/{index}"), answer);
        cases.extend(["GET", "HEAD"].map(|method| (format!("{method} /answer/{index}"), String::new())));
    }
    for (index, (_, answer)) in LAST_WORDS.iter().enumerate() {
        upstream.respond(&format!("/closing/{index}"), answer);
        cases.push((format!("GET /closing/{index}"), String::new()));
    }
    for (start, fields) in &cases {
        for (version, ending) in [
            ("1.1", ""),
            ("1.1", "connection: close\r\n"),
            ("1.1", "connection: Keep-Alive\r\n"),
            ("1.0", ""),
            ("1.0", "connection: keep-alive\r\n"),
        ] {
            let head = format!("{start} HTTP/{version}\r\nhost: app.example\r\n{fields}{ending}");
            let short = see(&doorward, &upstream, &format!("{head}\r\n")).await;
            let general = see(&doorward, &upstream, &format!("{head}{GENERAL}\r\n")).await;
            assert_eq!(short, general, "{head}");
            assert!(short.answer.is_some() || !short.bytes.is_empty(), "{head}: no answer at all");
        }
    }
}

#[tokio::test]
async fn only_the_general_way_keeps_how_names_are_spelled() {
    let upstream = Upstream::start().await;
    let doorward = Doorward::builder().upstream(upstream.url()).config(ROUTES).start().await;
    for (way, fields, spelled) in [("short", "", "x-spelled: 1"), ("general", GENERAL, "X-SpElLeD: 1")] {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(format!("GET /{way} HTTP/1.1\r\nhost: x\r\nX-SpElLeD: 1\r\n{fields}\r\n")).await;
        assert_eq!(connection.response().await.expect("an answer").status, 200);
        let path = format!("/{way}");
        let head = upstream.wait_for(|request| request.target == path).await.head;
        assert!(String::from_utf8_lossy(&head).contains(spelled), "{way}: {}", String::from_utf8_lossy(&head));
    }
}

#[tokio::test]
async fn a_request_that_met_a_closing_connection_is_sent_again_if_that_does_no_harm() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let doorward = Doorward::builder().upstream(&url).config(ROUTES).start().await;
    for (method, fields, status) in
        [("GET", "", 200), ("GET", GENERAL, 200), ("POST", "content-length: 0\r\n", 502), ("DELETE", "", 200)]
    {
        let request = format!("{method} / HTTP/1.1\r\nhost: x\r\n{fields}\r\n");
        let client = async {
            let mut connection = RawConnection::open(doorward.proxy_addr()).await;
            connection.write(&request).await;
            let first = connection.response().await.expect("an answer").status;
            connection.write(&request).await;
            (first, connection.response().await.expect("an answer").status)
        };
        let application = async {
            let mut kept = answer_one(&listener).await;
            // The second request is read, and its connection closed without an answer.
            assert!(kept.read(&mut [0; 4096]).await.expect("a request") > 0);
            drop(kept);
            if status == 200 {
                drop(answer_one(&listener).await);
            }
        };
        let both = Box::pin(async { tokio::join!(client, application) });
        let (statuses, ()) = within("two answers", both).await;
        assert_eq!(statuses, (200, status), "{method} {fields}");
    }
}

async fn answer_one(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.expect("a connection");
    answer(&mut stream).await;
    stream
}

async fn answer(stream: &mut TcpStream) {
    // All of it: a connection that is answered before its request was sent is not kept.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert!(stream.read_buf(&mut head).await.expect("a request") > 0);
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await.expect("the connection is open");
}

async fn see(doorward: &Doorward, upstream: &Upstream, request: &str) -> Seen {
    let before = upstream.count();
    let mut connection = RawConnection::open(doorward.proxy_addr()).await;
    connection.write(request).await;
    let (mut answer, mut bytes, mut kept) = (None, Vec::new(), false);
    if request.contains("connection: close") {
        bytes = masked(&connection.closed().await);
    } else {
        let got =
            if request.starts_with("HEAD") { connection.head_response().await } else { connection.response().await };
        answer = got.map(|got| (got.status, fields(&got), got.body));
        connection.write("GET /again HTTP/1.1\r\nhost: x\r\n\r\n").await;
        kept = connection.response().await.is_some_and(|again| again.status == 200);
    }
    let forwarded =
        upstream.requests_after(before).iter().filter(|asked| asked.target != "/again").map(heard).collect();
    Seen { forwarded, answer, bytes, kept }
}

fn heard(request: &Recorded) -> (String, String, Fields) {
    (request.method.clone(), request.target.clone(), comparable(&request.headers.0))
}

fn fields(answer: &Response) -> Fields {
    comparable(&answer.headers.0)
}

// Order between fields of different names means nothing (RFC 9110 §5.3).
fn comparable(headers: &[(String, String)]) -> Fields {
    let mut fields: Fields = headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), value.clone())).collect();
    for (name, value) in &mut fields {
        if matches!(name.as_str(), "x-request-id" | "date") {
            *value = format!("{} characters", value.len());
        }
    }
    fields.sort_by(|one, other| one.0.cmp(&other.0));
    fields
}

fn masked(bytes: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(bytes);
    let mask = |line: &str| match line.split_once(':') {
        Some((name @ ("x-request-id" | "X-Request-ID" | "Date" | "date"), _)) => format!("{name}:\r\n"),
        _ => line.to_owned(),
    };
    let lines: String = text.split_inclusive('\n').map(mask).collect();
    // The refusal's body names the request too.
    let named = lines.find("\"request_id\":\"").map(|at| lines[..at].to_owned());
    unchunked(&named.unwrap_or(lines)).into_bytes()
}

// Where one chunk ends and the next begins means nothing (RFC 9112 §7.1), that the last one came does.
fn unchunked(text: &str) -> String {
    let Some((heads, mut rest)) = text.split_once("chunked\r\n").and_then(|(before, after)| {
        let (fields, body) = after.split_once("\r\n\r\n")?;
        Some((format!("{before}chunked\r\n{fields}\r\n\r\n"), body))
    }) else {
        return text.to_owned();
    };
    let mut whole = heads;
    while let Some((size, data)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).expect("a chunk's size");
        whole.push_str(data.get(..size).unwrap_or(data));
        rest = data.get(size + 2..).unwrap_or_default();
        if size == 0 {
            whole.push_str("<end>");
        }
    }
    whole
}

#[tokio::test]
async fn a_connection_that_the_application_closes_while_it_is_unused_is_let_go() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback has free ports");
    let url = format!("http://{}", listener.local_addr().expect("a bound socket has an address"));
    let doorward = Doorward::builder().upstream(&url).config(ROUTES).start().await;
    let request = "GET / HTTP/1.1\r\nhost: x\r\n\r\n";
    let mut client = RawConnection::open(doorward.proxy_addr()).await;
    client.write(request).await;
    let mut kept = within("a request", answer_one(&listener)).await;
    assert_eq!(client.response().await.expect("an answer").status, 200);
    client.write(request).await;
    within("a request on the same connection", answer(&mut kept)).await;
    assert_eq!(client.response().await.expect("an answer").status, 200);
    kept.shutdown().await.expect("the connection is open");
    let rest = within("doorward to close too", kept.read(&mut [0; 1])).await;
    assert!(matches!(rest, Ok(0) | Err(_)), "{rest:?}");
}

#[tokio::test]
async fn an_unused_connection_is_kept_for_as_long_as_configured() {
    let upstream = Upstream::start().await;
    let short = "upstream: { idle_timeout: 100ms }";
    let doorward = Doorward::builder().upstream(upstream.url()).config(ROUTES).config(short).start().await;
    assert_eq!(doorward.client().get("/one").send().await.status, 200);
    let first = upstream.wait_for(|request| request.target == "/one").await;
    upstream.closed(&first).await;
}

#[tokio::test]
async fn no_more_connections_are_kept_than_configured() {
    let upstream = Upstream::start().await;
    let one = "upstream: { pool_size: 1 }\nlimits: { workers: 1, anonymous_per_minute: 0, exchange_per_minute: 0 }";
    let doorward = Doorward::builder().upstream(upstream.url()).config(ROUTES).config(one).start().await;
    let mut waiting = Vec::new();
    for number in 0..3 {
        let mut connection = RawConnection::open(doorward.proxy_addr()).await;
        connection.write(format!("GET /slow-body?{number} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
        upstream.wait_for(|request| request.target == format!("/slow-body?{number}")).await;
        waiting.push(connection);
    }
    for _ in &waiting {
        upstream.release();
    }
    for connection in &mut waiting {
        assert_eq!(connection.response().await.expect("an answer").status, 200);
    }
    let open = || upstream.requests().iter().filter(|request| upstream.is_open(request)).count();
    eventually("all but one to be closed", async || (open() == 1).then_some(())).await;
}
