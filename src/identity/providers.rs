//! The configured issuers, as one.
//!
//! What a JWT says of its issuer only chooses whose keys and rules it must pass; it never leads
//! to an address.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

use super::clerk::Clerk;
use super::http::KeySetEndpoint;
use super::jwks::{KeyCache, KeySource};
use super::jws::Jws;
use super::namespace::Namespace;
use super::{IdentityError, Reason};
use crate::config::{Config, Issuer};
use crate::metrics::Metrics;
use crate::model::{Identity, ProviderId};
use crate::telemetry::with_causes;
use crate::time::Clock;

/// Loads that failed are tried again after a second at the earliest: look no less often.
const TICK_MAX: Duration = Duration::from_secs(1);
const TICK_MIN: Duration = Duration::from_millis(1);

/// Every issuer whose JWTs may be exchanged for a session.
pub struct Providers {
    issuers: Vec<Clerk>,
    tick: Duration,
}

/// An issuer that cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
#[error("provider {provider}: {problem}")]
pub struct ProviderError {
    /// Its name in the configuration.
    pub provider: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Providers {
    /// Returns the configured issuers, without keys yet; [`run`](Self::run) loads them.
    ///
    /// Refuses two issuers with the same `iss`, a name that no provider can have, an issuer with no
    /// or several sources of keys, and a `jwks_url` or `ca` that cannot be used. Needs rustls'
    /// process-wide provider.
    pub fn new(config: &Config, clock: &Arc<dyn Clock>, metrics: &Metrics) -> Result<Self, ProviderError> {
        let section = ProviderId::CLERK;
        let clerk = config.clerk.iter().map(|rules| (section.as_str(), rules));
        let named = config.issuers.iter().map(|(name, rules)| (name.as_str(), rules));
        if config.issuers.contains_key(section.as_str()) {
            let problem = "the name belongs to the section \"clerk\"".to_owned();
            return Err(ProviderError { provider: section.to_string(), problem });
        }
        let mut issuers: Vec<Clerk> = Vec::new();
        for (name, rules) in clerk.chain(named) {
            let error = |problem: String| ProviderError { provider: name.to_owned(), problem };
            if issuers.iter().any(|other| other.rules.issuer == rules.issuer) {
                return Err(error(format!("another provider has the issuer {:?}", rules.issuer)));
            }
            let namespace = Namespace::of(config, name, rules).map_err(error)?;
            let source = source(rules).map_err(error)?;
            let keys = KeyCache::new(name.to_owned(), source, rules.refetch_interval, clock.clone(), metrics);
            issuers.push(Clerk { rules: rules.clone(), namespace, keys, clock: clock.clone() });
        }
        Ok(Self { issuers, tick: config.lifecycle.reload_interval.clamp(TICK_MIN, TICK_MAX) })
    }

    /// Returns the identity that a JWT proves (contracts §11.1, all rules but the last).
    pub async fn verify(&self, jwt: &str) -> Result<Identity, IdentityError> {
        let jws = Jws::parse(jwt)?;
        self.issuer_of(&jws)?.verify(&jws).await
    }

    /// Returns whether every issuer's keys were loaded at least once.
    pub fn loaded(&self) -> bool {
        self.issuers.iter().all(|issuer| issuer.keys.loaded())
    }

    /// Loads the keys and keeps them current; never returns.
    pub async fn run(self: Arc<Self>) {
        join_all(self.issuers.iter().map(|issuer| issuer.keys.run(self.tick))).await;
        // Without issuers there is nothing to do, which is no reason to end.
        std::future::pending::<()>().await;
    }

    // An only issuer is tried without a look at `iss`: the signature is judged first, as the rules
    // want it. Among several, an unknown `iss` leaves no key to judge with.
    fn issuer_of(&self, jws: &Jws<'_>) -> Result<&Clerk, Reason> {
        match self.issuers.as_slice() {
            [only] => Ok(only),
            several => {
                let claimed = jws.claimed_issuer();
                several.iter().find(|issuer| claimed == Some(&issuer.rules.issuer)).ok_or(Reason::IssuerMismatch)
            }
        }
    }
}

fn source(rules: &Issuer) -> Result<KeySource, String> {
    match (&rules.jwks_url, &rules.jwks_file, &rules.pem_file) {
        (Some(url), None, None) => {
            KeySetEndpoint::new(url, rules.ca.as_deref()).map(KeySource::Url).map_err(|error| with_causes(&error))
        }
        (None, Some(path), None) => Ok(KeySource::JwksFile(path.clone())),
        (None, None, Some(path)) => Ok(KeySource::PemFile(path.clone())),
        _ => Err("needs exactly one of jwks_url, jwks_file and pem_file".to_owned()),
    }
}
