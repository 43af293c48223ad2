//! Rules that types cannot hold: ranges, and what must agree between keys.
//!
//! A configuration that passes here can be served. What can be served but is probably not meant is in `risk`.

mod bootstrap;
mod forward_auth;
mod issuers;
mod network;
mod outbox;
mod rebind;
mod routes;
mod sessions;
mod surfaces;
mod telemetry;
mod webhooks;

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use super::Config;
use super::problem::{Finding, KeyPath};

pub(super) use issuers::all as all_issuers;
pub(super) use sessions::speaks_tls;

/// Returns everything that is wrong with a configuration that parsed.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    network::check(config, &mut found);
    forward_auth::check(config, &mut found);
    sessions::check(&config.sessions, &mut found);
    bootstrap::check(config, &mut found);
    issuers::check(config, &mut found);
    rebind::check(config, &mut found);
    routes::check(&config.routes, &mut found);
    surfaces::check(&config.surfaces, &mut found);
    outbox::check(config, &mut found);
    telemetry::check(&config.telemetry, &mut found);
    webhooks::check(config, &mut found);
    found
}

/// Finds a duration outside of `range`.
fn duration_in(key: &str, value: Duration, range: RangeInclusive<Duration>, found: &mut Vec<Finding>) {
    let (least, most) = (humantime::format_duration(*range.start()), humantime::format_duration(*range.end()));
    if value < *range.start() {
        found.push(Finding::new(KeyPath::of(key), format!("must be at least {least}")));
    } else if value > *range.end() {
        found.push(Finding::new(KeyPath::of(key), format!("must be at most {most}")));
    }
}

/// Finds the path of a file that is not there.
fn file_exists(key: KeyPath, path: Option<&Path>, found: &mut Vec<Finding>) {
    let Some(path) = path else { return };
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => found.push(Finding::new(key, "is not a file")),
        Err(error) => found.push(Finding::new(key, format!("is not a readable file: {error}"))),
    }
}

/// Returns whether `text` is an RFC 9110 token: a method, a cookie's name.
fn is_token(text: &str) -> bool {
    let in_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(in_token)
}

/// Returns the host of an `http://` or `https://` URL without userinfo.
fn web_host(text: &str) -> Option<String> {
    let uri: http::Uri = text.parse().ok()?;
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let web = matches!(uri.scheme_str(), Some("http" | "https"));
    (web && !authority.host().is_empty()).then(|| authority.host().to_owned())
}
