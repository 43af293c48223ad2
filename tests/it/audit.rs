//! The audit stream: on standard output or in a file that may be moved away at any time.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::client::sign_in;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::temp::TempDir;

const KEY: &str = "integration-tests-only-0123456789abcdef";

fn events(text: &str) -> Vec<Value> {
    let lines = text.lines().filter(|line| line.starts_with('{'));
    let lines = lines.map(|line| serde_json::from_str::<Value>(line).expect("a whole line of JSON"));
    lines.filter(|line| line["log.logger"] == "audit").collect()
}

fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["event.action"].as_str().expect("every event says what happened")).collect()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

#[tokio::test]
async fn events_go_to_the_file_and_nowhere_else_and_the_file_may_be_moved_or_removed() {
    let (idp, folder) = (Idp::start().await, TempDir::new("audit"));
    let (file, moved) = (folder.join("audit.log"), folder.join("audit.log.1"));
    std::fs::write(&file, "{\"what\":\"was there before\"}\n").expect("the folder is writable");
    let config = format!("telemetry: {{ log_format: text, audit_file: '{}' }}", file.display());
    let mut doorward = Doorward::builder().idp(&idp).config(&config).start().await;
    sign_in(&doorward, &idp, "user_alice").await;
    assert_eq!(actions(&events(&read(&file))), ["started", "session-started"]);
    assert!(read(&file).starts_with("{\"what\":\"was there before\"}\n"), "it is appended to");

    std::fs::rename(&file, &moved).expect("it is there");
    sign_in(&doorward, &idp, "user_bob").await;
    sign_in(&doorward, &idp, "user_carol").await;
    assert_eq!(actions(&events(&read(&moved))).len(), 2, "what was moved away is left alone");
    let found = events(&read(&file));
    assert_eq!(actions(&found), ["session-started"; 2]);
    assert_eq!((&found[0]["user.id"], &found[1]["user.id"]), (&json!("user_bob"), &json!("user_carol")));

    std::fs::remove_file(&file).expect("it is there");
    sign_in(&doorward, &idp, "user_dora").await;
    assert_eq!(actions(&events(&read(&file))), ["session-started"]);
    assert_eq!(events(&doorward.logs()), Vec::<Value>::new());
    assert!(!doorward.logs().contains("session-started"));

    std::fs::remove_dir_all(folder.path()).expect("it is there");
    sign_in(&doorward, &idp, "user_erin").await;
    let told = events(&doorward.logs());
    assert_eq!((actions(&told), &told[0]["user.id"]), (vec!["session-started"], &json!("user_erin")), "not lost");
    doorward.signal("TERM");
    assert!(doorward.wait_exit().await.success());
}

#[tokio::test]
async fn a_file_that_cannot_be_opened_is_said_at_the_start() {
    let config = "telemetry: { audit_file: /nowhere/at/all/audit.log }";
    let mut doorward = Doorward::builder().config(config).spawn();
    assert!(!doorward.wait_exit().await.success());
    assert!(
        doorward.logs().contains("telemetry.audit_file: cannot open /nowhere/at/all/audit.log"),
        "{}",
        doorward.logs()
    );
}

#[tokio::test]
async fn who_was_turned_away_who_had_to_go_and_what_changed_is_told_without_secrets() {
    let idp = Idp::start().await;
    let keys = |keys: &str| format!("sessions: {{ max_per_principal: 1, token: {{ keys: [{keys}] }} }}");
    let first = format!("{{ id: 1, secret: '{KEY}' }}");
    let builder = Doorward::builder().idp(&idp).config("lifecycle: { reload_interval: 50ms }");
    let builder =
        builder.config("webhooks: { clerk: { secrets: ['whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY='] } }");
    let mut doorward = builder.config(&keys(&first)).config("telemetry: { log_level: error }").start().await;
    let overlay = doorward.directory().join("3.yaml");
    let client = doorward.client();
    sign_in(&doorward, &idp, "user_alice").await;
    sign_in(&doorward, &idp, "user_alice").await;
    let forged = format!("{}.canary", idp.mint_for("user_canary"));
    assert_eq!(client.post("/auth/session").bearer(&forged).send().await.status, 401);
    assert_eq!(client.post("/auth/session").send().await.status, 401);
    let device = json!({ "device_id": "canary".repeat(100) });
    assert_eq!(client.post("/auth/anonymous").json(&device).send().await.status, 422);
    let webhook = client.post("/webhooks/clerk").header("svix-id", "canary").body("canary");
    assert_eq!(webhook.send().await.status, 400);
    let until = async |action: &str| {
        let there = async || actions(&events(&doorward.logs())).contains(&action).then_some(());
        eventually(action, there).await;
    };
    std::fs::write(&overlay, "sessions: { canary: 1 }").expect("the directory is writable");
    until("config-refused").await;
    let second = format!("{{ id: 2, secret: 'canary-{KEY}' }}, {first}");
    std::fs::write(&overlay, keys(&second)).expect("the directory is writable");
    until("token-keys-reloaded").await;
    doorward.signal("TERM");
    doorward.wait_exit().await;

    let told = events(&doorward.logs());
    assert_eq!(
        actions(&told),
        [
            "started",
            "session-started",
            "sessions-evicted",
            "session-started",
            "login-denied",
            "login-denied",
            "login-denied",
            "webhook-refused",
            "config-refused",
            "config-reloaded",
            "token-keys-reloaded",
        ]
    );
    assert_eq!((&told[2]["sessions.ended"], &told[2]["user.id"]), (&json!(1), &json!("user_alice")));
    let denied: Vec<_> = told[4..7].iter().map(|event| [&event["auth.method"], &event["event.reason"]]).collect();
    assert_eq!(
        json!(denied),
        json!([["clerk", "invalid_token"], ["clerk", "missing_token"], ["anonymous", "unprocessable"]])
    );
    assert_eq!(told[5]["client.ip"], "127.0.0.1");
    assert_eq!(told[7]["event.reason"], "missing or malformed headers");
    assert_eq!(told[8]["config.hash"], told[0]["config.hash"], "the old one stays in force");
    assert_eq!(told[10]["keys"], 2);
    let text = json!(told).to_string();
    assert!(!text.contains("canary") && !text.contains(KEY) && !text.contains(&forged), "{text}");
}
