//! Path, host and method matching: what the rules saw must be what the application sees.
//!
//! Each test is named after the advisories it repeats. The application's side of the wire decides.

use http::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::dice::Dice;
use crate::support::stage::{Asked, Stage, USER};
use crate::support::within;

/// Paths that two parsers read differently: never forwarded, whoever asks.
const AMBIGUOUS: [&str; 44] = [
    "/open/../app",
    "/open/./../app",
    "/open/a/../../app",
    "/open/..",
    "/open/.",
    "/open/../",
    "/./app",
    "/../app",
    "//app",
    "//open/a",
    "/open//a",
    "/open/a//",
    "///",
    "//",
    "/.",
    "/..",
    "/app/.",
    "/app/..",
    "/open/%2e%2e/app",
    "/open/%2E%2E/app",
    "/open/.%2e/app",
    "/open/%2e./app",
    "/open/%2e%2E%2fapp",
    "/open/%2e/app",
    "/open/..%2fapp",
    "/open/..%2Fapp",
    "/open/a%2f..%2fapp",
    "/open\\..\\app",
    "/open/..\\app",
    "/open%5c..%5capp",
    "/open/..%5capp",
    "/open/..%5Capp",
    "/open/..;/app",
    "/open/..;a=b/app",
    "/open/.;/app",
    "/open/%2e%2e;/app",
    "/open/%252e%252e/app",
    "/open/%252E%252e/app",
    "/open/..%252fapp",
    "/open/%25252e%25252e/app",
    "/open/%00/app",
    "/open/a%0d%0ax",
    "/open/%7f",
    "/open/%",
];

/// Reads a path as the most eager application would: decodes until nothing changes, takes both
/// slashes for separators, drops path parameters, and resolves dots.
fn most_eager_reading(path: &str) -> String {
    let mut bytes = path.as_bytes().to_vec();
    loop {
        let decoded = decode_once(&bytes);
        if decoded == bytes {
            break;
        }
        bytes = decoded;
    }
    let mut kept: Vec<&[u8]> = Vec::new();
    for segment in bytes.split(|byte| b"/\\".contains(byte)) {
        match segment.split(|byte| *byte == b';').next().unwrap_or_default() {
            b"" | b"." => {}
            b".." => drop(kept.pop()),
            name => kept.push(name),
        }
    }
    format!("/{}", String::from_utf8_lossy(&kept.join(b"/".as_slice())))
}

fn decode_once(bytes: &[u8]) -> Vec<u8> {
    let digit = |at: usize| bytes.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let mut decoded = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(high * 16 + low).expect("two hex digits make a byte"));
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    decoded
}

fn is_open(reading: &str) -> bool {
    reading == "/open" || reading.starts_with("/open/")
}

/// Writes `path` in another way: escapes, escapes of escapes, dots, slashes, parameters.
fn disguise(path: &str, dice: &mut Dice) -> String {
    let mut disguised = String::new();
    for character in path.chars() {
        let byte = u32::from(character);
        let written = match dice.below(32) {
            0 => format!("%{byte:02x}"),
            1 => format!("%{byte:02X}"),
            2 => format!("%25{byte:02x}"),
            3 if character == '/' => dice.pick(&["/./", "//", "\\", "/x/../", "/;/", "/..;/", "/%2e/"]).to_owned(),
            4 => format!("%2525{byte:02X}"),
            _ => character.to_string(),
        };
        disguised.push_str(&written);
    }
    if disguised.starts_with('/') { disguised } else { format!("/{disguised}") }
}

/// Sends one HTTP/2 request whose pseudo-headers are exactly these, and returns what came back:
/// the frames' types and, of a head, its first byte.
async fn raw_h2(stage: &Stage, path: &[u8], authority: Option<&[u8]>) -> Vec<(u8, u8)> {
    let mut block = vec![0x82, 0x86]; // :method GET, :scheme http
    let mut literal = |index: u8, value: &[u8]| {
        block.extend([index, u8::try_from(value.len()).expect("short")]);
        block.extend(value);
    };
    literal(0x04, path); // literal without indexing, the name being :path
    if let Some(authority) = authority {
        literal(0x01, authority); // :authority
    }
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    let length = u32::try_from(block.len()).expect("short").to_be_bytes();
    bytes.extend([&length[1..], &[0x01, 0x05, 0, 0, 0, 1]].concat());
    bytes.extend(block);
    let mut stream = TcpStream::connect(stage.doorward.proxy_addr()).await.expect("the server listens");
    stream.write_all(&bytes).await.expect("the server reads");
    let mut frames = Vec::new();
    // Until the stream's fate is known: a head (1), a reset (3), the end of the connection (7, or no more).
    while !frames.iter().any(|(kind, _)| [1, 3, 7].contains(kind)) {
        let mut head = [0; 9];
        if within("an HTTP/2 frame", stream.read_exact(&mut head)).await.is_err() {
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("24 bits fit")];
        within("a frame's payload", stream.read_exact(&mut payload)).await.expect("whole frames");
        frames.push((head[3], payload.first().copied().unwrap_or_default()));
    }
    frames
}

#[tokio::test]
async fn ghsa_p224_cve_2026_42274_cve_2021_31920_ghsa_6jwx_an_ambiguous_path_is_a_bad_request() {
    let stage = Stage::start("").await;
    let nobody: [String; 0] = [];
    for path in AMBIGUOUS {
        for fields in [nobody.as_slice(), &[stage.user_field()]] {
            for target in [path.to_owned(), format!("{path}?a=/open/"), format!("http://{}{path}", stage.host())] {
                let asked = stage.request(&format!("GET {target}"), fields).await;
                assert_eq!((asked.status(), asked.seen.len()), (400, 0), "{target}: {asked:?}");
            }
        }
    }
}

#[tokio::test]
async fn ghsa_p224_an_ambiguous_path_is_a_bad_request_over_http2() {
    let stage = Stage::start("").await;
    for path in AMBIGUOUS {
        let frames = raw_h2(&stage, path.as_bytes(), Some(stage.host().as_bytes())).await;
        // 0x8c is `:status: 400` of HPACK's static table.
        let refused = frames.iter().any(|frame| *frame == (1, 0x8c) || frame.0 == 3);
        assert!(refused && stage.upstream.count() == 0, "{path}: {frames:?}");
    }
}

#[tokio::test]
async fn cve_2026_42272_an_escape_means_the_same_in_either_case() {
    let stage = Stage::start("").await;
    let nobody: [&str; 0] = [];
    for byte in 0..=255_u8 {
        for path in ["/open/a", "/ope"] {
            let (lower, upper) = (format!("{path}%{byte:02x}b"), format!("{path}%{byte:02X}b"));
            let lower = stage.request(&format!("GET {lower}"), &nobody).await;
            let upper = stage.request(&format!("GET {upper}"), &nobody).await;
            assert_eq!(lower.status(), upper.status(), "{byte:02x}");
            let target = |asked: &Asked| asked.seen.iter().map(|seen| seen.target.clone()).collect::<Vec<_>>();
            assert_eq!(target(&lower), target(&upper), "{byte:02x}");
            let dangerous = matches!(byte, 0..=0x1f | 0x7f | b'/' | b'\\');
            let expected = if dangerous {
                400
            } else if path == "/ope" {
                401
            } else {
                200
            };
            assert_eq!(lower.status(), expected, "{path}%{byte:02x}b");
        }
    }
    // The rule sees through escapes of plain letters, in both directions.
    let seen = stage.request("GET /%6fpen/%61", &nobody).await;
    assert_eq!(seen.forwarded().target, "/open/a");
    stage.request("GET /%61pp", &nobody).await.refused(401, "Missing Bearer token");
}

#[tokio::test]
async fn cve_2026_42273_cve_2021_39155_cve_2026_48794_ghsa_4xpc_no_host_opens_anything() {
    let stage = Stage::start("").await;
    for host in [
        "App.Example.com",
        "app.example.com.",
        "app.example.com:8080",
        "[::1]:8080",
        "[::1]",
        "localhost",
        "evil.example",
        "127.0.0.1",
        "admin",
    ] {
        let ask = async |path: &str, field: &str| {
            stage.ask(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{field}\r\n")).await
        };
        ask("/app", "").await.refused(401, "Missing Bearer token");
        let asked = ask("/app", &format!("{}\r\n", stage.user_field())).await;
        assert_eq!(asked.forwarded().headers.all("host"), [host]);
        assert_eq!(asked.forwarded().header("x-user-id"), Some(USER));
        assert_eq!(ask("/open/a", "").await.forwarded().headers.all("host"), [host]);
    }
}

#[tokio::test]
async fn an_absolute_uri_is_forwarded_in_origin_form_if_it_agrees_with_host() {
    let stage = Stage::start("").await;
    let host = stage.host();
    let user = stage.user_field();
    let ask = async |target: &str, host: &str| {
        stage.ask(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n{user}\r\n\r\n")).await
    };
    for (target, expected) in [
        (format!("http://{host}/app?x=1"), "/app?x=1"),
        (format!("HTTP://{host}/app"), "/app"),
        (format!("http://{host}"), "/"),
        (format!("http://{host}?x=1"), "/?x=1"),
        (format!("http://{host}/%61pp"), "/app"),
    ] {
        let asked = ask(&target, &host).await;
        assert_eq!(asked.status(), 200, "{target}");
        let seen = asked.forwarded();
        let start = format!("GET {expected} HTTP/1.1\r\n");
        assert!(seen.head.starts_with(start.as_bytes()), "{target}: {}", String::from_utf8_lossy(&seen.head));
        assert_eq!(seen.headers.all("host"), [host.as_str()]);
        assert_eq!(seen.header("x-user-id"), Some(USER));
    }
    for (target, host) in [
        (format!("http://{host}/open/a"), "evil.example"),
        ("http://evil.example/open/a".to_owned(), host.as_str()),
        // The same host to RFC 9110, but nobody sends the two in different spellings.
        ("http://App.Example.com/open/a".to_owned(), "app.example.com"),
        ("http://app.example.com:80/open/a".to_owned(), "app.example.com"),
        ("http://app.example.com./open/a".to_owned(), "app.example.com"),
        ("http://root@app.example.com/open/a".to_owned(), "app.example.com"),
        ("http://app.example.com@evil.example/open/a".to_owned(), "app.example.com"),
    ] {
        let asked = ask(&target, host).await;
        assert_eq!((asked.status(), asked.seen.len()), (400, 0), "{target} {host}: {asked:?}");
    }
    // A rule is matched against the path, not against the target's first characters.
    let asked = stage.request(&format!("GET http://{host}/app"), &[""; 0]).await;
    asked.refused(401, "Missing Bearer token");
    let asked = stage.request(&format!("POST http://{host}/auth/session"), &["Content-Length: 0"]).await;
    asked.refused(401, "Missing Bearer token");
    for target in ["ftp://x/open/a", "open/a", "*", "a:80", "http:///open/a", "http:/open/a"] {
        let asked = stage.request(&format!("GET {target}"), &[""; 0]).await;
        assert!(asked.seen.is_empty() && [0, 400].contains(&asked.status()), "{target}: {asked:?}");
    }
    // The parser escapes a space before anybody looks: rule and application see the same.
    stage.request("GET /app /open/a", &[""; 0]).await.refused(401, "Missing Bearer token");
    assert_eq!(stage.request("GET /open/a /b", &[""; 0]).await.forwarded().target, "/open/a%20/b");
    let asked = stage.request("OPTIONS *", &[""; 0]).await;
    assert_eq!((asked.status(), asked.seen.len()), (400, 0), "{asked:?}");
}

#[tokio::test]
async fn cve_2026_33186_a_path_pseudo_header_that_is_no_path_is_a_bad_request() {
    let stage = Stage::start("").await;
    let host = stage.host();
    let absolute = format!("http://{host}/open/a");
    let paths: [&[u8]; 9] = [
        b"svc/Method",
        b"open/a",
        b"",
        b"*",
        absolute.as_bytes(),
        b"http://evil.example/open/a",
        b"?x=/open/a",
        b"&/open/a",
        b"\\open\\a",
    ];
    for path in paths {
        let frames = raw_h2(&stage, path, Some(host.as_bytes())).await;
        let refused = frames.iter().any(|frame| *frame == (1, 0x8c) || [3, 7].contains(&frame.0));
        assert!(refused && stage.upstream.count() == 0, "{:?}: {frames:?}", String::from_utf8_lossy(path));
    }
    // The hand-written frames are good ones: a good path passes.
    let frames = raw_h2(&stage, b"/open/a", Some(host.as_bytes())).await;
    assert!(frames.contains(&(1, 0x88)), "{frames:?}");
    assert_eq!(stage.upstream.requests()[0].target, "/open/a");
    assert_eq!(stage.upstream.requests()[0].headers.all("host"), [host.as_str()]);
    let frames = raw_h2(&stage, b"/open/a", None).await;
    assert!(!frames.contains(&(1, 0x88)), "neither Host nor :authority: {frames:?}");
}

#[tokio::test]
async fn cve_2026_41059_cve_2021_39156_a_fragment_does_not_widen_a_rule() {
    let stage = Stage::start("").await;
    for target in ["/app/secret#/open/a", "/app#", "/open/a#b", "/#/open/a", "/open/a?b#c"] {
        let asked = stage.request(&format!("GET {target}"), &[""; 0]).await;
        assert_eq!((asked.status(), asked.seen.len()), (400, 0), "{target}: {asked:?}");
    }
    // HTTP/2's parser drops it without a trace: rule and application see the same rest.
    for path in [b"/app#/open/a".as_slice(), b"#/open/a", b"/app?a#/open/a"] {
        let frames = raw_h2(&stage, path, Some(stage.host().as_bytes())).await;
        assert!(!frames.contains(&(1, 0x88)) && stage.upstream.count() == 0, "{frames:?}");
    }
    for target in ["/app/secret%23/open/a", "/app%23", "/%23/open/a", "/open%23/a"] {
        stage.request(&format!("GET {target}"), &[""; 0]).await.refused(401, "Missing Bearer token");
    }
    let asked = stage.request("GET /open/a%23b", &[""; 0]).await;
    assert_eq!(asked.forwarded().target, "/open/a%23b");
}

#[tokio::test]
async fn ghsa_7rh7_ghsa_r8x2_a_query_neither_matches_a_rule_nor_changes_on_its_way() {
    let stage = Stage::start("").await;
    for target in ["/app?x=/open/a", "/app?/open/a", "/app?/../open/a", "/app%3f/open/a", "/?/open/a", "/app/?open"] {
        stage.request(&format!("GET {target}"), &[""; 0]).await.refused(401, "Missing Bearer token");
    }
    for target in [
        "/open/a?x=/../app",
        "/open/a?x=%2e%2e%2f&y=%0a",
        "/open/a?",
        "/open/a??b",
        "/open/a?x=%zz",
        "/open/a?%61=b+c",
        "/open/a?a=[1]",
    ] {
        assert_eq!(stage.request(&format!("GET {target}"), &[""; 0]).await.forwarded().target, target);
    }
    assert_eq!(stage.request("GET /open/%61?%61=/..", &[""; 0]).await.forwarded().target, "/open/a?%61=/..");
    let asked = stage.h2_method(Method::GET, "/open/%61?%61=/..", &[]).await;
    assert_eq!(asked.forwarded().target, "/open/a?%61=/..");
}

#[tokio::test]
async fn cve_2026_34457_a_health_checker_gets_nothing_from_the_proxy_port() {
    let stage = Stage::start("").await;
    for agent in ["kube-probe/1.31", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Prometheus/3.0", "Envoy/HC"] {
        for path in ["/app", "/", "/livez", "/readyz", "/startupz", "/metrics", "/healthz", "/ping", "/ready"] {
            let asked = stage.request(&format!("GET {path}"), &[format!("User-Agent: {agent}")]).await;
            asked.refused(401, "Missing Bearer token");
        }
        let asked = stage.request("GET /_doorward/verify", &[format!("User-Agent: {agent}")]).await;
        asked.refused(404, "Not Found");
    }
}

#[tokio::test]
async fn a_rule_for_a_method_opens_that_method_only() {
    let stage = Stage::start("").await;
    assert_eq!(stage.request("GET /read-only", &[""; 0]).await.forwarded().method, "GET");
    for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "get", "Get", "GETX", "PROPFIND"] {
        let asked = stage.request(&format!("{method} /read-only"), &[""; 0]).await;
        assert!([401, 400].contains(&asked.status()) && asked.seen.is_empty(), "{method}: {asked:?}");
    }
    for method in ["TRACE", "CONNECT", "HEAD"] {
        let asked = stage.request(&format!("{method} /read-only"), &[""; 0]).await;
        assert!(asked.seen.is_empty() && (400..500).contains(&asked.status()), "{method}: {asked:?}");
    }
}

#[tokio::test]
async fn paths_near_an_open_one_are_not_open() {
    let stage = Stage::start("").await;
    for path in
        ["/opena", "/open;a/b", "/OPEN/a", "/Open", "/open%20", "/open.", "/read-only/", "/read-only/x", "/read-only;x"]
    {
        stage.request(&format!("GET {path}"), &[""; 0]).await.refused(401, "Missing Bearer token");
    }
    for path in ["/open", "/open/", "/open/a/", "/open/a;b=c", "/open/...", "/open/a..b", "/open/.hidden"] {
        assert_eq!(stage.request(&format!("GET {path}"), &[""; 0]).await.forwarded().target, path);
    }
}

#[tokio::test]
async fn whatever_reaches_the_upstream_unasked_is_open_even_to_its_most_eager_reading() {
    assert_eq!(most_eager_reading("/open/%25252e./x/..;a\\%2e%2e//app"), "/app");
    let stage = Stage::start("").await;
    let mut dice = Dice::new(0x5EED_0D00_12A4);
    let plain = [
        "/app/secret",
        "/open/../app",
        "/open/x/../../app/secret",
        "/open/..\\app",
        "/open/a/b",
        "/open/..;/app",
        "/x/../open/a",
    ];
    let (mut passed, mut refused) = (0, 0);
    for _ in 0..1500 {
        let path = disguise(dice.pick(&plain), &mut dice);
        let asked = stage.request(&format!("GET {path}"), &[""; 0]).await;
        match asked.seen.as_slice() {
            [] => {
                assert!([400, 401].contains(&asked.status()), "{path}: {asked:?}");
                refused += 1;
            }
            [seen] => {
                let reading = most_eager_reading(&seen.target);
                assert!(is_open(&reading), "{path} arrived as {} and may be read as {reading}", seen.target);
                assert_eq!(reading, most_eager_reading(&path), "{path}");
                passed += 1;
            }
            more => panic!("{path}: {more:?}"),
        }
    }
    assert!(passed > 20 && refused > 200, "the paths are neither all good nor all bad: {passed}, {refused}");
}
