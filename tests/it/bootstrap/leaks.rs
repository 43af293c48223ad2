//! A source that says what it should not: nothing of it leaves, by any way.

use serde_json::json;

use super::{Database, PATIENT, ask, json_answer};
use crate::support::doorward::Doorward;
use crate::support::idp::Idp;
use crate::support::upstream::Upstream;

const TRACE: &str = "telemetry: { log_level: trace }";

/// Returns a secret that nothing else contains, behind a beginning that may be shown.
fn canary(prefix: &str) -> String {
    format!("{prefix}canary{}", uuid::Uuid::new_v4().simple())
}

/// Asks twice and returns everything that came out: answers, logs to the end, metrics.
async fn everything_said(mut doorward: Doorward, idp: &Idp) -> String {
    let mut said = Vec::new();
    for _ in 0..2 {
        let answer = ask(&doorward, &idp.mint_for("user_jordan")).await;
        said.push(format!("{} {:?} {}", answer.status, answer.headers, answer.text()));
    }
    said.push(doorward.admin_get("/metrics").await.text());
    doorward.signal("TERM");
    doorward.wait_exit().await;
    said.push(doorward.logs());
    assert!(said[3].contains("/auth/bootstrap"), "something was logged");
    said.join("\n")
}

#[tokio::test]
async fn an_unmasked_secret_of_the_application_stays_inside() {
    let idp = Idp::start().await;
    let secret = ["ghp_", "sk-ant-", "sk-", ""].map(canary);
    let [github, anthropic, openai, other] = &secret;
    let leaky = json!({
        "github_pat": github, "anthropic_api_key": anthropic, "openai_api_key": openai, "has_github_pat": github,
        "nested": { "list": [other, { "deep": other }] }, "half_masked": format!("{other}...****"), "number": 1_234_567_890_123_u64,
    });
    let body = leaky.to_string();
    let other_ways = [
        json_answer(&leaky),
        json_answer(&json!([leaky])),
        format!("HTTP/1.1 500 {other}\r\nx-secret: {other}\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
        format!("HTTP/1.1 302 Found\r\nlocation: /{other}?{other}\r\ncontent-length: 0\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{other}", other.len()),
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n\"{other}\"", other.len() + 2),
        format!("{other} is not HTTP\r\n\r\n"),
        format!("HTTP/1.1 200 OK\r\n{other}\r\n\r\n"),
    ];
    for (number, response) in other_ways.iter().enumerate() {
        let upstream = Upstream::start().await;
        upstream.respond("/secrets", response);
        let config = "bootstrap: { secrets: { source: http, http: { path: /secrets } } }";
        let builder = Doorward::builder().idp(&idp).upstream(upstream.url()).config(PATIENT).config(config);
        let said = everything_said(builder.config(TRACE).start().await, &idp).await;
        for secret in &secret {
            let visible = &secret[secret.find("canary").expect("it is one")..];
            assert!(!said.contains(visible), "way {number}: {}", around(&said, visible));
        }
        assert!(!said.contains("1234567890123"), "way {number}");
        assert!(number > 0 || (said.contains(r#""github_pat":"ghp_...****""#) && said.contains("sk-ant-...****")));
    }
}

#[tokio::test]
async fn an_unmasked_secret_of_the_database_stays_inside() {
    let idp = Idp::start().await;
    let secret = canary("");
    for database in Database::both().await {
        // The last two fail: PostgreSQL's message then quotes the value that it could not read.
        let selects = [
            "select body from app_secrets where owner = $1",
            "select token from app_secrets where owner = $1",
            "select cast(cast(token as integer) as text) from app_secrets where owner = $1",
            "select json(token) from app_secrets where owner = $1",
        ];
        for select in selects {
            let config = format!("bootstrap: {{ secrets: {{ source: sql, sql: {{ select: '{select}' }} }} }}");
            let builder = Doorward::builder().idp(&idp).config(PATIENT).config(&config).config(TRACE);
            let doorward = database.of(builder).start().await;
            let table = format!(
                "create table if not exists app_secrets (owner text, body text, token text); delete from app_secrets; \
                 insert into app_secrets values ('user_jordan', '{}', '{secret}')",
                json!({ "token": secret })
            );
            database.run(&doorward, &table).await;
            let said = everything_said(doorward, &idp).await;
            assert!(!said.contains(&secret), "{select}: {}", around(&said, &secret));
        }
    }
}

fn around(text: &str, secret: &str) -> String {
    text.lines().filter(|line| line.contains(secret)).take(3).collect::<Vec<_>>().join("\n")
}
