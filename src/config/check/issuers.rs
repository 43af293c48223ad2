//! Rules about issuers of JWTs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{file_exists, web_host};
use crate::config::issuer::UserId;
use crate::config::problem::{Finding, KeyPath};
use crate::config::{Config, Issuer};
use crate::model::ProviderId;

/// `org` begins the roles of Clerk's organisations, `device` is who vouches for guests, `anon`
/// begins their ids.
const NAMES_TAKEN: [&str; 4] = ["clerk", "org", "device", "anon"];
/// The ids that the directory gives out are UUIDs of version 7: for centuries they begin with this.
const LOCAL_ID_PREFIX: &str = "0";

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
    names(config, found);
    user_ids(config, found);
}

/// What an issuer may name, and what it is called itself.
fn names(config: &Config, found: &mut Vec<Finding>) {
    if let Some(clerk) = &config.clerk {
        for key in naming_keys(clerk) {
            let message = "is for issuers: the section clerk names users, tenants and roles as they stand";
            found.push(Finding::new(KeyPath::of("clerk").key(key), message));
        }
    }
    for (name, issuer) in &config.issuers {
        let at = KeyPath::of("issuers").key(name);
        match name.parse::<ProviderId>() {
            Err(problem) => found.push(Finding::about(at.clone(), &[], format!("the name {problem}"))),
            Ok(_) if NAMES_TAKEN.contains(&name.as_str()) => {
                found.push(Finding::about(at.clone(), &[], "the name is taken; choose another"));
            }
            Ok(provider) if issuer.same_as.is_none() => {
                let default = config.tenants.default.as_str();
                if provider.owns(default) && issuer.tenant.as_ref().is_none_or(|tenant| tenant.as_str() != default) {
                    let message = format!(
                        "is a tenant of issuers.{name}: choose another, or say issuers.{name}.tenant: {default}"
                    );
                    found.push(Finding::new(KeyPath::of("tenants.default"), message));
                }
            }
            Ok(_) => {}
        }
        same_as(config, name, issuer, found);
    }
}

fn same_as(config: &Config, name: &str, issuer: &Issuer, found: &mut Vec<Finding>) {
    let Some(other) = issuer.same_as.as_deref() else { return };
    let at = KeyPath::of("issuers").key(name);
    let exists = match other {
        "clerk" => config.clerk.is_some(),
        other => other != name && config.issuers.get(other).is_some_and(|other| other.same_as.is_none()),
    };
    if !exists {
        let message = "must be clerk, or another entry of issuers that has no same_as itself";
        let target = if other == "clerk" { KeyPath::of("clerk") } else { KeyPath::of("issuers").key(other) };
        let mut finding = Finding::new(at.key("same_as"), message);
        finding.rests_on.push(target);
        found.push(finding);
    }
    for key in naming_keys(issuer).into_iter().filter(|key| *key != "same_as") {
        found.push(Finding::new(at.key(key), format!("does nothing beside same_as: what {other} says holds")));
    }
}

/// Returns which of the keys that only `issuers` may have are set.
fn naming_keys(issuer: &Issuer) -> Vec<&'static str> {
    let set = [
        ("user_id", issuer.user_id.is_some()),
        ("tenant", issuer.tenant.is_some()),
        ("organizations", !issuer.organizations.is_empty()),
        ("roles", !issuer.roles.is_empty()),
        ("same_as", issuer.same_as.is_some()),
    ];
    set.into_iter().filter_map(|(key, is_set)| is_set.then_some(key)).collect()
}

/// No id of one provider's user may be an id of another's.
fn user_ids(config: &Config, found: &mut Vec<Finding>) {
    let own = || config.issuers.iter().filter(|(_, issuer)| issuer.same_as.is_none());
    let is_local = |issuer: &Issuer| issuer.user_id != Some(UserId::Subject);
    let locals: Vec<_> = own().filter(|(_, issuer)| is_local(issuer)).map(|(name, _)| name).collect();
    // Those whose users are called by `sub`, with what it begins with.
    let clerk = config.clerk.iter().map(|clerk| (KeyPath::of("clerk"), clerk));
    let listed = own().filter(|(_, issuer)| !is_local(issuer));
    let verbatim = clerk.chain(listed.map(|(name, issuer)| (KeyPath::of("issuers").key(name), issuer)));
    let mut seen: Vec<(KeyPath, &str)> = Vec::new();
    for (at, issuer) in verbatim {
        let prefix = issuer.subject_prefix.as_str();
        let overlaps = |other: &str| prefix.starts_with(other) || other.starts_with(prefix);
        let mut conflict = |message: String, other: Option<KeyPath>| {
            let mut finding = Finding::new(at.key("subject_prefix"), message);
            finding.rests_on.extend(other);
            found.push(finding);
        };
        if let Some((other, _)) = seen.iter().find(|(_, other)| overlaps(other)) {
            let message =
                format!("lets it call its users what {other} calls others; neither may begin with the other's");
            conflict(message, Some(other.key("subject_prefix")));
        } else if let Some(name) = locals.first().filter(|_| overlaps(LOCAL_ID_PREFIX)) {
            let message = format!("lets it call its users what the directory calls those of issuers.{name}");
            conflict(message, Some(KeyPath::of("issuers").key(name).key("user_id")));
        }
        seen.push((at, prefix));
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
