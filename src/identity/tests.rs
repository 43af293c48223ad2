//! Every rule of contracts §11 against real signatures, real files and a real key server.

pub(crate) mod idp;

mod fetching;
mod files;
mod names;
mod rules;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use serde_json::{Value, json};

use self::idp::{Idp, SigningKey};
use super::{IdentityError, ProviderError, Providers, Reason};
use crate::config::{Config, Issuer};
use crate::metrics::Metrics;
use crate::model::Identity;
use crate::time::{Clock, ManualClock, Timestamp};

const START: Timestamp = Timestamp(1_767_225_600_000);
const ISSUER: &str = "https://clerk.example.com";
const KID: &str = "ins_1";

static KEY: LazyLock<SigningKey> = LazyLock::new(SigningKey::generate);
static OTHER_KEY: LazyLock<SigningKey> = LazyLock::new(SigningKey::generate);

/// Providers that run, and what they depend on.
struct Bench {
    providers: Arc<Providers>,
    clock: Arc<ManualClock>,
    metrics: Metrics,
}

/// A file that is gone when the test is over.
struct TempFile(PathBuf);

impl Bench {
    /// Starts providers and does not wait for their keys.
    fn start(clerk: Option<Issuer>, issuers: &[(&str, Issuer)]) -> Self {
        let clock = Arc::new(ManualClock::at(START));
        let metrics = Metrics::new().unwrap();
        let providers = Arc::new(providers(clerk, issuers, &clock, &metrics).unwrap());
        tokio::spawn(providers.clone().run());
        Self { providers, clock, metrics }
    }

    /// Starts one provider that asks `idp`, and waits for its keys.
    async fn with_keys_of(idp: &Idp) -> Self {
        let bench = Self::start(Some(rules_at(idp)), &[]);
        eventually("keys are loaded", || bench.providers.loaded()).await;
        bench
    }

    async fn verify(&self, jwt: &str) -> Result<Identity, IdentityError> {
        self.providers.verify(jwt).await
    }

    /// Returns a JWT that is good at this moment.
    fn jwt(&self, key: &SigningKey, kid: &str) -> String {
        key.sign(&header(kid), &claims_at(self.clock.now()))
    }

    fn metric(&self, line: &str) -> bool {
        self.metrics.render().unwrap().lines().any(|found| found == line)
    }
}

impl TempFile {
    fn new(content: &str) -> Self {
        let path = std::env::temp_dir().join(format!("doorward-test-{}", uuid::Uuid::new_v4()));
        std::fs::write(&path, content).unwrap();
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, content: &str) {
        std::fs::write(&self.0, content).unwrap();
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn providers(
    clerk: Option<Issuer>,
    issuers: &[(&str, Issuer)],
    clock: &Arc<ManualClock>,
    metrics: &Metrics,
) -> Result<Providers, ProviderError> {
    // Installed before, by another test: just as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut config = config(clerk, issuers);
    config.lifecycle.reload_interval = Duration::from_millis(5);
    let clock: Arc<dyn Clock> = clock.clone();
    Providers::new(&config, &clock, metrics)
}

fn config(clerk: Option<Issuer>, issuers: &[(&str, Issuer)]) -> Config {
    let mut config = Config::load(&[], &BTreeMap::new()).unwrap().config;
    config.clerk = clerk;
    config.issuers = issuers.iter().map(|(name, rules)| ((*name).to_owned(), rules.clone())).collect();
    config
}

fn rules() -> Issuer {
    Issuer {
        issuer: ISSUER.to_owned(),
        jwks_url: None,
        jwks_file: None,
        pem_file: None,
        ca: None,
        authorized_parties: Vec::new(),
        allow_missing_azp: false,
        audiences: Vec::new(),
        accept_template_tokens: false,
        allow_impersonation: false,
        single_use: false,
        subject_prefix: "user_".to_owned(),
        refetch_interval: Duration::from_secs(10),
        user_id: None,
        tenant: None,
        organizations: BTreeMap::new(),
        roles: BTreeMap::new(),
        same_as: None,
    }
}

fn rules_at(idp: &Idp) -> Issuer {
    Issuer { jwks_url: Some(idp.jwks_url.clone()), ..rules() }
}

fn header(kid: &str) -> Value {
    json!({"alg": "RS256", "typ": "JWT", "cat": "cl_B7d4PD111AAA", "kid": kid})
}

fn claims_at(now: Timestamp) -> Value {
    let now = now.unix_seconds();
    json!({
        "iss": ISSUER, "sub": "user_2b", "sid": "sess_2b", "azp": "https://app.example.com",
        "iat": now - 10, "nbf": now - 20, "exp": now + 50,
        "v": 2, "jti": "a1b2", "sts": "active", "fva": [1, -1],
    })
}

fn invalid(reason: Reason) -> Result<(), IdentityError> {
    Err(IdentityError::Invalid(reason))
}

/// Waits for an event, not for time.
async fn eventually(what: &str, happened: impl Fn() -> bool) {
    let poll = async {
        while !happened() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), poll).await.unwrap_or_else(|_| panic!("never: {what}"));
}
