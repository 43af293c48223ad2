//! What the sources are asked, what they are told, and how their answers become one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::application::Application;
use super::{Database, PATIENT, ask, defaults, json_answer, whole};
use crate::support::client::{sign_in, sign_in_guest};
use crate::support::doorward::Doorward;
use crate::support::h2_upstream::H2Upstream;
use crate::support::idp::Idp;
use crate::support::temp::TempDir;
use crate::support::tls::Authority;
use crate::support::upstream::{Recorded, Upstream};
use crate::surface::answers::assert_refused;

/// Every section from the application.
const HTTP: &str = "bootstrap: { \
    profile: { source: http, http: { path: /profile } }, \
    subscription: { source: http, http: { path: '/subscription?expand=1' } }, \
    secrets: { source: http, http: { path: /secrets } } }";

fn profile() -> Value {
    json!({ "name": "Jordan Lee", "email": "jordan@example.com", "plan": "pro", "credits_used": 3, "usage": { "tokens_in": 5 } })
}

#[tokio::test]
async fn the_application_is_asked_over_whatever_it_speaks_and_told_who_calls() {
    let (idp, authority, directory) = (Idp::start().await, Authority::new(), TempDir::new("bootstrap"));
    let ca = directory.join("ca.pem");
    authority.write(&ca);
    let trust = format!("upstream: {{ ca: '{}', server_name: app.test }}", ca.display());
    let tls = authority.identity(&["app.test"]).acceptor(&["http/1.1"]);
    for (what, upstream, config) in [
        ("TCP", Upstream::start().await, "{}"),
        ("a unix socket", Upstream::unix(&directory.join("app.sock")), "{}"),
        ("TLS", Upstream::tls(tls).await, trust.as_str()),
    ] {
        upstream.respond("/profile", &json_answer(&profile()));
        upstream.respond("/subscription", &json_answer(&json!({ "plan": "pro", "credits_used": 9, "next": [1] })));
        upstream.respond("/secrets", &json_answer(&json!({ "openai_api_key": "sk-0123456789abcdef" })));
        let builder = Doorward::builder().idp(&idp).upstream(upstream.url()).config(HTTP).config(PATIENT);
        let doorward = builder.config(config).start().await;
        let token = sign_in(&doorward, &idp, "user_jordan").await;
        let client = doorward.client();
        let spoofed = client.get("/auth/bootstrap").bearer(&token).header("x-user-id", "mallory");
        let spoofed = spoofed.header("x_client_id", "mallory").header("x-user-roles", "root").cookie("session", "x");
        let answer = spoofed.send().await;
        let mut expected = defaults();
        expected["profile"] = profile();
        for key in ["credits_total", "project_count", "agent_config"] {
            expected["profile"][key] = defaults()["profile"][key].clone();
        }
        expected["profile"]["usage"] = json!({ "tokens_in": 5, "tokens_out": 0, "api_calls": 0, "research_count": 0 });
        expected["subscription"] =
            json!({ "plan": "pro", "status": "active", "credits_used": 3, "credits_total": 20, "next": [1] });
        expected["secrets"]["openai_api_key"] = json!("sk-...****");
        expected["secrets"]["has_openai_key"] = json!(true);
        assert_eq!(whole(&answer), expected, "{what}");

        let seen = upstream.requests();
        let targets: BTreeSet<&str> = seen.iter().map(|request| request.target.as_str()).collect();
        assert_eq!(targets, BTreeSet::from(["/profile", "/secrets", "/subscription?expand=1"]), "{what}");
        for request in &seen {
            assert_told(request, what);
            assert_eq!(request.header("x-request-id"), answer.header("x-request-id"), "{what}");
        }
        whole(&ask(&doorward, &token).await);
        assert_eq!(upstream.count(), 6, "{what}: every source is asked every time");
    }
}

/// Asserts that a request names the caller as the guard does, exactly once, and carries no credential.
fn assert_told(request: &Recorded, what: &str) {
    assert_eq!(request.method, "GET", "{what}");
    assert_eq!(request.headers.all("x-user-id"), ["user_jordan"], "{what}");
    assert_eq!(request.headers.all("x-client-id"), ["default"], "{what}");
    let head = String::from_utf8_lossy(&request.head).to_lowercase();
    for absent in ["mallory", "x-user-roles", "x-session-id", "authorization", "cookie", "idempotency-key"] {
        assert!(!head.contains(absent), "{what}: {absent} in {head}");
    }
}

#[tokio::test]
async fn an_application_that_speaks_only_http2_is_asked_in_http2() {
    let (idp, upstream) = (Idp::start().await, H2Upstream::start().await);
    let config = "upstream: { protocol: http2 }\nbootstrap: { subscription: { source: http, http: { path: /plan } } }";
    let builder = Doorward::builder().idp(&idp).upstream(upstream.url()).config(config).config(PATIENT);
    let doorward = builder.start().await;
    let answer = ask(&doorward, &idp.mint_for("user_jordan")).await;
    // It echoes an empty body, which is no document; what matters is that it was asked.
    assert_eq!((answer.status, answer.header("x-bootstrap-degraded")), (200, Some("subscription")));
    let seen = upstream.wait_for(|call| call.path == "/plan").await;
    assert_eq!(seen.headers.all("x-user-id"), ["user_jordan"]);
}

#[tokio::test]
async fn a_session_is_named_as_configured_and_a_jwt_has_none() {
    let (idp, upstream) = (Idp::start().await, Upstream::start().await);
    upstream.respond("/profile", &json_answer(&json!({})));
    let config = "identity_headers: { session_id: true, roles: true, kind: true, actor: true }\n\
                  bootstrap: { profile: { source: http, http: { path: /profile } } }";
    let doorward = Doorward::builder().idp(&idp).upstream(upstream.url()).config(config).config(PATIENT).start().await;
    let claims = json!({ "sub": "user_jordan", "o": { "id": "org_1", "rol": "admin" } });
    let exchanged = doorward.client().post("/auth/session").bearer(&idp.mint(&claims)).send().await;
    let token = exchanged.json()["token"].as_str().expect("a token").to_owned();
    whole(&ask(&doorward, &token).await);
    whole(&ask(&doorward, &idp.mint(&claims)).await);
    assert_eq!(doorward.client().get("/app").bearer(&token).send().await.status, 200);
    let names = ["x-user-id", "x-client-id", "x-user-roles", "x-user-kind", "x-actor-id", "x-session-id"];
    let told = |request: &Recorded| names.map(|name| request.headers.all(name).join("|"));
    let seen = upstream.requests();
    let [session, jwt, forwarded] = seen.as_slice() else { panic!("three requests, not {seen:?}") };
    assert_eq!(told(session), told(forwarded), "as on any request that is forwarded");
    assert_eq!(told(jwt)[..5], told(session)[..5]);
    assert_eq!(told(jwt)[..5], ["user_jordan", "org_1", "org:admin", "user", ""]);
    assert!(told(jwt)[5].is_empty() && told(session)[5].len() == 36);
}

#[tokio::test]
async fn sources_are_asked_at_the_same_time() {
    let (idp, application) = (Idp::start().await, Application::start().await);
    let section = "{ source: http, http: { path: /meeting } }";
    let config = format!("bootstrap: {{ profile: {section}, subscription: {section}, secrets: {section} }}");
    let builder = Doorward::builder().idp(&idp).upstream(application.url()).config(&config).config(PATIENT);
    let doorward = builder.start().await;
    // None of them answers before all three are asked.
    let answer = whole(&ask(&doorward, &idp.mint_for("user_jordan")).await);
    assert_eq!(answer["profile"]["met"], true);
}

#[tokio::test]
async fn a_session_that_ends_while_its_sources_are_asked_is_refused() {
    let (idp, application) = (Idp::start().await, Application::start().await);
    let config = "bootstrap: { profile: { source: http, http: { path: /gate } } }";
    let builder = Doorward::builder().idp(&idp).upstream(application.url()).config(config).config(PATIENT);
    let doorward = builder.start().await;
    let token = sign_in(&doorward, &idp, "user_jordan").await;
    let asked = ask(&doorward, &token);
    let ended = async {
        application.asked().await;
        assert_eq!(doorward.client().delete("/auth/session").bearer(&token).send().await.status, 200);
        application.open();
    };
    let (refused, ()) = tokio::join!(asked, ended);
    assert_refused(&refused, 401, "Invalid token: session revoked");
}

#[tokio::test]
async fn a_guest_has_no_name_whatever_the_application_says() {
    let upstream = Upstream::start().await;
    upstream.respond("/profile", &json_answer(&profile()));
    let config = "bootstrap: { profile: { source: http, http: { path: /profile } } }";
    let doorward = Doorward::builder().upstream(upstream.url()).config(config).config(PATIENT).start().await;
    let answer = whole(&ask(&doorward, &sign_in_guest(&doorward, "a-device").await).await);
    assert_eq!(answer["profile"]["name"], Value::Null);
    assert_eq!(answer["profile"]["email"], Value::Null);
    assert_eq!(answer["profile"]["plan"], "pro");
    assert!(upstream.requests()[0].header("x-user-id").is_some_and(|id| id.starts_with("anon:")));
}

#[tokio::test]
async fn statements_see_the_user_and_the_tenant_and_nothing_of_their_words_is_sql() {
    let idp = Idp::start().await;
    for database in Database::both().await {
        let config = "bootstrap: { \
            profile: { source: sql, sql: { select: 'select body from app_profiles where tenant = $2 and owner = $1' } }, \
            subscription: { source: sql, sql: { select: 'select body from app_plans where owner = $1' } }, \
            secrets: { source: sql, sql: { select: \"select '{\\\"github_pat\\\":\\\"ghp_0123456789\\\"}'\" } } }";
        let builder = Doorward::builder().idp(&idp).config(config).config(PATIENT);
        let doorward = database.of(builder).start().await;
        let json_type = if matches!(database, Database::Sqlite) { "text" } else { "jsonb" };
        let plan_type = if matches!(database, Database::Sqlite) { "text" } else { "json" };
        let name = "user_o';drop-table-app_profiles;--";
        let sql = format!(
            "create table app_profiles (tenant text, owner text, body {json_type}); \
             create table app_plans (owner text, body {plan_type}); \
             insert into app_profiles values ('org_1', '{owner}', '{{\"name\": \"O\", \"credits_used\": 4}}'), \
                ('default', '{owner}', '{{\"name\": \"another tenant\"}}'); \
             insert into app_plans values ('{owner}', '{{\"plan\": \"pro\"}}')",
            owner = name.replace('\'', "''")
        );
        database.run(&doorward, &sql).await;
        let jwt = idp.mint(&json!({ "sub": name, "o": { "id": "org_1", "rol": "admin" } }));
        let answer = whole(&ask(&doorward, &jwt).await);
        assert_eq!(answer["profile"]["name"], "O");
        assert_eq!(
            answer["subscription"],
            json!({ "plan": "pro", "status": "active", "credits_used": 4, "credits_total": 20 })
        );
        assert_eq!(answer["secrets"]["github_pat"], "ghp_...****");
        assert_eq!(database.run(&doorward, "select count(*) from app_profiles").await, "2");
    }
}
