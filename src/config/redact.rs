//! The configuration as it may be shown: no secret, no password inside a URL.
//!
//! Works on the raw tree, because the parsed form no longer knows what was a file and what was text.

use serde_json::{Map, Value};

use super::Config;
use super::problem::{KeyPath, Step};
use super::read::{ANY_KEY, secrets_of};
use super::values::file_named_by;

const HIDDEN: &str = "[redacted]";
/// How much of a wrong value is worth showing.
const SHOWN_MAX: usize = 120;

/// Where a configuration holds secrets, as the types of its keys say.
#[derive(Debug)]
pub(super) struct SecretPlaces(Vec<KeyPath>);

impl SecretPlaces {
    /// Returns the places of every secret that [`Config`] can hold.
    pub(super) fn of_config() -> Self {
        Self(secrets_of::<Config>())
    }

    /// Returns whether the value at `path` is a secret, or would be in another section: it may stand in the wrong one.
    pub(super) fn include(&self, path: &KeyPath) -> bool {
        self.0.iter().any(|place| {
            // From the last name on: what follows a name are positions in a list, or keys of a map.
            let named = |step: &Step| matches!(step, Step::Key(key) if key != ANY_KEY);
            let from = place.steps().iter().rposition(named).unwrap_or(0);
            let (tail, steps) = (place.steps().get(from..).unwrap_or_default(), path.steps());
            let end = steps.len().checked_sub(tail.len()).and_then(|start| steps.get(start..));
            end.is_some_and(|end| end.iter().zip(tail).all(|(step, expected)| is_like(step, expected)))
        })
    }

    /// Returns whether a secret stands at `path` or inside it.
    pub(super) fn reach_into(&self, path: &KeyPath) -> bool {
        let names = path.names();
        self.include(path) || self.0.iter().any(|place| place.names().starts_with(&names))
    }

    /// Returns `value`, which stands at `path`, with every secret replaced.
    pub(super) fn redacted(&self, path: &KeyPath, value: &Value) -> Value {
        if self.include(path) {
            let harmless = value.is_null() || file_named_by(value).is_some();
            return if harmless { value.clone() } else { Value::from(HIDDEN) };
        }
        match value {
            Value::Object(map) => {
                let entries = map.iter().map(|(key, value)| (key.clone(), self.redacted(&path.key(key), value)));
                entries.collect::<Map<_, _>>().into()
            }
            Value::Array(list) => {
                list.iter().enumerate().map(|(index, value)| self.redacted(&path.index(index), value)).collect()
            }
            // Text where a section belongs may be the secret itself, written one level too high.
            Value::String(_) | Value::Number(_) if self.reach_into(path) => Value::from(HIDDEN),
            Value::String(text) => Value::String(without_userinfo(text)),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }

    /// Returns the value at `path` as one short line of JSON, secrets replaced.
    pub(super) fn shown(&self, path: &KeyPath, value: &Value) -> String {
        let text = self.redacted(path, value).to_string();
        if text.chars().count() <= SHOWN_MAX {
            return text;
        }
        text.chars().take(SHOWN_MAX).chain("…".chars()).collect()
    }
}

fn is_like(step: &Step, expected: &Step) -> bool {
    match (step, expected) {
        (Step::Index(_), Step::Index(_)) => true,
        (Step::Key(_), Step::Key(any)) if any == ANY_KEY => true,
        (step, expected) => step == expected,
    }
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

// A password may hold '@' and '/': what stands before the last '@' is hidden.
fn without_userinfo(text: &str) -> String {
    match (text.split_once("://"), text.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{HIDDEN}@{host}"),
        (None, Some((_, host))) => format!("{HIDDEN}@{host}"),
        (_, None) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_types_say_where_secrets_are() {
        let places: Vec<String> = SecretPlaces::of_config().0.iter().map(ToString::to_string).collect();
        assert_eq!(
            places,
            [
                "sessions.token.keys[0].secret",
                "sessions.redis.password",
                "directory.password",
                "outbox.alias.api_key",
                "rebind.hook.secret",
                "webhooks.clerk.secrets[0]",
                "telemetry.traces.headers.*",
            ]
        );
    }

    #[test]
    fn a_secret_is_one_in_any_section_and_a_section_that_is_called_like_one_is_none() {
        let secrets = SecretPlaces::of_config();
        let keys = KeyPath::of("sessions.token.keys").index(7);
        for path in [keys.key("secret"), KeyPath::of("limits.password"), KeyPath::of("outbox.headers.x-key")] {
            assert!(secrets.include(&path), "{path}");
        }
        for path in [KeyPath::of("bootstrap.secrets"), keys.key("id"), KeyPath::default()] {
            assert!(!secrets.include(&path), "{path}");
        }
        assert!(secrets.reach_into(&keys) && secrets.reach_into(&KeyPath::of("webhooks")));
        assert!(!secrets.reach_into(&KeyPath::of("limits")));
    }
}
