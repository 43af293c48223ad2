//! A route refuses in the dialect that its rule names, whichever way the request or question comes.

use http::Method;

use crate::support::client::{RawConnection, Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::h2_client::H2Client;
use crate::support::ports::free_port;
use crate::support::redis::Redis;
use crate::support::stage::Stage;
use crate::support::upstream::Upstream;
use crate::verify::grpc::{Envoy, denied, fields, status_of};

const DIALECTS: [&str; 4] = ["detail", "envelope", "nest", "clerk"];
/// A dialect each, so that one path of the application can be asked for in all four.
const METHODS: [&str; 4] = ["GET", "PUT", "PATCH", "DELETE"];

/// What a dialect says: missing, malformed, revoked, forbidden, cross-origin.
const REFUSALS: [[&str; 5]; 4] = [
    [
        r#"{"detail":"Missing Bearer token"}"#,
        r#"{"detail":"Invalid token: malformed"}"#,
        r#"{"detail":"Invalid token: session revoked"}"#,
        r#"{"detail":"Insufficient permissions"}"#,
        r#"{"detail":"Insufficient permissions"}"#,
    ],
    [
        r#"{"success":false,"error":{"message":"Authentication required","code":"UNAUTHORIZED"}}"#,
        r#"{"success":false,"error":{"message":"Invalid token","code":"INVALID_TOKEN"}}"#,
        r#"{"success":false,"error":{"message":"Invalid token","code":"INVALID_TOKEN"}}"#,
        r#"{"success":false,"error":{"message":"Insufficient permissions","code":"FORBIDDEN"}}"#,
        r#"{"success":false,"error":{"message":"Cross-origin request refused","code":"FORBIDDEN"}}"#,
    ],
    [
        r#"{"statusCode":401,"message":"Unauthorized","error":"Unauthorized"}"#,
        r#"{"statusCode":401,"message":"Unauthorized","error":"Unauthorized"}"#,
        r#"{"statusCode":401,"message":"Unauthorized","error":"Unauthorized"}"#,
        r#"{"statusCode":403,"message":"Insufficient permissions","error":"Forbidden"}"#,
        r#"{"statusCode":403,"message":"Cross-origin request refused","error":"Forbidden"}"#,
    ],
    [
        r#"{"errors":[{"message":"Invalid Authorization header format","long_message":"Invalid Authorization header format. Must be 'Bearer <YOUR_API_KEY>'","code":"authorization_header_format_invalid"}],"clerk_trace_id":"TRACE"}"#,
        r#"{"errors":[{"message":"The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.","long_message":"The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.","code":"clerk_key_invalid"}],"clerk_trace_id":"TRACE"}"#,
        r#"{"errors":[{"message":"The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.","long_message":"The provided Clerk Secret Key is invalid. Make sure that your Clerk Secret Key is correct.","code":"clerk_key_invalid"}],"clerk_trace_id":"TRACE"}"#,
        r#"{"errors":[{"message":"Unauthorized request","long_message":"You are not authorized to perform this request","code":"authorization_invalid"}],"clerk_trace_id":"TRACE"}"#,
        r#"{"errors":[{"message":"Cross-origin request refused","long_message":"Cross-origin request refused","code":"authorization_invalid"}],"clerk_trace_id":"TRACE"}"#,
    ],
];

const UNAVAILABLE: [&str; 4] = [
    r#"{"detail":"Session store unavailable"}"#,
    r#"{"success":false,"error":{"message":"Authentication service unavailable","code":"SERVICE_UNAVAILABLE"}}"#,
    r#"{"statusCode":503,"message":"Service Unavailable","error":"Service Unavailable"}"#,
    r#"{"errors":[{"message":"System under maintenance","long_message":"We are currently undergoing maintenance and only essential operations are permitted. We will be back shortly.","code":"maintenance_mode"}],"clerk_trace_id":"TRACE"}"#,
];

const OOPS: &str = r#"{"errors":[{"message":"Oops, an unexpected error occurred","long_message":"There was an internal error on our servers. We've been notified and are working on fixing it.","code":"internal_clerk_error"}],"clerk_trace_id":"TRACE"}"#;

const BAD_GATEWAY: [&str; 4] = [
    r#"{"detail":"Bad Gateway"}"#,
    r#"{"success":false,"error":{"message":"Upstream unavailable","code":"BAD_GATEWAY"}}"#,
    r#"{"statusCode":502,"message":"Upstream unavailable","error":"Bad Gateway"}"#,
    OOPS,
];

const TIMED_OUT: [&str; 4] = [
    r#"{"detail":"Gateway Timeout"}"#,
    r#"{"success":false,"error":{"message":"Upstream timed out","code":"GATEWAY_TIMEOUT"}}"#,
    r#"{"statusCode":504,"message":"Upstream timed out","error":"Gateway Timeout"}"#,
    OOPS,
];

const TOO_LARGE: [&str; 4] = [
    r#"{"detail":"Request body too large"}"#,
    r#"{"success":false,"error":{"message":"Request body too large","code":"PAYLOAD_TOO_LARGE"}}"#,
    r#"{"statusCode":413,"message":"Payload Too Large","error":"Payload Too Large"}"#,
    r#"{"errors":[{"message":"Request body invalid","long_message":"Request body too large","code":"request_body_invalid"}],"clerk_trace_id":"TRACE"}"#,
];

/// One request that the guard refuses.
struct Refused {
    method: &'static str,
    /// Below the dialect's folder.
    path: &'static str,
    fields: Vec<(&'static str, String)>,
    status: u16,
    /// Which of [`REFUSALS`].
    text: usize,
}

/// Rules that send each dialect's folder to it.
fn folders() -> String {
    let rules = DIALECTS.map(|dialect| {
        format!(
            "  - {{ path: '/{dialect}/admins', auth: required, require_any_role: ['org:owner'], errors: {dialect} }}\n\
             \x20 - {{ path: '/{dialect}/users', auth: required, allow_anonymous: false, errors: {dialect} }}\n\
             \x20 - {{ path: '/{dialect}/**', auth: required, errors: {dialect} }}\n"
        )
    });
    format!("routes:\n{}", rules.concat())
}

/// Rules that give each method of every path to a dialect.
fn by_method(auth: &str) -> String {
    let rule = |(method, dialect): (&str, &str)| {
        format!("  - {{ path: '/**', methods: [{method}], auth: {auth}, errors: {dialect} }}\n")
    };
    format!("routes:\n{}", METHODS.into_iter().zip(DIALECTS).map(rule).collect::<String>())
}

fn refusals(stage: &Stage, ended: &str) -> Vec<Refused> {
    let bearer = |token: &str| vec![("authorization", format!("Bearer {token}"))];
    let foreign = vec![("cookie", format!("session={}", stage.user)), ("origin", "https://evil.example".to_owned())];
    let refused = |method, path, fields, status, text| Refused { method, path, fields, status, text };
    vec![
        refused("GET", "app", Vec::new(), 401, 0),
        refused("GET", "app", bearer("junk"), 401, 1),
        refused("GET", "app", bearer(ended), 401, 2),
        refused("GET", "users", bearer(&stage.guest), 403, 3),
        refused("GET", "admins", bearer(&stage.user), 403, 3),
        refused("POST", "app", foreign, 403, 4),
    ]
}

/// Fails the test unless the answer is the dialect's, with the headers that belong to it.
#[track_caller]
fn assert_speaks(answer: &Response, dialect: &str, status: u16, body: &str) {
    let trace = format!("{:0>32}", answer.header("x-request-id").expect("every answer has one"));
    assert_eq!((answer.status, answer.text()), (status, body.replace("TRACE", &trace)), "{dialect}: {answer:?}");
    assert_eq!(answer.headers.all("content-type"), ["application/json"], "{dialect}");
    assert_eq!(answer.headers.all("cache-control"), ["no-store"], "{dialect}");
    assert_eq!(answer.header("x-clerk-trace-id"), (dialect == "clerk").then_some(trace.as_str()));
    assert_eq!(answer.header("www-authenticate").is_some(), status == 401, "{dialect}: {answer:?}");
    assert_eq!(answer.header("retry-after"), (status == 503).then_some("3"), "{dialect}");
}

#[tokio::test]
async fn the_guard_refuses_in_the_routes_dialect_on_every_way_in() {
    let grpc = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let asked = format!("trusted_proxies: ['127.0.0.1/32']\nforward_auth: {{ enabled: true, grpc: '{grpc}' }}\n");
    let stage = Stage::start(&(asked + &folders())).await;
    let envoy = Envoy::connect(grpc).await;
    let ended = sign_in_guest(&stage.doorward, "ended").await;
    assert_eq!(stage.doorward.client().delete("/auth/session").bearer(&ended).send().await.status, 200);
    for (dialect, texts) in DIALECTS.into_iter().zip(REFUSALS) {
        for Refused { method, path, fields, status, text } in refusals(&stage, &ended) {
            let (path, body) = (format!("/{dialect}/{path}"), texts[text]);
            let lines: Vec<String> = fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
            let http1 = stage.request(&format!("{method} {path}"), &lines).await;
            assert_speaks(&http1.response.expect("an answer"), dialect, status, body);

            let bytes: Vec<(&str, &[u8])> = fields.iter().map(|(name, value)| (*name, value.as_bytes())).collect();
            let http2 = stage.h2_method(method.parse().expect("a method"), &path, &bytes).await;
            assert_speaks(&http2.response.expect("an answer"), dialect, status, body);

            let question = stage.request(&format!("{method} /_doorward/verify{path}"), &lines).await;
            let question = question.response.expect("an answer");
            assert_speaks(&question, dialect, status, body);
            assert_eq!(question.headers.all("x-user-id"), [""], "{dialect}");

            let pairs: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
            assert_envoy_is_told(&envoy, (method, &path, &pairs), dialect, (status, body)).await;
        }
    }
    assert_eq!(stage.upstream.count(), 0, "nothing of this reaches the application");
}

async fn assert_envoy_is_told(
    envoy: &Envoy,
    (method, path, headers): (&str, &str, &[(&str, &str)]),
    dialect: &str,
    (status, body): (u16, &str),
) {
    let (told, answer) = envoy.ask(method, path, headers).await;
    assert_eq!((told, status_of(&answer)), (status, status), "{dialect} {path}");
    let denied = denied(&answer);
    let headers = fields(&denied.headers);
    let header = |name: &str| headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str());
    let trace = format!("{:0>32}", header("x-request-id").expect("every answer has one"));
    assert_eq!(denied.body, body.replace("TRACE", &trace), "{dialect} {path}");
    assert_eq!(header("x-clerk-trace-id"), (dialect == "clerk").then_some(trace.as_str()));
    assert_eq!(header("content-type"), Some("application/json"));
}

#[tokio::test]
async fn an_outage_is_told_in_the_routes_dialect() {
    let (mut redis, upstream) = (Redis::start().await, Upstream::start().await);
    let grpc = std::net::SocketAddr::from(([127, 0, 0, 1], free_port()));
    let config = format!(
        "sessions: {{ revocation: {{ heartbeat: 200ms, lease: 1s }} }}\ntrusted_proxies: ['127.0.0.1/32']\n\
         forward_auth: {{ enabled: true, grpc: '{grpc}' }}\n{}",
        folders()
    );
    let doorward = Doorward::builder().store(&redis.url()).upstream(upstream.url()).config(&config).start().await;
    let token = sign_in_guest(&doorward, "a-guest's-device").await;
    redis.kill();
    let client = doorward.client();
    let lapsed = async || (client.get("/detail/a").bearer(&token).send().await.status == 503).then_some(());
    eventually("the lease to lapse", lapsed).await;
    let (h2, envoy) = (H2Client::connect(doorward.proxy_addr()).await, Envoy::connect(grpc).await);
    let credential = format!("Bearer {token}");
    for (dialect, body) in DIALECTS.into_iter().zip(UNAVAILABLE) {
        let path = format!("/{dialect}/a");
        assert_speaks(&client.get(&path).bearer(&token).send().await, dialect, 503, body);
        let http2 = h2.request(Method::GET, &path, &[("authorization", credential.as_bytes())]).await;
        assert_speaks(&http2.expect("an answer"), dialect, 503, body);
        let question = client.get(&format!("/_doorward/verify{path}")).bearer(&token).send().await;
        assert_speaks(&question, dialect, 503, body);
        let headers = [("authorization", credential.as_str())];
        assert_envoy_is_told(&envoy, ("GET", &path, &headers), dialect, (503, body)).await;
    }
}

#[tokio::test]
async fn the_proxys_own_answers_are_in_the_routes_dialect() {
    let upstream = Upstream::start().await;
    let down = format!("http://127.0.0.1:{}", free_port());
    let open = by_method("none");
    let start = |url: &str, more: &str| Doorward::builder().upstream(url).config(&open).config(more).start();
    let unreachable = start(&down, "{}").await;
    let silent = start(upstream.url(), "upstream: { read_timeout: 200ms }").await;
    let small = start(upstream.url(), "limits: { body_bytes_max: 10 }").await;
    let large = "x".repeat(11);
    for (index, (method, dialect)) in METHODS.into_iter().zip(DIALECTS).enumerate() {
        for (doorward, path, body, status, text) in [
            (&unreachable, "/a", "", 502, BAD_GATEWAY[index]),
            (&silent, "/hang", "", 504, TIMED_OUT[index]),
            (&small, "/a", large.as_str(), 413, TOO_LARGE[index]),
        ] {
            let http2 = H2Client::connect(doorward.proxy_addr()).await;
            let method: Method = method.parse().expect("a method");
            let http1 = doorward.client().request(method.clone(), path).body(body.to_owned()).send().await;
            assert_speaks(&http1, dialect, status, text);
            assert_speaks(&http2.ask(method, path, &[], body).await, dialect, status, text);
        }
    }
}

#[tokio::test]
async fn a_path_without_an_application_is_absent_in_the_routes_dialect() {
    let asked = "upstream: { url: null }\ntrusted_proxies: ['127.0.0.1/32']\nforward_auth: { enabled: true }\n";
    let config = asked.to_owned() + &by_method("none");
    let doorward = Doorward::builder().config(&config).start().await;
    let texts = [
        r#"{"detail":"Not Found"}"#,
        r#"{"success":false,"error":{"message":"Not found","code":"NOT_FOUND"}}"#,
        r#"{"statusCode":404,"message":"Cannot PATCH /a","error":"Not Found"}"#,
        r#"{"errors":[{"message":"not found","long_message":"Resource not found","code":"resource_not_found"}],"clerk_trace_id":"TRACE"}"#,
    ];
    for ((method, dialect), text) in METHODS.into_iter().zip(DIALECTS).zip(texts) {
        let answer = doorward.client().request(method.parse().expect("a method"), "/a?x=1").send().await;
        assert_speaks(&answer, dialect, 404, text);
    }
}

#[tokio::test]
async fn a_request_that_is_cut_is_told_in_the_routes_dialect() {
    let stage = Stage::start(&by_method("required")).await;
    for ((method, dialect), texts) in METHODS.into_iter().zip(DIALECTS).zip(REFUSALS) {
        for http2 in [false, true] {
            let token = sign_in_guest(&stage.doorward, &format!("{dialect} {http2}")).await;
            let credential = format!("Bearer {token}");
            let before = stage.upstream.count();
            let asking = async {
                if http2 {
                    let client = H2Client::connect(stage.doorward.proxy_addr()).await;
                    let headers = [("authorization", credential.as_str())];
                    return client.ask(method.parse().expect("a method"), "/hang", &headers, "").await;
                }
                let mut connection = RawConnection::open(stage.doorward.proxy_addr()).await;
                let field = format!("Authorization: {credential}");
                connection.write(stage.head(&format!("{method} /hang"), &[field])).await;
                connection.response().await.expect("an answer")
            };
            let revoking = async {
                eventually("the application to be asked", async || (stage.upstream.count() > before).then_some(()))
                    .await;
                let gone = stage.doorward.client().delete("/auth/session").bearer(&token).send().await;
                assert_eq!(gone.status, 200);
            };
            let (answer, ()) = tokio::join!(asking, revoking);
            assert_speaks(&answer, dialect, 401, texts[2]);
        }
    }
}

#[tokio::test]
async fn what_no_rule_is_known_for_is_told_in_detail() {
    let stage = Stage::start(&by_method("required")).await;
    let unreadable = stage.request("PATCH /a//b", &[""; 0]).await;
    unreadable.refused(400, "Bad Request");
    // A method that none of the rules names meets no rule.
    stage.request("OPTIONS /a", &[""; 0]).await.refused(401, "Missing Bearer token");
}
