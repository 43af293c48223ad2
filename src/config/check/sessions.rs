//! Rules about tokens, the session store, cache and revocation.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{duration_in, file_exists};
use crate::config::Sessions;
use crate::config::problem::{Finding, KeyPath};
use crate::config::sessions::{Redis, Revocation, StoreUrl, Token};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
const HEARTBEAT_MIN: Duration = Duration::from_millis(50);
/// The HMAC-SHA256 key that `model::TokenKey` takes.
const TOKEN_KEY_BYTES_MIN: usize = 32;

pub(super) fn check(sessions: &Sessions, found: &mut Vec<Finding>) {
    duration_in("sessions.ttl", sessions.ttl, SECOND..=HOUR * 24 * 30, found);
    if sessions.max_per_principal == 0 {
        found.push(Finding::new(KeyPath::of("sessions.max_per_principal"), "must be at least 1"));
    }
    duration_in("sessions.max_stale", sessions.max_stale, Duration::ZERO..=HOUR, found);
    duration_in("sessions.cache.max_ttl", sessions.cache.max_ttl, Duration::ZERO..=HOUR, found);
    token(&sessions.token, found);
    let in_redis = !matches!(sessions.store, StoreUrl::Sqlite(_));
    if in_redis && sessions.token.keys.is_empty() {
        let message = "is empty: several replicas need a configured key; `doorward keys generate` makes one";
        found.push(Finding::new(KeyPath::of("sessions.token.keys"), message).resting_on("sessions.store"));
    }
    revocation(&sessions.revocation, found);
    redis(&sessions.redis, &sessions.store, found);
}

/// Returns whether the store is reached over TLS.
pub(in crate::config) fn speaks_tls(store: &StoreUrl) -> bool {
    match store {
        StoreUrl::Sqlite(_) => false,
        StoreUrl::Redis(url) => url.expose().starts_with("rediss://"),
        StoreUrl::Sentinel { tls, .. } => *tls,
        StoreUrl::Cluster(nodes) => nodes.iter().any(|node| node.expose().starts_with("rediss://")),
    }
}

fn token(token: &Token, found: &mut Vec<Finding>) {
    let in_prefix = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if !(1..=16).contains(&token.prefix.len()) || !token.prefix.bytes().all(in_prefix) {
        let expected = "must be 1 to 16 letters, digits, - or _";
        found.push(Finding::new(KeyPath::of("sessions.token.prefix"), expected));
    }
    let mut ids = BTreeMap::new();
    for (index, key) in token.keys.iter().enumerate() {
        let at = KeyPath::of("sessions.token.keys").index(index);
        if let Some(earlier) = ids.insert(key.id, at.clone()) {
            let mut finding = Finding::new(at.key("id"), "is the id of an earlier key too");
            finding.rests_on.push(earlier.key("id"));
            found.push(finding);
        }
        let length = key.secret.expose().len();
        if length < TOKEN_KEY_BYTES_MIN {
            let message = format!("has {length} bytes and needs at least {TOKEN_KEY_BYTES_MIN}");
            found.push(Finding::new(at.key("secret"), message));
        }
    }
}

fn revocation(revocation: &Revocation, found: &mut Vec<Finding>) {
    duration_in("sessions.revocation.heartbeat", revocation.heartbeat, HEARTBEAT_MIN..=MINUTE, found);
    duration_in("sessions.revocation.lease", revocation.lease, HEARTBEAT_MIN..=MINUTE, found);
    if revocation.lease <= revocation.heartbeat {
        let heartbeat = humantime::format_duration(revocation.heartbeat);
        let message = format!("must be longer than sessions.revocation.heartbeat ({heartbeat})");
        let finding = Finding::new(KeyPath::of("sessions.revocation.lease"), message);
        found.push(finding.resting_on("sessions.revocation.heartbeat"));
    }
}

fn redis(redis: &Redis, store: &StoreUrl, found: &mut Vec<Finding>) {
    let timeouts = Duration::from_millis(1)..=MINUTE;
    duration_in("sessions.redis.timeout", redis.timeout, timeouts.clone(), found);
    duration_in("sessions.redis.connect_timeout", redis.connect_timeout, timeouts, found);
    let in_prefix = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte);
    if !(1..=64).contains(&redis.key_prefix.len()) || !redis.key_prefix.bytes().all(in_prefix) {
        let expected = "must be 1 to 64 letters, digits, -, _, . or :";
        found.push(Finding::new(KeyPath::of("sessions.redis.key_prefix"), expected));
    }
    for (key, file) in [
        ("sessions.redis.ca", &redis.ca),
        ("sessions.redis.client_cert", &redis.client_cert),
        ("sessions.redis.client_key", &redis.client_key),
    ] {
        file_exists(KeyPath::of(key), file.as_deref(), found);
        // An operator who names an authority believes that the connection is encrypted.
        if file.is_some() && !matches!(store, StoreUrl::Sqlite(_)) && !speaks_tls(store) {
            let finding = Finding::new(KeyPath::of(key), "needs a sessions.store that begins with rediss");
            found.push(finding.resting_on("sessions.store"));
        }
    }
    let (missing, present) = match (&redis.client_cert, &redis.client_key) {
        (None, Some(_)) => ("client_cert", "client_key"),
        (Some(_), None) => ("client_key", "client_cert"),
        (None, None) | (Some(_), Some(_)) => return,
    };
    let finding = Finding::new(KeyPath::of("sessions.redis").key(present), format!("needs {missing} beside it"));
    found.push(finding.resting_on(&format!("sessions.redis.{missing}")));
}
