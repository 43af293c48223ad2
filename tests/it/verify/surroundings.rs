//! Who may ask, what is written down about it, and what a configuration may say.

use http::Method;
use serde_json::Value;
use tokio::net::TcpSocket;

use super::{ENABLED, ask, assert_allows, assert_refuses};
use crate::support::client::{RawConnection, Response, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::h2_client::H2Client;
use crate::support::stage::{Stage, USER};

/// Asks from another address of this machine.
async fn ask_from(source: &str, stage: &Stage, start: &str, fields: &[String]) -> Response {
    let socket = TcpSocket::new_v4().expect("there are sockets");
    socket.bind(format!("{source}:0").parse().expect("an address")).expect("all of 127/8 is this machine");
    let stream = socket.connect(stage.doorward.proxy_addr()).await.expect("the server listens");
    let mut connection = RawConnection::over(stream);
    connection.write(stage.head(start, fields)).await;
    connection.response().await.expect("an answer")
}

/// Returns the line of the access log about a path.
async fn line_about(stage: &Stage, path: &str) -> Value {
    eventually("a line in the access log", async || {
        let lines: Vec<Value> =
            stage.doorward.logs().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        lines.into_iter().find(|line| line["log.logger"] == "access" && line["url.path"] == path)
    })
    .await
}

#[tokio::test]
async fn only_trusted_proxies_may_ask_and_nobody_by_saying_so() {
    let stage = Stage::start(ENABLED).await;
    let told = ["X-Forwarded-Method: GET".to_owned(), "X-Forwarded-Uri: /open/a".to_owned(), stage.user_field()];
    for (start, fields) in [
        ("GET /_doorward/verify", told.to_vec()),
        ("GET /_doorward/verify/open/a", vec![]),
        ("GET /_doorward/verify/app", vec![stage.user_field()]),
        ("GET /_doorward/verify/app", vec![stage.user_field(), "X-Forwarded-For: 127.0.0.1".to_owned()]),
        ("GET /_doorward/verify", vec![]),
        ("GET /_doorward/verify/app", vec!["X_User_ID: mallory".to_owned()]),
        ("GET /_doorward/verify//app", vec![]),
        ("GET /_doorward/verify/../app", vec![stage.user_field()]),
    ] {
        let answer = ask_from("127.0.0.2", &stage, start, &fields).await;
        assert_refuses(&answer, 403, "Insufficient permissions");
        assert_eq!(answer.headers.all("www-authenticate"), Vec::<&str>::new());
    }
    let answer = ask_from("127.0.0.1", &stage, "GET /_doorward/verify/app", &[stage.user_field()]).await;
    assert_allows(&answer, USER, "default");
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    let series = "doorward_auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"untrusted_peer\"} 8\n";
    assert!(metrics.contains(series), "{metrics}");
    let line = line_about(&stage, "/_doorward/verify/open/a").await;
    assert_eq!((&line["auth.reason"], &line["client.ip"]), (&"untrusted_peer".into(), &"127.0.0.2".into()));
    assert_eq!(stage.upstream.count(), 0);
}

#[tokio::test]
async fn a_decision_is_counted_and_logged_as_the_guards_own_about_the_original_request() {
    let stage = Stage::start(ENABLED).await;
    let fields = [
        stage.user_field(),
        "X-Forwarded-For: 192.0.2.7".to_owned(),
        "X-Original-Method: PATCH".to_owned(),
        "X-Original-URI: /orders/7?token=hidden".to_owned(),
    ];
    assert_allows(&ask(&stage, "GET /_doorward/verify", &fields).await, USER, "default");
    ask(&stage, "GET /_doorward/verify/admins/a", &[stage.user_field()]).await;
    ask(&stage, "GET /_doorward/verify/open/a", &[""; 0]).await;
    let line = line_about(&stage, "/orders/7").await;
    for (name, value) in [
        ("handler", "verify"),
        ("http.request.method", "PATCH"),
        ("route", "route-7"),
        ("client.ip", "192.0.2.7"),
        ("user.id", USER),
        ("organization.id", "default"),
        ("auth.outcome", "allow"),
        ("auth.reason", "ok"),
    ] {
        assert_eq!(line[name], value, "{name}: {line}");
    }
    assert_eq!(line["http.response.status_code"], 200);
    assert!(!stage.doorward.logs().contains("hidden"));
    assert_eq!(line_about(&stage, "/admins/a").await["auth.reason"], "role");
    assert_eq!(line_about(&stage, "/open/a").await["auth.outcome"], "bypass");
    let metrics = stage.doorward.admin_get("/metrics").await.text();
    for series in [
        "http_requests_total{code=\"200\",handler=\"verify\",route=\"route-7\"} 1",
        "http_requests_total{code=\"403\",handler=\"verify\",route=\"route-4\"} 1",
        "http_requests_total{code=\"200\",handler=\"verify\",route=\"route-0\"} 1",
        "http_request_duration_seconds_count{handler=\"verify\",route=\"route-7\"} 1",
        "http_requests_in_flight{handler=\"verify\"} 0",
        "http_requests_in_flight{handler=\"proxy\"} 0",
        "auth_decisions_total{outcome=\"deny\",principal=\"none\",reason=\"role\"} 1",
        "auth_decisions_total{outcome=\"allow\",principal=\"user\",reason=\"ok\"} 1",
        "auth_decisions_total{outcome=\"bypass\",principal=\"none\",reason=\"public_path\"} 1",
    ] {
        assert!(metrics.contains(&format!("doorward_{series}\n")), "{series}: {metrics}");
    }
    assert!(!metrics.contains("handler=\"proxy\",route=\"route-"), "{metrics}");
}

#[tokio::test]
async fn cve_2026_34457_a_health_checker_learns_nothing_without_a_session() {
    let stage = Stage::start(ENABLED).await;
    for agent in ["kube-probe/1.31", "GoogleHC/1.0", "ELB-HealthChecker/2.0", "Prometheus/3.0", "Envoy/HC"] {
        for path in ["/app", "/", "/livez", "/readyz", "/ping", "/healthz", "/metrics"] {
            let field = format!("User-Agent: {agent}");
            let answer = ask(&stage, &format!("GET /_doorward/verify{path}"), &[field]).await;
            assert_refuses(&answer, 401, "Missing Bearer token");
        }
    }
}

#[tokio::test]
async fn answering_begins_and_ends_with_a_reload() {
    let stage = Stage::start("trusted_proxies: ['127.0.0.1/32']\nforward_auth: { enabled: false }").await;
    let status = async || ask(&stage, "GET /_doorward/verify/app", &[stage.user_field()]).await.status;
    assert_eq!(status().await, 404);
    let file = stage.doorward.directory().join("2.yaml");
    for (enabled, expected) in [(true, 200), (false, 404)] {
        let config = format!("trusted_proxies: ['127.0.0.1/32']\nforward_auth: {{ enabled: {enabled} }}");
        std::fs::write(&file, config).expect("the directory is writable");
        stage.doorward.signal("HUP");
        eventually("the reload", async || (status().await == expected).then_some(())).await;
    }
}

#[tokio::test]
async fn without_an_application_doorward_answers_its_own_paths_and_other_proxies() {
    let config = format!("{ENABLED}\nupstream: {{ url: null }}\nroutes: [{{ path: '/open/**', auth: none }}]");
    let doorward = Doorward::builder().config(&config).start().await;
    let token = sign_in_guest(&doorward, "device").await;
    for path in ["/", "/app", "/open/a"] {
        for method in [Method::GET, Method::POST] {
            let answer = doorward.client().request(method, path).bearer(&token).send().await;
            assert_eq!((answer.status, answer.text().as_str()), (404, r#"{"detail":"Not Found"}"#), "{path}");
        }
    }
    assert_eq!(doorward.client().get("/app/../x").send().await.status, 400);
    let h2 = H2Client::connect(doorward.proxy_addr()).await;
    assert_eq!(h2.request(Method::GET, "/open/a", &[]).await.expect("an answer").status, 404);
    assert_eq!(doorward.client().get("/_doorward/verify/app").bearer(&token).send().await.status, 200);
    assert_eq!(doorward.client().get("/_doorward/verify/app").send().await.status, 401);
    assert_eq!(doorward.client().delete("/auth/session").bearer(&token).send().await.status, 200);
}

#[tokio::test]
async fn nobody_to_answer_is_a_configuration_to_refuse() {
    for (config, problem) in [
        ("forward_auth: { enabled: true }", "forward_auth.enabled: true answers only trusted_proxies, which is empty"),
        (
            "forward_auth: { grpc: '127.0.0.1:9001' }",
            "forward_auth.grpc: \"127.0.0.1:9001\" answers only trusted_proxies, which is empty",
        ),
    ] {
        let mut doorward = Doorward::builder().config(config).spawn();
        assert_eq!(doorward.wait_exit().await.code(), Some(64));
        assert!(doorward.logs().contains(problem), "{}", doorward.logs());
    }
}
