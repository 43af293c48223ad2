//! The traces of a running server: sent until the very end of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Shared, StartError, start_error};
use crate::config::Config;
use crate::telemetry::traces::Tracer;

/// How long sending what is still waiting may take.
const FINISH: Duration = Duration::from_secs(2);

/// Tracing that can be ended; empty when it is off.
pub(super) struct Tracing(Option<Running>);

struct Running {
    tracer: Arc<Tracer>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Tracing {
    /// Starts to send spans if an endpoint is configured.
    pub(super) fn start(background: &Runtime, config: &Config, shared: &Shared) -> Result<Self, StartError> {
        let (wanted, clock) = (&config.telemetry.traces, shared.clock.clone());
        let tracer = Tracer::new(wanted, clock, shared.random.as_ref(), &shared.metrics);
        let tracer = tracer.map_err(|error| start_error("cannot set up traces", &error))?;
        Ok(Self(tracer.map(|(tracer, exporter)| {
            let (stop, stopped) = watch::channel(false);
            Running { tracer, stop, task: background.spawn(exporter.run(stopped)) }
        })))
    }

    pub(super) fn tracer(&self) -> Option<Arc<Tracer>> {
        self.0.as_ref().map(|running| running.tracer.clone())
    }

    /// Sends what is still waiting, within bounds.
    pub(super) fn end(self, background: &Runtime) {
        let Some(running) = self.0 else { return };
        running.stop.send_replace(true);
        let finished = async { tokio::time::timeout(FINISH, running.task).await };
        if background.block_on(finished).is_err() {
            tracing::warn!("The collector is slow; the last spans are dropped");
        }
    }
}
