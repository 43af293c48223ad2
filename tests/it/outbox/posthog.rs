//! The real `posthog-node` and Doorward speak to the same sink in the same words.

use std::process::{Command, Output};

use serde_json::Value;

use super::database::Database;
use super::sink::{Request, Sink};
use super::{delivered, delivering};
use crate::support::npm::installed;

const PACKAGE: &str = "posthog-node@5.70.0";
const SCRIPT: &str = "
import { PostHog } from 'posthog-node';
const sink = new PostHog('phc_canary', { host: process.argv[2], flushAt: 1 });
sink.alias({ distinctId: 'user_0', alias: 'anon:user_0-000' });
await sink.shutdown();
";

fn ran(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; install nodejs and npm"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Returns the names and types of an object's members, in order.
fn shape(value: &Value) -> Vec<(String, &'static str)> {
    let kind = |value: &Value| match value {
        Value::String(_) => "text",
        Value::Bool(_) => "flag",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
        Value::Null | Value::Number(_) => "other",
    };
    value.as_object().expect("an object").iter().map(|(name, value)| (name.clone(), kind(value))).collect()
}

#[tokio::test]
async fn posthogs_own_library_is_accepted_by_the_sink_and_sends_what_we_send() {
    let (database, sink) = (Database::sqlite(), Sink::start().await);
    let url = sink.url().to_owned();
    let script = tokio::task::spawn_blocking(move || {
        let directory = installed(PACKAGE);
        let script = directory.join(format!("alias-{}.mjs", std::process::id()));
        std::fs::write(&script, SCRIPT).expect("it is writable");
        ran(Command::new("node").arg(&script).arg(url));
        std::fs::remove_file(script).expect("it is there");
    });
    script.await.expect("it does not panic");
    let theirs = sink.requests();
    let _doorward = delivering(&database, &sink).start().await;
    database.add_aliases(&["user_0".to_owned()], 1).await;
    delivered(&database).await;
    let [theirs, ours] = [theirs, sink.requests()].map(|requests| requests.last().expect("a request").clone());
    let said: Vec<_> = sink.accepted().into_iter().map(|event| (event.person, event.alias)).collect();
    assert_eq!(said, vec![("user_0".to_owned(), "anon:user_0-000".to_owned()); 2]);

    for Request { head, body, .. } in [&theirs, &ours] {
        assert_eq!(head.start, "POST /batch/ HTTP/1.1");
        assert_eq!(head.headers.first("content-type"), Some("application/json"));
        assert_eq!(body["api_key"], "phc_canary");
        let at = body["batch"][0]["timestamp"].as_str().expect("a time");
        assert!(at.len() == "2026-01-01T00:00:00.000Z".len() && at.ends_with('Z'), "{at}");
    }
    let (their_event, our_event) = (&theirs.body["batch"][0], &ours.body["batch"][0]);
    assert_eq!(shape(our_event), shape(their_event));
    let says = |event: &Value| shape(&event["properties"]);
    let extra: Vec<_> = says(our_event).into_iter().filter(|member| !says(their_event).contains(member)).collect();
    assert_eq!(extra, [], "a property of ours that PostHog's library does not know");
    assert_eq!(our_event["properties"]["$geoip_disable"], their_event["properties"]["$geoip_disable"]);
    let envelope = [("api_key".to_owned(), "text"), ("batch".to_owned(), "list")];
    assert_eq!(shape(&ours.body), envelope);
    assert!(shape(&theirs.body).starts_with(&envelope), "{:?}", theirs.body);
}
