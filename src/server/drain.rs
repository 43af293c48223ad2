//! From the first signal to the last byte.
//!
//! pingora would close the listener at once and then sleep a fixed time. In Kubernetes that loses
//! requests: endpoints take a moment to leave the load balancers. So: unready first, go on
//! accepting for `drain_delay` while every response ends its connection, then close the listener
//! and let what is under way finish, for at most `drain_timeout`. A second signal exits at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::api::admin::Health;
use crate::config::Lifecycle;
use crate::metrics::Metrics;
use crate::proxy::streams::Streams;

/// How often the drain looks whether everything has ended.
const LOOK: Duration = Duration::from_millis(10);

/// Turns signals into an orderly end.
pub(super) struct Drain {
    delay: Duration,
    at_most: Duration,
    streams: Arc<Streams>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    draining: Arc<AtomicBool>,
}

impl Drain {
    pub(super) fn new(
        lifecycle: &Lifecycle,
        streams: Arc<Streams>,
        health: Arc<Health>,
        metrics: Arc<Metrics>,
        draining: Arc<AtomicBool>,
    ) -> Self {
        Self { delay: lifecycle.drain_delay, at_most: lifecycle.drain_timeout, streams, health, metrics, draining }
    }

    async fn drain(&self) {
        self.draining.store(true, Ordering::SeqCst);
        self.health.mark_draining();
        self.metrics.draining.set(1);
        tracing::info!(under_way = self.streams.exchanges(), "Draining");
        tokio::time::sleep(self.delay).await;
    }
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
        else {
            tracing::error!("Cannot listen for signals");
            return std::future::pending().await;
        };
        either(&mut terminate, &mut interrupt).await;
        tokio::select! {
            () = self.drain() => {}
            () = either(&mut terminate, &mut interrupt) => return ShutdownSignal::FastShutdown,
        }
        ShutdownSignal::GracefulTerminate
    }
}

/// Waits until no exchange is under way, for at most `at_most`; `true` if none is.
pub(super) async fn idle(streams: &Streams, at_most: Duration) -> bool {
    let idle = async {
        while streams.exchanges() > 0 {
            tokio::time::sleep(LOOK).await;
        }
    };
    timeout(at_most, idle).await.is_ok()
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
