//! The configuration as it may be shown: no secret, no password inside a URL.
//!
//! Works on the raw tree, because the parsed form no longer knows what was a file and what was text.

use serde_json::{Map, Value};

use super::problem::{KeyPath, Step};

/// Where secrets are, list positions left out.
const SECRETS: [&[&str]; 7] = [
    &["sessions", "token", "keys", "secret"],
    &["sessions", "redis", "password"],
    &["directory", "password"],
    &["outbox", "alias", "api_key"],
    &["webhooks", "clerk", "secrets"],
    &["rebind", "hook", "secret"],
    &["telemetry", "traces", "headers"],
];
const HIDDEN: &str = "[redacted]";
/// How much of a wrong value is worth showing.
const SHOWN_MAX: usize = 120;

/// Returns whether the value at `path` is a secret.
pub(super) fn is_secret(path: &KeyPath) -> bool {
    match path.steps() {
        // Headers by name.
        [.., Step::Key(headers), Step::Key(_)] if headers == "headers" => true,
        [.., Step::Key(key)] => ["secret", "password", "api_key"].contains(&key.as_str()),
        // One of several.
        [.., Step::Key(list), Step::Index(_)] => list == "secrets",
        _ => false,
    }
}

/// Returns whether a secret lies at `path` or inside it.
pub(super) fn holds_secret(path: &KeyPath) -> bool {
    let names = path.names();
    is_secret(path) || SECRETS.iter().any(|secret| secret.starts_with(&names))
}

/// Returns `value`, which stands at `path`, with every secret replaced.
pub(super) fn redacted(path: &KeyPath, value: &Value) -> Value {
    if is_secret(path) {
        return if value.is_null() || names_a_file(value) { value.clone() } else { Value::from(HIDDEN) };
    }
    match value {
        Value::Object(map) => {
            map.iter().map(|(key, value)| (key.clone(), redacted(&path.key(key), value))).collect::<Map<_, _>>().into()
        }
        Value::Array(list) => {
            list.iter().enumerate().map(|(index, value)| redacted(&path.index(index), value)).collect()
        }
        // Text where a section belongs may be the secret itself, written one level too high.
        Value::String(_) | Value::Number(_) if holds_secret(path) => Value::from(HIDDEN),
        Value::String(text) => Value::String(without_userinfo(text)),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    }
}

/// Returns the value at `path` as one short line of JSON, secrets replaced.
pub(super) fn shown(path: &KeyPath, value: &Value) -> String {
    let text = redacted(path, value).to_string();
    if text.chars().count() <= SHOWN_MAX {
        return text;
    }
    text.chars().take(SHOWN_MAX).chain("…".chars()).collect()
}

/// Returns whether `value` is `{file: …}`.
pub(super) fn names_a_file(value: &Value) -> bool {
    value.as_object().is_some_and(|map| map.len() == 1 && map.get("file").is_some_and(Value::is_string))
}

/// Returns the tree as YAML in block style. Strings are quoted as in JSON, which YAML includes.
pub(super) fn to_yaml(tree: &Value) -> String {
    let mut lines = Vec::new();
    if let Value::Object(map) = tree {
        map_lines(map, "", &mut lines);
    }
    lines.concat()
}

fn map_lines(map: &Map<String, Value>, indent: &str, lines: &mut Vec<String>) {
    for (key, value) in map {
        let key = if is_plain(key) { key.clone() } else { Value::from(key.as_str()).to_string() };
        match value {
            Value::Object(inner) if !inner.is_empty() => {
                lines.push(format!("{indent}{key}:\n"));
                map_lines(inner, &format!("{indent}  "), lines);
            }
            // A list's elements fit on a line each, in flow style.
            Value::Array(list) if !list.is_empty() => {
                lines.push(format!("{indent}{key}:\n"));
                lines.extend(list.iter().map(|element| format!("{indent}  - {element}\n")));
            }
            value => lines.push(format!("{indent}{key}: {value}\n")),
        }
    }
}

fn is_plain(key: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    key.starts_with(|first: char| first.is_ascii_lowercase())
        && key.bytes().all(word)
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&key)
}

// A password may hold '@' and '/': whatever stands before the last '@' is hidden.
fn without_userinfo(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{HIDDEN}@{host}"),
        (None, Some((_, host))) => format!("{HIDDEN}@{host}"),
        (_, None) => text.to_owned(),
    }
}
