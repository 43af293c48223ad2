//! From the first signal to the last byte.
//!
//! pingora would close the listener at once and then sleep a fixed time. In Kubernetes that loses
//! requests: endpoints take a moment to leave the load balancers. So: unready first, go on
//! accepting for `drain_delay` while every response ends its connection, then close the listener
//! and let what is under way finish, for at most `drain_timeout`. A second signal exits at once.
//! SIGUSR1 only begins: a pod's preStop hook sends it, and SIGTERM may come much later.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ExecutionPhase, ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::Mutex;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout};

use crate::api::admin::Health;
use crate::metrics::Metrics;
use crate::proxy::connection::session_watch::SessionWatch;

/// How often the drain looks whether everything has ended.
const LOOK: Duration = Duration::from_millis(10);

/// How long nothing may be under way before the process believes it: a connection that was
/// accepted a moment ago has a request that has not been counted yet.
const SETTLE: Duration = Duration::from_millis(100);

/// The signals that end the process. They are caught from when this is made: one that comes before
/// the drain waits for it counts.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    begin: Signal,
}

/// What a signal asks for.
#[derive(PartialEq, Eq)]
enum DrainSignal {
    /// Take no more traffic, and go on serving.
    Begin,
    /// End.
    End,
}

/// Turns signals into an orderly end.
pub(super) struct Drain {
    pub(super) signals: Arc<Mutex<Signals>>,
    pub(super) delay: Duration,
    pub(super) streams: Arc<SessionWatch>,
    pub(super) health: Arc<Health>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) draining: Arc<AtomicBool>,
    /// Ends the process.
    pub(super) exit: Sender<()>,
}

impl Signals {
    /// Listens from now on; must be called within a runtime.
    pub(super) fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            begin: signal(SignalKind::user_defined1())?,
        })
    }

    async fn next(&mut self) -> DrainSignal {
        tokio::select! {
            _ = self.terminate.recv() => DrainSignal::End,
            _ = self.interrupt.recv() => DrainSignal::End,
            _ = self.begin.recv() => DrainSignal::Begin,
        }
    }

    async fn end(&mut self) {
        while self.next().await != DrainSignal::End {}
    }
}

impl Drain {
    /// Returns when the drain began: now.
    fn begin(&self) -> Instant {
        self.draining.store(true, Ordering::SeqCst);
        self.health.mark_draining();
        self.metrics.draining.set(1);
        tracing::info!(under_way = self.streams.exchanges(), "Draining");
        Instant::now()
    }

    /// Waits for the signal that ends the process; returns when the drain began.
    async fn ended(&self, signals: &mut Signals) -> Instant {
        let mut began = None;
        loop {
            let asked = signals.next().await;
            let began = *began.get_or_insert_with(|| self.begin());
            if asked == DrainSignal::End {
                return began;
            }
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Drain {
    async fn recv(&self) -> ShutdownSignal {
        let mut signals = self.signals.clone().lock_owned().await;
        let began = self.ended(&mut signals).await;
        tokio::select! {
            () = tokio::time::sleep_until(began + self.delay) => {}
            () = signals.end() => {
                // Not by pingora's fast way: it takes the runtime from under its own listener, which
                // then fails to accept for ever and may never let go of its thread.
                let _ = self.exit.send(());
                return std::future::pending().await;
            }
        }
        // pingora asks only once, and what is under way may take long.
        let exit = self.exit.clone();
        tokio::spawn(async move {
            signals.end().await;
            // The receiver is gone only if everything has ended already.
            let _ = exit.send(());
        });
        ShutdownSignal::GracefulTerminate
    }
}

/// Waits until the listener is closed.
pub(super) async fn listener_closed(mut phases: Receiver<ExecutionPhase>) {
    loop {
        match phases.recv().await {
            Ok(ExecutionPhase::ShutdownGracePeriod) => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Waits until the listener is closed and nothing is under way any more, for at most `at_most`.
pub(super) async fn idle(phases: Receiver<ExecutionPhase>, streams: Arc<SessionWatch>, at_most: Duration) {
    listener_closed(phases).await;
    let settled = async {
        let mut quiet = Duration::ZERO;
        while quiet < SETTLE {
            tokio::time::sleep(LOOK).await;
            quiet = if streams.exchanges() == 0 { quiet + LOOK } else { Duration::ZERO };
        }
    };
    // Out of time: what is still under way is cut.
    let _ = timeout(at_most, settled).await;
}
