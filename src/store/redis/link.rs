//! A live pair of connections, and what each answer says about it.
//!
//! Commands on the request path never wait for a connection: they have one or are refused. Every
//! command has a deadline of its own, and a cap bounds how many are under way. A broken connection
//! ends the generation at once, three commands in a row without an answer do too.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind};
use tokio::sync::Semaphore;

use super::client::Connection;
use super::subscriber::Subscriber;
use crate::metrics::Metrics;
use crate::store::StoreError;
use crate::store::measured::StoreMetrics;
use crate::store::revocations::Resync;

const IN_FLIGHT_MAX: usize = 1024;
const FAILURES_MAX: u32 = 3;

const OPERATIONS: [StoreOp; 9] = [
    StoreOp::Create,
    StoreOp::Find,
    StoreOp::Touch,
    StoreOp::Rotate,
    StoreOp::End,
    StoreOp::EndPrincipal,
    StoreOp::List,
    StoreOp::Claim,
    StoreOp::Heartbeat,
];
const RESYNCS: [Resync; 5] = [Resync::Connect, Resync::Disconnected, Resync::Heartbeat, Resync::Sequence, Resync::Role];
const RESULTS: [&str; 4] = ["ok", "error", "timeout", "refused"];

/// A logical operation: a metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreOp {
    Create,
    Find,
    Touch,
    Rotate,
    End,
    EndPrincipal,
    List,
    Claim,
    Heartbeat,
}

/// A generation's connections.
pub(super) struct Link {
    /// The generation whose reads it may carry.
    pub(super) generation: u64,
    /// Carries reads: the subscribed connection, except in a cluster.
    pub(super) read: Connected,
    /// Carries writes and scripts.
    pub(super) write: Connected,
    /// The subscribed connection.
    pub(super) subscription: MultiplexedConnection,
    /// What it received.
    pub(super) subscriber: Arc<Subscriber>,
}

/// One connection and how it has been doing.
pub(super) struct Connected {
    connection: Connection,
    failures: AtomicU32,
}

/// Sends commands under a deadline and a cap.
pub(super) struct CommandSender {
    deadline: Duration,
    in_flight: Semaphore,
    measured: StoreMetrics,
}

/// Why a command was not answered.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cause {
    #[error("not connected")]
    NotConnected,
    #[error("too many commands under way")]
    Overloaded,
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("a session of this id exists")]
    Taken,
    #[error("confirmed by {0} replicas only")]
    Replicas(u32),
    #[error("an answer of unknown form")]
    Answer,
    #[error(transparent)]
    Redis(#[from] RedisError),
}

impl Connected {
    /// Returns the state of a fresh connection.
    pub(super) fn new(connection: Connection) -> Self {
        Self { connection, failures: AtomicU32::new(0) }
    }

    /// Returns a handle on the connection.
    pub(super) fn connection(&self) -> Connection {
        self.connection.clone()
    }
}

impl CommandSender {
    /// Returns a sender whose commands take `deadline` at most.
    pub(super) fn new(deadline: Duration, metrics: Arc<Metrics>) -> Self {
        for reason in RESYNCS {
            metrics.invalidation_resyncs.with_label_values(&[reason.as_str()]);
        }
        let measured = StoreMetrics::new("redis", OPERATIONS.map(StoreOp::as_str), &RESULTS, metrics);
        Self { deadline, in_flight: Semaphore::new(IN_FLIGHT_MAX), measured }
    }

    /// Returns the error of an operation that was not even tried.
    pub(super) fn refuse(&self, op: StoreOp, cause: Cause) -> StoreError {
        self.count(op, "refused");
        cause.into()
    }

    /// Returns the answer to `command`, which runs on that connection.
    pub(super) async fn send<T>(
        &self,
        op: StoreOp,
        link: &Link,
        connected: &Connected,
        command: impl Future<Output = RedisResult<T>> + Send,
    ) -> Result<T, StoreError> {
        let Ok(_permit) = self.in_flight.try_acquire() else { return Err(self.refuse(op, Cause::Overloaded)) };
        let timer = self.measured.timer(op.as_str());
        let answer = tokio::time::timeout(self.deadline, command).await;
        timer.observe_duration();
        match answer {
            Ok(Ok(answer)) => {
                connected.failures.store(0, Ordering::Relaxed);
                self.count(op, "ok");
                Ok(answer)
            }
            Ok(Err(error)) => {
                self.count(op, if error.is_timeout() { "timeout" } else { "error" });
                judge(link, connected, &error);
                Err(Cause::Redis(error).into())
            }
            Err(_) => {
                self.count(op, "timeout");
                unanswered(link, connected);
                Err(Cause::Timeout(self.deadline).into())
            }
        }
    }

    fn count(&self, op: StoreOp, result: &str) {
        self.measured.count(op.as_str(), result);
    }

    /// Returns the store's own series.
    pub(super) fn measured(&self) -> &StoreMetrics {
        &self.measured
    }
}

impl StoreOp {
    /// Returns the metric label.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Find => "find",
            Self::Touch => "touch",
            Self::Rotate => "rotate",
            Self::End => "end",
            Self::EndPrincipal => "end_principal",
            Self::List => "list",
            Self::Claim => "claim",
            Self::Heartbeat => "heartbeat",
        }
    }
}

impl From<Cause> for StoreError {
    fn from(cause: Cause) -> Self {
        Self::Unavailable(cause.into())
    }
}

// An error that the server sent proves that the connection works.
fn judge(link: &Link, connected: &Connected, error: &RedisError) {
    if error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly) {
        link.subscriber.lose(Resync::Role);
    } else if error.is_timeout() {
        unanswered(link, connected);
    } else if error.is_unrecoverable_error() {
        link.subscriber.lose(Resync::Disconnected);
    } else {
        connected.failures.store(0, Ordering::Relaxed);
    }
}

fn unanswered(link: &Link, connected: &Connected) {
    if connected.failures.fetch_add(1, Ordering::Relaxed) + 1 >= FAILURES_MAX {
        link.subscriber.lose(Resync::Heartbeat);
    }
}
