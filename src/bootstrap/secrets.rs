//! Masks secrets down to their first characters, also where their source did not (contracts §5.5).
//!
//! The section may hold previews and booleans. Everything else in it is treated as a secret: texts and
//! numbers at every depth, and keys that look like one.

use serde_json::{Map, Value};

use super::call::Document;

/// What replaces the rest of a secret.
const HIDDEN: &str = "...****";
/// Prefixes that name the issuer of a key and nothing secret; the longest match counts.
const KNOWN_PREFIXES: [&str; 3] = ["sk-ant-", "ghp_", "sk-"];
/// How many characters are shown of a secret without such a prefix, at most.
const SHOWN_MAX: usize = 4;

/// Sets `has_…` beside each secret, unless the source has done so.
pub(super) fn derive_presence(secrets: &mut Document) {
    let is_set = |value: &Value| match value {
        Value::String(text) => Some(!text.is_empty()),
        Value::Null => Some(false),
        _ => None,
    };
    let present: Vec<(String, bool)> = secrets
        .iter()
        .filter(|(key, _)| !key.starts_with("has_"))
        .filter_map(|(key, value)| Some((presence_key(key), is_set(value)?)))
        .collect();
    for (key, present) in present {
        if !secrets.get(&key).is_some_and(Value::is_boolean) {
            secrets.insert(key, Value::Bool(present));
        }
    }
}

/// Hides all but the beginning of every text and all of every number.
pub(super) fn mask(secrets: &mut Document) {
    let whole: Map<String, Value> = std::mem::take(secrets);
    secrets.extend(whole.into_iter().map(|(key, value)| {
        let key = if KNOWN_PREFIXES.iter().any(|prefix| key.starts_with(prefix)) { masked(&key) } else { key };
        (key, masked_value(value))
    }));
}

// The contract's names: has_github_pat, but has_openai_key for openai_api_key.
fn presence_key(key: &str) -> String {
    key.strip_suffix("_api_key").map_or_else(|| format!("has_{key}"), |issuer| format!("has_{issuer}_key"))
}

fn masked_value(value: Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value,
        Value::Number(_) => Value::from(HIDDEN),
        Value::String(text) => Value::String(masked(&text)),
        Value::Array(list) => list.into_iter().map(masked_value).collect(),
        Value::Object(mut inner) => {
            mask(&mut inner);
            Value::Object(inner)
        }
    }
}

fn masked(text: &str) -> String {
    if text.is_empty() || is_masked(text) {
        return text.to_owned();
    }
    let known = KNOWN_PREFIXES.iter().find(|prefix| text.starts_with(**prefix) && text.len() > prefix.len());
    let shown = known.map_or_else(|| beginning(text), |prefix| (*prefix).to_owned());
    format!("{shown}{HIDDEN}")
}

// Never more than half: of a short one even four characters would be most of it.
fn beginning(text: &str) -> String {
    let shown = SHOWN_MAX.min(text.chars().count() / 2);
    text.chars().take(shown).collect()
}

// Returns whether a text is a preview as this module writes them; one that shows more is masked again.
fn is_masked(text: &str) -> bool {
    let Some(shown) = text.strip_suffix(HIDDEN) else {
        return text.chars().all(|letter| matches!(letter, '*' | '.' | '•' | '…'));
    };
    KNOWN_PREFIXES.contains(&shown) || shown.chars().count() <= SHOWN_MAX
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(value: Value) -> Value {
        let Value::Object(mut secrets) = value else { panic!("{value} is no object") };
        derive_presence(&mut secrets);
        mask(&mut secrets);
        Value::Object(secrets)
    }

    #[test]
    fn only_the_beginning_of_a_secret_is_shown() {
        for (secret, preview) in [
            ("ghp_16C7e42F292c6912E7710c838347Ae178B4a", "ghp_...****"),
            ("sk-ant-api03-abcdefghijklmnop", "sk-ant-...****"),
            ("sk-proj-abcdefghijklmnop", "sk-...****"),
            ("AKIAIOSFODNN7EXAMPLE", "AKIA...****"),
            ("пароль-из-многих-букв", "паро...****"),
            ("abcdefg", "abc...****"),
            ("abcd", "ab...****"),
            ("a", "...****"),
            ("ghp_", "gh...****"),
            ("sk-x", "sk-...****"),
            (" leading", " lea...****"),
            ("", ""),
        ] {
            assert_eq!(masked(secret), preview, "{secret}");
            assert_eq!(masked(&masked(secret)), preview, "{secret} twice");
        }
    }

    #[test]
    fn a_preview_that_shows_too_much_is_no_preview() {
        for text in ["ghp_16C7e42F292c6912E7...****", "the whole secret...****", "abcde...****"] {
            assert!(!masked(text).contains(&text[..5]), "{text}: {}", masked(text));
        }
        for text in ["ghp_...****", "sk-ant-...****", "abcd...****", "...****", "********", "••••"] {
            assert_eq!(masked(text), text);
        }
    }

    #[test]
    fn nothing_but_previews_and_booleans_remains() {
        let secrets = json!({
            "github_pat": "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
            "pin": 123_456,
            "nested": { "deep": [{ "token": "0123456789abcdef" }, "fedcba9876543210", 42, null, true] },
            "sk-live-0123456789abcdef": true,
        });
        let expected = json!({
            "github_pat": "ghp_...****",
            "has_github_pat": true,
            "pin": "...****",
            "nested": { "deep": [{ "token": "0123...****" }, "fedc...****", "...****", null, true] },
            "sk-...****": true,
        });
        assert_eq!(shown(secrets), expected);
    }

    #[test]
    fn presence_is_kept_or_derived() {
        let secrets = json!({ "github_pat": "ghp_...****", "anthropic_api_key": null, "openai_api_key": "",
            "has_github_pat": "yes", "has_anthropic_key": true });
        let expected = json!({ "github_pat": "ghp_...****", "anthropic_api_key": null, "openai_api_key": "",
            "has_github_pat": true, "has_anthropic_key": true, "has_openai_key": false });
        assert_eq!(shown(secrets), expected);
    }
}
