//! Rules about routes.

use std::collections::BTreeSet;

use crate::config::problem::{Finding, KeyPath};
use crate::config::{Auth, RouteRule};
use crate::wire::headers::is_visible_ascii;

pub(super) fn check(routes: &[RouteRule], found: &mut Vec<Finding>) {
    let mut seen = BTreeSet::new();
    for (index, rule) in routes.iter().enumerate() {
        let at = KeyPath::of("routes").index(index);
        one(&at, rule, found);
        if !seen.insert(rule.id_at(index)) {
            found.push(Finding::new(at.key("id"), "is the id of an earlier route too"));
        }
    }
}

fn one(at: &KeyPath, rule: &RouteRule, found: &mut Vec<Finding>) {
    let in_id = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if rule.id.as_ref().is_some_and(|id| !(1..=64).contains(&id.len()) || !id.bytes().all(in_id)) {
        found.push(Finding::new(at.key("id"), "must be 1 to 64 letters, digits, -, _ or ."));
    }
    if rule.id.as_deref() == Some("unmatched") {
        found.push(Finding::new(at.key("id"), "is the name of what no rule matches"));
    }
    if let Err(expected) = path(&rule.path) {
        found.push(Finding::new(at.key("path"), expected));
    }
    for (index, method) in rule.methods.iter().enumerate() {
        if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-') {
            let key = at.key("methods").index(index);
            found.push(Finding::new(key, "must be a method in capitals, e.g. \"GET\""));
        }
    }
    if !rule.require_any_role.is_empty() && rule.auth != Auth::Required {
        let mut finding = Finding::new(at.key("require_any_role"), "needs auth: required");
        finding.rests_on.push(at.key("auth"));
        found.push(finding);
    }
    if !rule.allow_anonymous && rule.auth == Auth::None {
        let mut finding = Finding::new(at.key("allow_anonymous"), "means nothing with auth: none");
        finding.rests_on.push(at.key("auth"));
        found.push(finding);
    }
}

// Requests are matched after normalisation: a rule that no normal path can equal would silently
// never apply, and a rule that opens nothing is the harmless case.
fn path(path: &str) -> Result<(), &'static str> {
    let Some(rest) = path.strip_prefix('/') else { return Err("must begin with /") };
    if !is_visible_ascii(path, usize::MAX) || path.contains(['?', '#', '\\']) {
        return Err("must be a path of visible ASCII characters without ?, # and \\");
    }
    if path.split('%').skip(1).any(|after| !is_normal_escape(after)) {
        return Err(
            "may escape only what must be, in capitals, and never / or \\: requests are matched once normalised",
        );
    }
    let segments: Vec<&str> = rest.split('/').collect();
    let (last, inner) = segments.split_last().unwrap_or((&"", &[]));
    if inner.contains(&"") || segments.iter().any(|segment| is_dots(segment)) {
        return Err("must not have empty, . or .. segments: requests never have them once normalised");
    }
    if inner.contains(&"**") {
        return Err("may have ** as its last segment only");
    }
    let wild = |segment: &&str| segment.contains('*') && !["*", "**"].contains(segment);
    if inner.iter().chain(std::iter::once(last)).any(wild) {
        return Err("may have * only as a whole segment");
    }
    Ok(())
}

// `..;x` is a dot segment to servers that drop path parameters first.
fn is_dots(segment: &str) -> bool {
    matches!(segment.split(';').next(), Some("." | ".."))
}

// RFC 3986 §6.2.2: an escape of an unreserved character is not normal, nor are lower-case digits.
fn is_normal_escape(after_percent: &str) -> bool {
    let digits = after_percent.get(..2).filter(|digits| !digits.contains(|digit: char| digit.is_ascii_lowercase()));
    match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
        None | Some(b'/' | b'\\' | 0..=0x1F | 0x7F | b'-' | b'.' | b'_' | b'~') => false,
        Some(byte) => !byte.is_ascii_alphanumeric(),
    }
}
