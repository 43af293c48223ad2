//! What an operator sees of the outbox, and revives.

use std::process::{Command, Stdio};

use serde_json::Value;

use super::database::Database;
use super::sink::Sink;
use super::{BINARY, delivered, delivering, times};
use crate::support::eventually;

/// Runs a command on the database; returns the exit code and both outputs.
async fn run(database: &Database, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("DOORWARD__DIRECTORY__URL", database.url()).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    let output = output.expect("the binary can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("it writes text");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn shows_and_revives(database: Database) {
    let sink = Sink::start().await;
    sink.refuse(Some("user_0"));
    let _doorward = delivering(&database, &sink).start().await;
    let ids = database.add_aliases(&["user_0".to_owned()], 3).await;
    let dead = "select count(*) from doorward_outbox where state = 'dead'";
    eventually("three dead", async || (database.number(dead).await == 3).then_some(())).await;

    let (code, table, _) = run(&database, &["outbox", "list"]).await;
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!((code, lines.len()), (Some(0), 4), "{table}");
    assert!(lines[0].starts_with("EVENT   ") && lines[0].ends_with("  ERROR"), "{table}");
    for (line, id) in lines[1..].iter().zip(&ids) {
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(cells[..4], [id, "alias", "dead", "1"], "{table}");
        assert_eq!(cells[5..7], ["-", "user_0"], "{table}");
        assert!(line.ends_with("  the sink answered 400"), "{table}");
    }
    let (code, text, _) = run(&database, &["outbox", "list", "--state", "dead", "--json", "--limit", "2"]).await;
    let listed: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((code, listed.len()), (Some(0), 2));
    assert_eq!(listed[0]["id"], ids[0].as_str());
    assert_eq!(listed[0]["error"], "the sink answered 400");
    let keys: Vec<&String> = listed[0].as_object().expect("an object").keys().collect();
    assert_eq!(keys, ["attempts", "created_at", "due_at", "error", "id", "kind", "person", "state"]);
    let none = run(&database, &["outbox", "list", "--state", "pending"]).await;
    assert_eq!(none, (Some(0), "no such event\n".to_owned(), String::new()));

    sink.refuse(None);
    let one = run(&database, &["outbox", "retry", &ids[0]]).await;
    assert_eq!(one, (Some(0), "1 event will be tried again\n".to_owned(), String::new()));
    eventually("it to be delivered", async || (times(&sink, &ids) == [1, 0, 0]).then_some(())).await;
    let again = run(&database, &["outbox", "retry", &ids[0]]).await;
    assert_eq!(again, (Some(1), String::new(), "doorward: only 0 of 1 events were dead\n".to_owned()));
    let all = run(&database, &["outbox", "retry", "--all"]).await;
    assert_eq!(all, (Some(0), "2 events will be tried again\n".to_owned(), String::new()));
    delivered(&database).await;
    assert_eq!(times(&sink, &ids), [1; 3]);
    let (code, stdout, stderr) = run(&database, &["outbox", "retry"]).await;
    assert_eq!((code, stdout.as_str()), (Some(64), ""), "{stderr}");
}

#[tokio::test]
async fn dead_events_are_listed_and_revived_on_sqlite() {
    shows_and_revives(Database::sqlite()).await;
}

#[tokio::test]
async fn dead_events_are_listed_and_revived_on_postgresql() {
    shows_and_revives(Database::postgres().await).await;
}

#[tokio::test]
async fn a_database_that_is_away_is_told() {
    let output = Command::new(BINARY)
        .args(["outbox", "list"])
        .env("DOORWARD__DIRECTORY__URL", "postgres://nobody:hunter2@127.0.0.1:1/none")
        .output()
        .expect("the binary can be started");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.starts_with("doorward: the directory "), "{said}");
    assert!(!said.contains("hunter2"), "{said}");
}
