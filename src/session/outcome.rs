//! What the service answers.

use std::sync::Arc;

use tokio::time::Instant;

use crate::model::Session;

/// Where an accepted session came from: the label of the guard's duration histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The in-process cache.
    Cache,
    /// The store.
    Store,
    /// The in-process cache, past the lease (`on_unavailable: serve_stale`).
    Stale,
}

/// When the store was asked by the request that waited for its answer: for traces.
#[derive(Clone, Copy, Debug)]
pub struct StoreCall {
    /// The question.
    pub began: Instant,
    /// The answer, or the end of waiting for one.
    pub ended: Instant,
    /// Whether there was an answer.
    pub answered: bool,
}

/// A token that leads to a live session.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The record.
    pub session: Arc<Session>,
    /// Where it came from.
    pub source: Source,
}

impl Source {
    /// Returns the stable name for metrics, logs and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cache => "cache",
            Self::Store => "store",
            Self::Stale => "stale",
        }
    }
}

impl StoreCall {
    /// Returns how it went with a question that began at `began` and is over now.
    pub fn since(began: Instant, answered: bool) -> Self {
        Self { began, ended: Instant::now(), answered }
    }
}

/// Why a token was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not one of our tokens by shape.
    #[error("Invalid token: malformed")]
    Malformed,
    /// The shape is right, but we never made it.
    #[error("Invalid token: unknown session")]
    Unknown,
    /// Its time has passed.
    #[error("Token expired")]
    Expired,
    /// It was ended before its time.
    #[error("Invalid token: session revoked")]
    Revoked,
    /// It cannot be known now.
    #[error("Session store unavailable")]
    Unavailable,
}

/// Why no session was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The principal's sessions were all ended after this identity was authenticated.
    #[error("Invalid token: session revoked")]
    Superseded,
    /// This proof was used before and its provider is configured for single use.
    #[error("Invalid token: already used")]
    AlreadyUsed,
    /// The store cannot be written.
    #[error("Session store unavailable")]
    Unavailable,
}
