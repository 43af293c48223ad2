//! The command line of the real binary: what a person types and a script checks.

use std::io::{BufRead, BufReader};
use std::process::{Command, Output, Stdio};

use crate::support::client::sign_in;
use crate::support::doorward::Doorward;
use crate::support::eventually;
use crate::support::idp::Idp;
use crate::support::ports::free_port;
use crate::support::redis::Redis;
use crate::support::signal;
use crate::support::temp::TempDir;
use crate::support::upstream::Upstream;

const BINARY: &str = env!("CARGO_BIN_EXE_doorward");

async fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).stdin(Stdio::null());
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("it does not panic");
    output.expect("the binary can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Returns the exit code, standard output and standard error.
async fn outcome(arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run(arguments).await;
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Returns the subcommands that a help text lists.
fn subcommands(help: &str) -> Vec<String> {
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != "help").map(str::to_owned).collect()
}

#[tokio::test]
async fn every_command_explains_itself() {
    let (code, help, errors) = outcome(&["--help"]).await;
    assert_eq!((code, errors.as_str()), (Some(0), ""));
    assert_eq!(
        subcommands(&help),
        ["serve", "drain", "demo", "check", "explain", "sessions", "migrate", "outbox", "keys", "probe"]
    );
    let mut commands: Vec<Vec<String>> = subcommands(&help).into_iter().map(|name| vec![name]).collect();
    for parent in ["sessions", "outbox", "keys"] {
        let (_, help, _) = outcome(&[parent, "--help"]).await;
        commands.extend(subcommands(&help).into_iter().map(|name| vec![parent.to_owned(), name]));
    }
    assert_eq!(commands.len(), 15, "{commands:?}");
    for command in commands {
        let arguments: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let (code, help, errors) = outcome(&arguments).await;
        assert_eq!((code, errors.as_str()), (Some(0), ""), "{command:?}");
        let usage = format!("Usage: doorward {}", command.join(" "));
        assert!(help.contains(&usage), "{usage} in {help}");
        // An option or argument whose line ends with its name has no explanation beside it or below.
        let lines: Vec<&str> = help.lines().collect();
        for (line, next) in lines.iter().zip(lines.iter().skip(1)) {
            let named = line.trim_start().starts_with("--") || line.trim_start().starts_with('<');
            let bare = line.trim().split("  ").count() == 1;
            assert!(!(named && bare && next.trim().is_empty()), "{command:?}: {line} is not explained");
        }
    }
    let (code, version, _) = outcome(&["--version"]).await;
    assert_eq!((code, version), (Some(0), format!("doorward {}\n", env!("CARGO_PKG_VERSION"))));
}

#[tokio::test]
async fn check_tells_every_problem_at_once_and_never_a_secret() {
    let directory = TempDir::new("check");
    let file = directory.join("doorward.yaml");
    let path = file.to_str().expect("a temporary path is text");
    std::fs::write(&file, "listen: nowhere\nno_such_key: 1\nsessions: { ttl: 1x }\n").expect("it is writable");
    let (code, stdout, stderr) = outcome(&["check", "--config", path]).await;
    assert_eq!((code, stdout.as_str()), (Some(64), ""));
    for part in ["3 problems", "listen: ", "no_such_key", "sessions.ttl: "] {
        assert!(stderr.contains(part), "{part} in {stderr}");
    }
    let (code, ..) = outcome(&["serve", "--config", path]).await;
    assert_eq!(code, Some(64), "serve refuses what check refuses");

    let key = text(&run(&["keys", "generate"]).await.stdout).trim().to_owned();
    assert_eq!(key.len(), 43, "32 bytes in base64url");
    let yaml = format!(
        "sessions: {{ store: 'redis://user:hunter2@localhost/', token: {{ keys: [{{ id: 1, secret: '{key}' }}] }} }}"
    );
    std::fs::write(&file, yaml).expect("it is writable");
    let (code, stdout, stderr) = outcome(&["check", "--config", path]).await;
    assert_eq!(code, Some(0), "{stderr}");
    assert!(stdout.contains("[redacted]@localhost"), "{stdout}");
    for secret in [key.as_str(), "hunter2"] {
        assert!(!stdout.contains(secret) && !stderr.contains(secret));
    }
    let (code, stdout, _) = outcome(&["explain", "GET", "/orders/7", "--config", path]).await;
    assert_eq!(code, Some(0));
    assert!(stdout.contains("route-0"), "{stdout}");
    let (code, ..) = outcome(&["explain", "GET", "/a/%2e%2e/b", "--config", path]).await;
    assert_eq!(code, Some(1), "refused for its path alone");
}

#[tokio::test]
async fn a_generated_key_signs_and_probe_asks_readyz() {
    let (idp, upstream, redis) = (Idp::start().await, Upstream::start().await, Redis::start().await);
    let key = text(&run(&["keys", "generate"]).await.stdout);
    let volume = TempDir::new("key");
    let file = volume.join("token-key");
    std::fs::write(&file, key).expect("it is writable");
    let keys = format!("sessions: {{ token: {{ keys: [{{ id: 9, secret: {{ file: '{}' }} }}] }} }}", file.display());
    let doorward =
        Doorward::builder().store(&redis.url()).idp(&idp).upstream(upstream.url()).config(&keys).start().await;
    let token = sign_in(&doorward, &idp, "user_alice").await;
    assert_eq!(doorward.client().get("/").bearer(&token).send().await.status, 200);

    let url = format!("http://{}/readyz", doorward.admin_addr());
    assert_eq!(outcome(&["probe", &url]).await, (Some(0), "ok\n".to_owned(), String::new()));
    let missing = format!("http://{}/nothing", doorward.admin_addr());
    let said = format!("doorward: {missing} answered 404 Not Found\n");
    assert_eq!(outcome(&["probe", &missing]).await, (Some(1), String::new(), said));
    let closed = format!("http://127.0.0.1:{}/readyz", free_port());
    let (code, _, stderr) = outcome(&["probe", &closed]).await;
    assert!(code == Some(1) && stderr.contains("cannot be reached"), "{stderr}");
}

#[tokio::test]
async fn sessions_are_listed_and_ended_beside_a_running_server() {
    let (idp, upstream, redis) = (Idp::start().await, Upstream::start().await, Redis::start().await);
    let builder = || Doorward::builder().idp(&idp).upstream(upstream.url());
    for doorward in [builder().start().await, builder().store(&redis.url()).start().await] {
        let file = doorward.directory().join("0.yaml").display().to_string();
        let command = async |words: &[&str]| {
            let whose = ["--principal", "user_alice", "--config", &file];
            outcome(&[&["sessions"], words, &whose].concat()).await
        };
        let tokens = [sign_in(&doorward, &idp, "user_alice").await, sign_in(&doorward, &idp, "user_alice").await];
        let bob = sign_in(&doorward, &idp, "user_bob").await;
        let ask = async |token: &str| doorward.client().get("/").bearer(token).send().await.status;
        assert_eq!([ask(&tokens[0]).await, ask(&tokens[1]).await, ask(&bob).await], [200; 3]);

        let (code, listed, stderr) = command(&["list"]).await;
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{listed}");
        let rows: Vec<&str> = listed.lines().collect();
        assert_eq!(rows.len(), 3, "{listed}");
        assert!(rows[0].starts_with("SESSION") && !listed.contains(&tokens[0]), "{listed}");
        let newest = rows[1].split(' ').next().expect("a row begins with the id");
        let (code, said, _) = command(&["revoke", "--session", newest]).await;
        let expected = format!("ended session {newest} of user_alice in tenant default\n");
        assert_eq!((code, said), (Some(0), expected));
        eventually("the server to hear of it", async || (ask(&tokens[1]).await == 401).then_some(())).await;
        assert_eq!(ask(&tokens[0]).await, 200);

        let (code, said, _) = command(&["revoke"]).await;
        assert_eq!((code, said.as_str()), (Some(0), "ended 1 session of user_alice in tenant default\n"));
        eventually("the server to hear of it", async || (ask(&tokens[0]).await == 401).then_some(())).await;
        let (code, said, _) = command(&["list"]).await;
        assert_eq!((code, said.as_str()), (Some(0), "user_alice in tenant default has no live session\n"));
        let (code, _, said) = command(&["revoke", "--session", newest]).await;
        assert!(code == Some(1) && said.contains("has no live session"), "{said}");
        assert_eq!(ask(&bob).await, 200, "nobody else is touched");
    }
}

#[tokio::test]
async fn the_demo_does_what_it_prints_and_leaves_nothing_behind() {
    let home = TempDir::new("demo");
    let address = |port: u16| format!("127.0.0.1:{port}");
    let mut demo = Command::new(BINARY)
        .args(["demo", "--listen", &address(free_port()), "--admin", &address(free_port())])
        .env("TMPDIR", home.path())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary can be started");
    let output = demo.stdout.take().expect("it is piped");
    let story = tokio::task::spawn_blocking(move || {
        let lines = BufReader::new(output).lines().map_while(Result::ok);
        let mut story = Vec::new();
        for line in lines {
            let last = line.starts_with("Stop with Ctrl-C");
            story.push(line);
            if last {
                break;
            }
        }
        story
    });
    let story = crate::support::within("the story", story).await.expect("it does not panic");
    assert_eq!(std::fs::read_dir(home.path()).expect("a directory").count(), 1, "its scratch directory");
    let commands: Vec<&str> = story.iter().filter_map(|line| line.strip_prefix("    ")).collect();
    let mut shell = Command::new("sh");
    shell.args(["-e", "-c", &commands.join("\n")]);
    let pasted = tokio::task::spawn_blocking(move || shell.output()).await.expect("it does not panic");
    let pasted = pasted.expect("sh is installed");
    signal(demo.id(), "INT");
    let status = eventually("the demo to end", async || demo.try_wait().expect("it is our child")).await;
    assert!(pasted.status.success(), "{}", text(&pasted.stderr));
    let printed = text(&pasted.stdout);
    let lines: Vec<&str> = printed.lines().collect();
    let [milk, call, moved, again, owned, gone, bootstrap, hello, revoked, refused] = lines.as_slice() else {
        panic!("ten answers, not {printed}")
    };
    let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON");
    let guest = json(milk)["owner"].as_str().expect("a note has an owner").to_owned();
    assert!(guest.starts_with("anon:"), "{guest}");
    assert_eq!(json(call), serde_json::json!({ "owner": guest, "text": "call home" }));
    let id = guest.trim_start_matches("anon:");
    assert_eq!(json(moved), serde_json::json!({ "rebound": true, "rows_updated": 2, "anonymous_id": id }));
    assert_eq!(json(again), serde_json::json!({ "rebound": false, "rows_updated": 0, "anonymous_id": null }));
    let note = |text: &str| serde_json::json!({ "owner": "user_alice", "text": text });
    assert_eq!(json(owned), serde_json::json!([note("buy milk"), note("call home")]));
    assert_eq!(*gone, r#"{"detail":"Invalid token: session revoked"} 401"#);
    let first = json(bootstrap);
    let sections: Vec<&str> = first.as_object().expect("an object").keys().map(String::as_str).collect();
    assert_eq!(sections, ["profile", "secrets", "subscription"]);
    let hello: serde_json::Value = serde_json::from_str(hello).expect("the application answers in JSON");
    assert_eq!(hello["path"], "/hello");
    assert_eq!(hello["headers"]["x-user-id"], serde_json::json!(["user_alice"]));
    assert_eq!(hello["headers"]["x-client-id"], serde_json::json!(["default"]));
    assert_eq!(hello["headers"].get("authorization"), None);
    assert_eq!(*revoked, r#"{"revoked":true}"#);
    assert_eq!(*refused, r#"{"detail":"Invalid token: session revoked"} 401"#);
    assert_eq!(status.code(), Some(0));
    assert_eq!(std::fs::read_dir(home.path()).expect("a directory").count(), 0, "nothing is kept");
}

#[tokio::test]
async fn a_machine_without_authorities_to_trust_is_named_and_no_panic() {
    let mut doorward =
        Doorward::builder().env("SSL_CERT_FILE", "/nonexistent").env("SSL_CERT_DIR", "/nonexistent").spawn();
    let status = doorward.wait_exit().await;
    let logs = doorward.logs();
    assert_eq!(status.code(), Some(1), "{logs}");
    assert!(logs.contains("SSL_CERT_FILE") && !logs.contains("panicked"), "{logs}");
}
