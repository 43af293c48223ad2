//! How what must happen after a commit is delivered.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::duration;
use super::sessions::secret_option;
use crate::secret::Secret;

/// How what must happen after a commit is delivered.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    /// Who learns that a guest became a user.
    pub alias: Alias,
    /// How many events go into one request.
    pub batch: u32,
    /// How often to look for events that other replicas left behind.
    #[serde(deserialize_with = "duration::deserialize")]
    pub poll_interval: Duration,
    /// For how long an event belongs to the replica that is delivering it.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease: Duration,
    /// What follows a failure.
    pub retry: Retry,
}

/// A PostHog-compatible sink.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alias {
    /// `http(s)://host`, to which `/batch/` is added. No alias event is written while it is absent.
    pub url: Option<String>,
    /// The project's key; goes into the body of each request.
    #[serde(deserialize_with = "secret_option")]
    pub api_key: Option<Secret>,
    /// PEM file with the authorities to trust for `https`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// How long a request may take, connection and answer included.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
}

/// What follows a failure: a random wait of at most `first`, then twice that, and so on up to `max`.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// The longest first wait.
    #[serde(deserialize_with = "duration::deserialize")]
    pub first: Duration,
    /// The longest wait.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max: Duration,
    /// After how many attempts an event is dead.
    pub attempts_max: u32,
}
