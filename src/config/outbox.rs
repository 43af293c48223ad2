//! How what must happen after a commit is delivered.

use std::path::PathBuf;
use std::time::Duration;

use super::read::{FromKeys, SectionKeys};
use super::secret_digest::SecretDigest;
use crate::secret::Secret;

/// How what must happen after a commit is delivered.
#[derive(Clone, Debug, PartialEq)]
pub struct Outbox {
    /// Who learns that a guest became a user.
    pub alias: Alias,
    /// How many events go into one request.
    pub batch: u32,
    /// How often to look for events that other replicas left behind.
    pub poll_interval: Duration,
    /// For how long an event belongs to the replica that is delivering it.
    pub lease: Duration,
    /// What follows a failure.
    pub retry: Retry,
}

impl FromKeys for Outbox {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            alias: keys.take("alias"),
            batch: keys.take("batch"),
            poll_interval: keys.take("poll_interval"),
            lease: keys.take("lease"),
            retry: keys.take("retry"),
        }
    }
}

/// A PostHog-compatible sink.
#[derive(Clone, Debug, PartialEq)]
pub struct Alias {
    /// `http(s)://host`, to which `/batch/` is added. No alias event is written while it is absent.
    pub url: Option<String>,
    /// The project's key; goes into the body of each request.
    pub api_key: Option<Secret>,
    /// PEM file with the authorities to trust for `https`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// How long a request may take, connection and answer included.
    pub timeout: Duration,
}

impl Outbox {
    /// Returns what changes only with a restart, and the sink's key.
    pub(super) fn apart(self) -> (Self, SecretDigest) {
        let Self { alias, batch, poll_interval, lease, retry } = self;
        let Alias { url, api_key, ca, timeout } = alias;
        let secret = SecretDigest::of_secret("outbox.alias.api_key", api_key.as_ref());
        let alias = Alias { url, api_key: None, ca, timeout };
        (Self { alias, batch, poll_interval, lease, retry }, secret)
    }
}

impl FromKeys for Alias {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            url: keys.take("url"),
            api_key: keys.take("api_key"),
            ca: keys.take("ca"),
            timeout: keys.take("timeout"),
        }
    }
}

/// What follows a failure: a random wait of at most `first`, then twice that, and so on up to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// The longest first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
    /// After how many attempts an event is dead.
    pub attempts_max: u32,
}

impl FromKeys for Retry {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { first: keys.take("first"), max: keys.take("max"), attempts_max: keys.take("attempts_max") }
    }
}
