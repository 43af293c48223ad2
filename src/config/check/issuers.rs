//! Rules about issuers of JWTs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{file_exists, web_host};
use crate::config::problem::{Finding, KeyPath};
use crate::config::{Config, Issuer};

pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    let mut seen: BTreeMap<&str, KeyPath> = BTreeMap::new();
    for (at, issuer) in all(config) {
        one(&at, issuer, found);
        if let Some(first) = seen.get(issuer.issuer.as_str()) {
            let mut finding = Finding::new(at.key("issuer"), format!("is the issuer of {first} too"));
            finding.rests_on.push(first.key("issuer"));
            found.push(finding);
        } else {
            seen.insert(&issuer.issuer, at);
        }
    }
}

/// Returns every issuer with its place in the configuration.
pub(in crate::config) fn all(config: &Config) -> impl Iterator<Item = (KeyPath, &Issuer)> {
    let clerk = config.clerk.iter().map(|issuer| (KeyPath::of("clerk"), issuer));
    clerk.chain(config.issuers.iter().map(|(name, issuer)| (KeyPath::of("issuers").key(name), issuer)))
}

fn one(at: &KeyPath, issuer: &Issuer, found: &mut Vec<Finding>) {
    let sources = [issuer.jwks_url.is_some(), issuer.jwks_file.is_some(), issuer.pem_file.is_some()];
    let count = sources.into_iter().filter(|set| *set).count();
    if count != 1 {
        let message = format!("needs exactly one of jwks_url, jwks_file and pem_file, and has {count}");
        found.push(Finding::about(at.clone(), &["jwks_url", "jwks_file", "pem_file"], message));
    }
    if web_host(&issuer.issuer).is_none() {
        found.push(Finding::new(at.key("issuer"), "must be a URL that begins with https:// or http://"));
    }
    if issuer.jwks_url.as_deref().is_some_and(|url| web_host(url).is_none()) {
        found.push(Finding::new(at.key("jwks_url"), "must be a URL that begins with https:// or http://"));
    }
    file_exists(at.key("jwks_file"), issuer.jwks_file.as_deref(), found);
    file_exists(at.key("pem_file"), issuer.pem_file.as_deref(), found);
    file_exists(at.key("ca"), issuer.ca.as_deref(), found);
    if issuer.ca.is_some() && !issuer.jwks_url.as_deref().is_some_and(|url| url.starts_with("https://")) {
        let mut finding = Finding::new(at.key("ca"), "needs a jwks_url that begins with https://");
        finding.rests_on.push(at.key("jwks_url"));
        found.push(finding);
    }
    if issuer.refetch_interval < Duration::from_secs(1) {
        // Tokens with made-up key ids provoke fetches: this is what bounds them.
        found.push(Finding::new(at.key("refetch_interval"), "must be at least 1s"));
    }
}
