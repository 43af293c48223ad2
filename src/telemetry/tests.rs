//! Which lines are written, in which form, and which never are.

use std::io::Write;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::time::{ManualClock, Timestamp};

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn captured(level: Level, format: Format, run: impl FnOnce(&Verbosity)) -> String {
    let output = Captured::default();
    let writer = output.clone();
    let config = config(level, format);
    let clock = Arc::new(ManualClock::at(Timestamp(1_767_225_600_123)));
    let (subscriber, verbosity) = subscriber(&config, clock, move || writer.clone(), None);
    // Also bridges the `log` crate.
    let guard = subscriber.set_default();
    run(&verbosity);
    drop(guard);
    output.text()
}

fn config(log_level: Level, log_format: Format) -> config::Telemetry {
    let defaults = config::Config::load(&[], &std::collections::BTreeMap::new()).unwrap().config.telemetry;
    config::Telemetry { log_level, log_format, ..defaults }
}

/// Returns what `run` logs at `level`, line by line.
pub(crate) fn json_lines(level: Level, run: impl FnOnce(&Verbosity)) -> Vec<Value> {
    captured(level, Format::Json, run).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn record() -> access::Record<'static> {
    access::Record {
        request_id: "00000000000000ab",
        trace_id: None,
        method: "GET",
        path: "/orders?token=secret",
        handler: "proxy",
        route: "route-0",
        status: 200,
        duration: Duration::from_micros(1500),
        client_ip: Some("192.0.2.1".parse().unwrap()),
        user_id: Some("user_2b"),
        organization_id: Some("default"),
        outcome: access::Outcome::Allow,
        reason: "ok",
        source: Some("l1"),
        error_type: None,
    }
}

#[test]
fn an_event_is_one_flat_line_of_json() {
    let lines = json_lines(Level::Info, |_| {
        tracing::info!(count = 3, ok = true, ratio = 0.5, name = "a\nb", "started {}", "well\n{\"forged\":1}");
    });
    let expected = json!({
        "@timestamp": "2026-01-01T00:00:00.123Z",
        "log.level": "info",
        "log.logger": "doorward::telemetry::tests",
        "message": "started well\n{\"forged\":1}",
        "count": 3,
        "ok": true,
        "ratio": 0.5,
        "name": "a\nb",
    });
    assert_eq!(lines, [expected]);
}

#[test]
fn an_access_record_has_ecs_names_and_no_query() {
    let lines = json_lines(Level::Error, |_| access::write(&record()));
    let expected = json!({
        "@timestamp": "2026-01-01T00:00:00.123Z",
        "log.level": "info",
        "log.logger": "access",
        "http.request.id": "00000000000000ab",
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "url.path": "/orders",
        "handler": "proxy",
        "route": "route-0",
        "event.duration": 1_500_000,
        "client.ip": "192.0.2.1",
        "user.id": "user_2b",
        "organization.id": "default",
        "auth.outcome": "allow",
        "auth.reason": "ok",
        "auth.source": "l1",
    });
    assert_eq!(lines, [expected]);
}

#[test]
fn text_is_one_line_for_people() {
    let text = captured(Level::Info, Format::Text, |_| tracing::info!(name = "a\nb", "started"));
    assert_eq!(text, "2026-01-01T00:00:00.123Z  INFO doorward::telemetry::tests: started name=\"a\\nb\"\n");
}

#[test]
fn libraries_never_say_more_than_warnings() {
    let lines = json_lines(Level::Trace, |_| {
        for target in ["pingora_core::protocols", "h2", "hyper_util", "reqwest", "redis", "sqlx", "rustls", "tower"] {
            log::trace!(target: target, "Authorization: Bearer secret");
            log::debug!(target: target, "Authorization: Bearer secret");
            log::info!(target: target, "Authorization: Bearer secret");
        }
        tracing::debug!(target: "h2::codec", "Authorization: Bearer secret");
        log::warn!(target: "pingora_core::protocols", "slow");
        tracing::trace!("ours");
    });
    let seen: Vec<_> = lines.iter().map(|line| (line["log.logger"].as_str().unwrap(), &line["message"])).collect();
    assert_eq!(seen, [("pingora_core::protocols", &json!("slow")), ("doorward::telemetry::tests", &json!("ours"))]);
    assert!(lines.iter().all(|line| line.get("log.file").is_none()));
}

#[test]
fn the_proxy_library_is_silent() {
    let text = captured(Level::Trace, Format::Text, |_| {
        log::error!(target: "pingora_proxy", "Fail to proxy: buf: Set-Cookie: sid=secret, GET /?token=secret");
        log::warn!(target: "pingora_proxy::proxy_h1", "GET /?token=secret");
    });
    assert_eq!(text, "");
}

#[test]
fn the_level_follows_a_reload() {
    let lines = json_lines(Level::Error, |verbosity| {
        tracing::info!("unseen");
        log::warn!(target: "redis", "unseen");
        verbosity.set(Level::Debug).unwrap();
        tracing::debug!("seen");
        log::warn!(target: "redis", "seen");
        verbosity.set(Level::Warn).unwrap();
        tracing::info!("unseen");
        tracing::warn!("seen");
    });
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| line["message"] == "seen"), "{lines:?}");
}

#[test]
fn audit_lines_are_written_at_every_level() {
    let lines = json_lines(Level::Error, |_| tracing::info!(target: "audit", { session.id = "s" }, "x"));
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["session.id"], "s");
}

#[test]
fn every_field_of_access_and_audit_lines_is_described() {
    let text = include_str!("../../docs/observability.md");
    let lines = json_lines(Level::Info, |_| {
        access::write(&access::Record { trace_id: Some("1"), error_type: Some("reset"), ..record() });
        audit::Event {
            reason: Some("a"),
            session_id: Some("a".to_owned()),
            user_id: Some("a"),
            user_kind: Some("a"),
            organization_id: Some("a"),
            actor_id: Some("a"),
            guest_id: Some("a"),
            login_id: Some("a"),
            client_ip: Some("192.0.2.1".parse().unwrap()),
            method: Some("a"),
            sessions_ended: Some(1),
            rows: Some(1),
            provider: Some("a"),
            keys: Some(1),
            config_hash: Some("a"),
            ..audit::Action::Started.event()
        }
        .write();
    });
    let fields: Vec<&String> = lines.iter().flat_map(|line| line.as_object().unwrap().keys()).collect();
    assert_eq!(fields.len(), 18 + 19, "every field is set: {fields:?}");
    let missing: Vec<_> = fields.into_iter().filter(|field| !text.contains(&format!("`{field}`"))).collect();
    assert!(missing.is_empty(), "docs/observability.md says nothing of {missing:?}");
}

#[test]
fn a_file_takes_the_audit_lines_and_nothing_else() {
    let directory = config::tests::TestDirectory::new();
    let path = directory.path().join("audit.log");
    let (output, clock) = (Captured::default(), Arc::new(ManualClock::at(Timestamp(0))));
    let writer = output.clone();
    let file = LineFile::open(path.clone()).unwrap();
    let (subscriber, _) = subscriber(&config(Level::Error, Format::Text), clock, move || writer.clone(), Some(file));
    let guard = subscriber.set_default();
    audit::Action::ConfigReloaded.event().write();
    tracing::error!("for people");
    access::write(&record());
    drop(guard);
    let text = std::fs::read_to_string(&path).unwrap();
    let line: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(line["event.action"], "config-reloaded");
    assert!(output.text().contains("for people") && output.text().contains("access"));
    assert!(!output.text().contains("config-reloaded"));
}
