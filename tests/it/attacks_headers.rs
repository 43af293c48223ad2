//! Header spoofing: what peers let through, as tests at the application's end of the wire.
//!
//! Each test is named after the advisories it repeats. What counts is which bytes arrived.

use crate::support::client::{Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::stage::{Asked, Stage, USER};
use crate::support::upstream::Recorded;

/// The value of every forged field: it must never arrive.
pub(crate) const FORGED: &str = "mallory";

const IDENTITY: [&[&str]; 6] = [
    &["x", "user", "id"],
    &["x", "client", "id"],
    &["x", "session", "id"],
    &["x", "user", "roles"],
    &["x", "user", "kind"],
    &["x", "actor", "id"],
];

/// Every character of RFC 9110's `token` that is neither letter nor digit, and some strings of them.
const SEPARATORS: [&str; 19] =
    ["", "-", "_", ".", "!", "#", "$", "%", "&", "'", "*", "+", "^", "`", "|", "~", "--", "-_", "__"];

/// A field-name and 200 of its kind fit well into the largest head that is read.
const FIELDS_AT_ONCE: usize = 200;

/// Who asks for what, and who the application must be told it is.
struct Caller {
    start: &'static str,
    credential: Option<String>,
    identity: Option<&'static str>,
}

/// Returns over two thousand names that an application may read as an identity header's.
pub(crate) fn spellings() -> Vec<String> {
    let mut names = Vec::new();
    for words in IDENTITY {
        for first in SEPARATORS {
            for second in SEPARATORS {
                names.push(format!("{}{first}{}{second}{}", words[0], words[1], words[2]));
            }
        }
        let plain = words.join("-");
        let title = format!("X-{}", &plain[2..].to_uppercase());
        names.extend([plain.to_uppercase(), title.clone(), title.replace('-', "_")]);
        for edge in SEPARATORS.iter().filter(|edge| !edge.is_empty()) {
            names.extend([
                format!("{edge}{plain}"),
                format!("{plain}{edge}"),
                format!("{edge}{}", plain.replace('-', "_")),
            ]);
        }
    }
    names
}

fn callers(stage: &Stage) -> Vec<Caller> {
    let (user, guest) = (Some(stage.user_field()), Some(stage.guest_field()));
    let caller =
        |start, credential: &Option<String>, identity| Caller { start, credential: credential.clone(), identity };
    vec![
        caller("GET /open/a", &None, None),
        caller("OPTIONS /open/a", &None, None),
        caller("GET /open/a", &user, None),
        caller("GET /optional/a", &None, None),
        caller("OPTIONS /optional/a", &None, None),
        caller("GET /optional/a", &user, Some(USER)),
        caller("GET /app", &user, Some(USER)),
        caller("OPTIONS /app", &user, Some(USER)),
        caller("POST /app", &user, Some(USER)),
        caller("GET /kept/a", &user, Some(USER)),
        caller("GET /app", &guest, Some("anon:")),
        caller("HEAD /app", &guest, Some("anon:")),
    ]
}

/// Fails the test unless the application was told exactly who calls, and nothing forged.
fn assert_identity(seen: &Recorded, identity: Option<&str>) {
    assert!(!contains(&seen.head, FORGED), "{}", String::from_utf8_lossy(&seen.head));
    let (users, tenants) = (seen.headers.all("x-user-id"), seen.headers.all("x-client-id"));
    match identity {
        None => assert_eq!((users.len(), tenants.len()), (0, 0), "{seen:?}"),
        Some(identity) => {
            assert_eq!((users.len(), tenants), (1, vec!["default"]), "{seen:?}");
            assert!(users[0] == identity || (identity == "anon:" && users[0].starts_with("anon:")), "{seen:?}");
        }
    }
    for name in ["x-session-id", "x-user-roles", "x-user-kind", "x-actor-id"] {
        assert_eq!(seen.header(name), None, "{seen:?}");
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn cve_2025_64484_cve_2026_52845_ghsa_5m6w_no_spelling_of_an_identity_header_reaches_the_upstream() {
    let stage = Stage::start("").await;
    let names = spellings();
    assert!(names.len() > 2000, "{}", names.len());
    for caller in callers(&stage) {
        for batch in names.chunks(FIELDS_AT_ONCE) {
            let mut fields: Vec<String> = batch.iter().map(|name| format!("{name}: {FORGED}")).collect();
            fields.extend(caller.credential.clone());
            let asked = stage.request(caller.start, &fields).await;
            assert_identity(asked.forwarded(), caller.identity);
        }
    }
}

#[tokio::test]
async fn cve_2020_14359_no_spelling_of_an_identity_header_passes_over_http2() {
    let stage = Stage::start("").await;
    let names: Vec<String> = spellings().into_iter().filter(|name| name.to_lowercase() == *name).collect();
    let bearer = format!("Bearer {}", stage.user);
    for (path, credential, identity) in
        [("/open/a", None, None), ("/optional/a", None, None), ("/app", Some(&bearer), Some(USER))]
    {
        for batch in names.chunks(FIELDS_AT_ONCE) {
            let mut fields: Vec<(&str, &[u8])> = batch.iter().map(|name| (name.as_str(), FORGED.as_bytes())).collect();
            fields.extend(credential.map(|bearer| ("authorization", bearer.as_bytes())));
            assert_identity(stage.h2(path, &fields).await.forwarded(), identity);
        }
    }
}

#[tokio::test]
async fn cve_2020_14359_header_names_count_whatever_their_case() {
    let stage = Stage::start("").await;
    for name in ["authorization", "AUTHORIZATION", "AuThOrIzAtIoN"] {
        stage
            .request("GET /optional/a", &[format!("{name}: Bearer junk")])
            .await
            .refused(401, "Invalid token: malformed");
        let asked = stage.request("GET /app", &[format!("{name}: Bearer {}", stage.user)]).await;
        assert_identity(asked.forwarded(), Some(USER));
        assert!(!contains(&asked.forwarded().head, &stage.user));
    }
    for name in ["cookie", "COOKIE", "cOoKiE"] {
        stage
            .request("GET /optional/a", &[format!("{name}: session=junk")])
            .await
            .refused(401, "Invalid token: malformed");
        let asked = stage.request("GET /app", &[format!("{name}: session={}", stage.user)]).await;
        assert_identity(asked.forwarded(), Some(USER));
        assert!(!contains(&asked.forwarded().head, &stage.user));
    }
}

#[tokio::test]
async fn cve_2026_30851_cve_2026_39998_a_verdict_without_an_identity_leaves_no_forged_one() {
    let stage = Stage::start("").await;
    let forged = [format!("X-Client-ID: {FORGED}"), format!("X-User-ID: {FORGED}"), format!("X-Actor-ID: {FORGED}")];
    for start in ["GET /open/a", "GET /optional/a", "GET /open-kept/a"] {
        assert_identity(stage.request(start, &forged).await.forwarded(), None);
    }
    let with_user = [forged.as_slice(), &[stage.user_field()]].concat();
    assert_identity(stage.request("GET /app", &with_user).await.forwarded(), Some(USER));
}

#[tokio::test]
async fn mod_auth_openidc_2026_08_07_preflights_and_our_own_endpoints_forward_nothing_forged() {
    let stage = Stage::start("").await;
    let forged = [format!("X-User-ID: {FORGED}"), format!("x_client_id: {FORGED}"), "Content-Length: 0".to_owned()];
    for start in [
        "OPTIONS /auth/session",
        "GET /auth",
        "GET /auth/",
        "GET /auth/unknown",
        "POST /auth/session",
        "POST /auth/anonymous",
        "DELETE /auth/session",
        "HEAD /auth/session",
    ] {
        let asked = stage.request(start, &forged).await;
        assert!(asked.seen.is_empty() && (200..500).contains(&asked.status()), "{start}: {asked:?}");
        assert!(!asked.text().contains(FORGED), "{start}: {asked:?}");
    }
    stage.request("OPTIONS /app", &forged).await.refused(401, "Missing Bearer token");
    for start in ["OPTIONS /open/a", "GET /read-only", "OPTIONS /optional/a"] {
        assert_identity(stage.request(start, &forged).await.forwarded(), None);
    }
}

#[tokio::test]
async fn a_forged_trailer_does_not_reach_the_upstream() {
    let stage = Stage::start("").await;
    let head = stage.head("POST /open/a", &["Transfer-Encoding: chunked", "Trailer: X-User-ID"]);
    let body = format!("3\r\nabc\r\n0\r\nX-User-ID: {FORGED}\r\nx_client_id: {FORGED}\r\n\r\n");
    let asked = stage.ask([head, body.into_bytes()].concat()).await;
    for seen in &asked.seen {
        assert_identity(seen, None);
        assert!(!contains(&seen.raw_body, FORGED), "{}", String::from_utf8_lossy(&seen.raw_body));
    }
}

#[tokio::test]
async fn cve_2024_45410_cve_2025_48865_a_connection_nomination_does_not_remove_our_headers() {
    let stage = Stage::start("identity_headers: { session_id: true, kind: true }").await;
    for nomination in [
        "Connection: X-User-ID",
        "connection: x-user-id, x-client-id",
        "Connection: close, X-User-ID, X-Client-ID",
        "Connection: keep-alive, X-User-ID",
        "Connection: X_User_ID",
        "Connection: X-Session-ID, X-User-Kind, X-Request-ID",
        "Connection: X-User-ID\r\nConnection: X-Client-ID",
        "Connection: Upgrade, X-User-ID\r\nUpgrade: foo",
        "Connection: Upgrade, X-Client-ID\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
        "Proxy-Connection: X-User-ID\r\nKeep-Alive: X-User-ID",
    ] {
        let fields = [nomination.to_owned(), stage.user_field(), format!("X-User-ID: {FORGED}")];
        let asked = stage.request("GET /app", &fields).await;
        let seen = asked.forwarded();
        assert!(!contains(&seen.head, FORGED), "{nomination}");
        assert_eq!(seen.headers.all("x-user-id"), [USER], "{nomination}");
        assert_eq!(seen.headers.all("x-client-id"), ["default"], "{nomination}");
        assert_eq!(seen.headers.all("x-user-kind"), ["user"], "{nomination}");
        assert_eq!(seen.headers.all("x-session-id").len(), 1, "{nomination}");
        assert_eq!(seen.headers.all("x-request-id").len(), 1, "{nomination}");
        for hop in ["connection", "upgrade", "http2-settings", "proxy-connection", "keep-alive"] {
            assert!(seen.headers.all(hop).is_empty(), "{nomination}: {seen:?}");
        }
    }
}

#[tokio::test]
async fn cve_2024_45410_a_nomination_in_a_websocket_handshake_does_not_remove_our_headers() {
    let stage = Stage::start("").await;
    let fields = [
        "Connection: Upgrade, X-User-ID, X-Client-ID",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        &stage.user_field(),
    ];
    let asked = stage.request("GET /ws", &fields).await;
    assert_eq!(asked.status(), 101, "{asked:?}");
    assert_identity(&asked.seen[0], Some(USER));
    assert_eq!(asked.seen[0].headers.all("connection").join(",").to_lowercase(), "upgrade");
}

#[tokio::test]
async fn cve_2026_31838_cve_2021_32777_of_two_authorization_headers_none_counts() {
    let stage = Stage::start("").await;
    let good = stage.user_field();
    let other = stage.guest_field();
    for second in [good.as_str(), &other, "Authorization: Bearer junk", "Authorization: Basic YTpi", "Authorization:"] {
        for start in ["GET /app", "GET /optional/a", "OPTIONS /app", "POST /app"] {
            for fields in [[&good, second], [second, &good]] {
                stage.request(start, &fields).await.refused(401, "Invalid token: malformed");
            }
        }
        let asked = stage.request("GET /open/a", &[good.as_str(), second]).await;
        assert_identity(asked.forwarded(), None);
        assert_eq!(asked.forwarded().header("authorization"), None);
    }
    let (good, other) = (format!("Bearer {}", stage.user), format!("Bearer {}", stage.guest));
    for second in [&good, &other] {
        let fields = [("authorization", good.as_bytes()), ("authorization", second.as_bytes())];
        stage.h2("/app", &fields).await.refused(401, "Invalid token: malformed");
    }
}

#[tokio::test]
async fn cve_2026_31838_of_two_session_cookies_none_counts() {
    let stage = Stage::start("").await;
    let (user, guest) = (&stage.user, &stage.guest);
    for cookies in [
        vec![format!("Cookie: session={user}; session={guest}")],
        vec![format!("Cookie: session={guest}; session={user}")],
        vec![format!("Cookie: session={user}; session={user}")],
        vec![format!("Cookie: session={user};session={user}")],
        vec![format!("Cookie: session=; session={user}")],
        vec![format!("Cookie: session={user}; session=")],
        vec![format!("Cookie: session={user}; a=b; session=junk")],
        vec![format!("Cookie: session={user}"), format!("Cookie: session={guest}")],
        vec![format!("Cookie: session={user}"), "Cookie: a=b".to_owned(), format!("cookie: session={user}")],
    ] {
        for start in ["GET /app", "GET /optional/a"] {
            stage.request(start, &cookies).await.refused(401, "Invalid token: malformed");
        }
        let open = stage.request("GET /open/a", &cookies).await;
        assert!(!contains(&open.forwarded().head, "session="), "{open:?}");
    }
    let fields: [(&str, &[u8]); 2] = [("cookie", &format!("session={user}").into_bytes()), ("cookie", b"session=x")];
    stage.h2("/app", &fields).await.refused(401, "Invalid token: malformed");
}

#[tokio::test]
async fn cve_2026_31838_two_host_headers_or_none_are_a_bad_request() {
    let stage = Stage::start("").await;
    let host = stage.host();
    for hosts in [
        format!("Host: {host}\r\nHost: {host}\r\n"),
        format!("Host: {host}\r\nHost: evil.example\r\n"),
        format!("host: {host}\r\nHOST: {host}\r\n"),
        String::new(),
    ] {
        for path in ["/app", "/open/a", "/auth/session"] {
            let asked = stage.ask(format!("GET {path} HTTP/1.1\r\n{hosts}{}\r\n\r\n", stage.user_field())).await;
            assert_eq!((asked.status(), asked.seen.len()), (400, 0), "{hosts:?} {path} {asked:?}");
        }
    }
}

#[tokio::test]
async fn cve_2026_31838_a_bearer_token_wins_over_a_cookie_and_neither_is_forwarded() {
    let stage = Stage::start("").await;
    let (user, guest) = (&stage.user, &stage.guest);
    for (bearer, cookie, identity) in [(user, guest, USER), (guest, user, "anon:"), (user, user, USER)] {
        let fields = [format!("Authorization: Bearer {bearer}"), format!("Cookie: session={cookie}; theme=dark")];
        let asked = stage.request("GET /app", &fields).await;
        assert_identity(asked.forwarded(), Some(identity));
        assert_eq!(asked.forwarded().headers.all("cookie"), ["theme=dark"]);
        assert!(!contains(&asked.forwarded().head, user) && !contains(&asked.forwarded().head, guest));
    }
}

#[tokio::test]
async fn cve_2023_27488_no_byte_from_0x80_to_0xff_opens_anything() {
    let stage = Stage::start("").await;
    for byte in 0x80..=0xFF_u8 {
        let bearer = [b"Authorization: Bearer ".as_slice(), &[byte]].concat();
        let spoilt = [format!("Authorization: Bearer {}", stage.user).as_bytes(), &[byte]].concat();
        let cookie = [b"Cookie: session=".as_slice(), &[byte]].concat();
        let beside = [format!("Cookie: session={}; a=", stage.user).as_bytes(), &[byte]].concat();
        for field in [&bearer, &spoilt, &cookie, &beside] {
            stage.request("GET /optional/a", &[field]).await.refused(401, "Invalid token: malformed");
        }
        let scheme = [b"Authorization: ".as_slice(), &[byte]].concat();
        assert_eq!(stage.request("GET /app", &[scheme]).await.status(), 401);
    }
    let bearer: &[u8] = b"Bearer \x80\xff";
    stage.h2("/optional/a", &[("authorization", bearer)]).await.refused(401, "Invalid token: malformed");
    stage.h2("/optional/a", &[("cookie", b"session=\x80\xff")]).await.refused(401, "Invalid token: malformed");
}

#[tokio::test]
async fn a_session_cookie_beside_bytes_that_are_no_text_is_not_forwarded() {
    let stage = Stage::start("").await;
    for (field, kept) in [
        (format!("a=\u{e9}; session={}; b=2", stage.user), "a=\u{e9}; b=2"),
        (format!("session={}; a=\u{e9}", stage.user), "a=\u{e9}"),
        (format!("a=\u{e9}\r\nCookie: session={}; b=2", stage.user), "a=\u{e9}; b=2"),
    ] {
        let asked = stage.request("GET /open/a", &[format!("Cookie: {field}")]).await;
        assert!(!contains(&asked.forwarded().head, &stage.user), "{asked:?}");
        assert_eq!(asked.forwarded().headers.all("cookie"), [kept]);
    }
    let fields = [stage.user_field(), "Cookie: a=\u{e9}; b=2".to_owned()];
    assert_eq!(stage.request("GET /app", &fields).await.forwarded().headers.all("cookie"), ["a=\u{e9}; b=2"]);
}

#[tokio::test]
async fn mod_auth_openidc_2026_05_23_a_principal_that_no_header_can_carry_gets_no_session() {
    let stage = Stage::start("").await;
    for bad in ["a\r\nX-Admin: 1", "a\nb", "a\rb", "a\0b", "é", "a b", "\u{7f}", ""] {
        let subject = format!("user_{bad}");
        let organization = |id: &str, role: &str| serde_json::json!({"o": {"id": id, "rol": role}});
        let mut claims = vec![organization(&format!("org_{bad}"), "member"), organization("org_1", &format!("r{bad}"))];
        claims.push(serde_json::json!({ "sub": subject }));
        for overrides in claims {
            let text = overrides.to_string();
            // The empty addition leaves good claims: what is refused is the byte, not the shape.
            let jwt = stage.idp.mint(&overrides);
            let response = stage.doorward.client().post("/auth/session").bearer(&jwt).send().await;
            assert_eq!(response.status, if bad.is_empty() { 200 } else { 401 }, "{text}: {}", response.text());
        }
    }
}

#[tokio::test]
async fn cve_2023_36456_cve_2026_40575_a_stranger_cannot_say_where_a_request_comes_from() {
    let stage = Stage::start("").await;
    let names = [
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Forwarded-Port",
        "X-Forwarded-Uri",
        "X-Forwarded-Prefix",
        "X-Forwarded-Method",
        "X-Forwarded-Server",
        "Forwarded",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X-Real-IP",
        "x_forwarded_for",
        "X_Forwarded_Host",
        "x.real.ip",
        "X_Original_URL",
        "_x-forwarded-for",
        "-x-forwarded-for",
        "-forwarded",
        "_forwarded",
    ];
    for value in ["6.6.6.6", "/open/a", "https", "for=6.6.6.6;host=evil.example", "GET"] {
        let mut fields: Vec<String> = names.iter().map(|name| format!("{name}: {value}")).collect();
        stage.request("GET /app", &fields).await.refused(401, "Missing Bearer token");
        stage.request("POST /read-only", &fields).await.refused(401, "Missing Bearer token");
        fields.push(stage.user_field());
        let asked = stage.request("GET /app", &fields).await;
        let seen = asked.forwarded();
        assert!(value == "GET" || !contains(&seen.head, value), "{seen:?}");
        assert_eq!(seen.headers.all("x-forwarded-for"), ["127.0.0.1"]);
        assert_eq!(seen.headers.all("x-forwarded-proto"), ["http"]);
        assert_eq!(seen.headers.all("x-forwarded-host"), [stage.host()]);
        let ours = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        for name in names.iter().filter(|name| !ours.contains(&name.to_lowercase().as_str())) {
            assert!(seen.headers.all(name).is_empty(), "{name}: {seen:?}");
        }
    }
    let logs = stage.doorward.logs();
    assert!(!logs.contains("6.6.6.6") && logs.contains("127.0.0.1"), "the address in the log is the peer's");
}

#[tokio::test]
async fn cve_2023_36456_a_stranger_gets_no_second_rate_limit_by_naming_another_address() {
    let stage = Stage::start("limits: { anonymous_per_minute: 1 }").await;
    for address in ["6.6.6.6", "7.7.7.7"] {
        let body = serde_json::json!({"device_id": address});
        let request = stage.doorward.client().post("/auth/anonymous").json(&body);
        let response: Response = request.header("x-forwarded-for", address).header("x-real-ip", address).send().await;
        assert_eq!(response.status, 429, "the stage's own guest had the one that is allowed: {}", response.text());
    }
}

#[tokio::test]
async fn a_trusted_proxy_is_believed_and_its_chain_is_kept_whole() {
    let stage = Stage::start("trusted_proxies: ['127.0.0.0/8']").await;
    let fields = [
        "X-Forwarded-For: 6.6.6.6".to_owned(),
        "X-Forwarded-For: 192.0.2.7".to_owned(),
        "X-Forwarded-Proto: https".to_owned(),
        "X-Forwarded-Host: app.example.com".to_owned(),
        format!("X-User-ID: {FORGED}"),
        stage.user_field(),
    ];
    let asked = stage.request("GET /app", &fields).await;
    assert_identity(asked.forwarded(), Some(USER));
    assert_eq!(asked.forwarded().headers.all("x-forwarded-for"), ["6.6.6.6, 192.0.2.7, 127.0.0.1"]);
    assert_eq!(asked.forwarded().headers.all("x-forwarded-proto"), ["https"]);
    assert_eq!(asked.forwarded().headers.all("x-forwarded-host"), ["app.example.com"]);
    stage.doorward.wait_log("192.0.2.7").await;
    assert!(!stage.doorward.logs().contains("6.6.6.6"), "the nearest address that is no proxy is the client");
}

#[tokio::test]
async fn ghsa_vhr5_trusting_everybody_is_refused_at_the_start() {
    for network in ["0.0.0.0/0", "::/0"] {
        let mut doorward = Doorward::builder().config(&format!("trusted_proxies: ['{network}']")).spawn();
        assert_eq!(doorward.wait_exit().await.code(), Some(64), "{network}");
        assert!(doorward.logs().contains("trusts every peer"), "{}", doorward.logs());
    }
}

#[tokio::test]
async fn cve_2025_29927_no_header_is_a_way_around_the_guard() {
    let stage = Stage::start("").await;
    let token = sign_in_guest(&stage.doorward, "another").await;
    for field in [
        "X-Middleware-Subrequest: middleware:middleware:middleware:middleware:middleware",
        "X-Internal-Auth: 1",
        "X-Internal-Request: true",
        "X-Doorward-Bypass: 1",
        "X-Doorward-Permit: 1",
        "X-Auth-Request-User: root",
        "X-Remote-User: root",
        "Remote-User: root",
        &format!("X-Auth-Token: {token}"),
        &format!("X-Access-Token: {token}"),
        &format!("Proxy-Authorization: Bearer {token}"),
        "X-HTTP-Method-Override: GET",
    ] {
        for start in ["GET /app", "POST /app", "POST /read-only"] {
            let asked: Asked = stage.request(start, &[field]).await;
            asked.refused(401, "Missing Bearer token");
        }
    }
}
