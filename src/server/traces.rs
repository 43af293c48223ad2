//! The traces of a running server: sent until the very end of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::worker::Worker;
use super::{ServeError, Shared, serve_error};
use crate::config::Config;
use crate::telemetry::traces::Tracer;

/// How long sending what is still waiting may take.
const FINISH: Duration = Duration::from_secs(2);

/// Tracing that can be ended; empty when it is off.
pub(super) struct Tracing(Option<Running>);

struct Running {
    tracer: Arc<Tracer>,
    worker: Worker,
}

impl Tracing {
    /// Starts to send spans if an endpoint is configured.
    pub(super) fn start(background: &Handle, config: &Config, shared: &Shared) -> Result<Self, ServeError> {
        let (wanted, clock) = (&config.telemetry.traces, shared.clock.clone());
        let tracer = Tracer::new(wanted, clock, shared.random.as_ref(), &shared.metrics);
        let tracer = tracer.map_err(|error| serve_error("cannot set up traces", &error))?;
        Ok(Self(tracer.map(|(tracer, exporter)| {
            let worker = Worker::start(background, FINISH, |stopped| exporter.run(stopped));
            Running { tracer, worker }
        })))
    }

    /// Returns what records exchanges, if anything does.
    pub(super) fn tracer(&self) -> Option<Arc<Tracer>> {
        self.0.as_ref().map(|running| running.tracer.clone())
    }

    /// Sends what is still waiting, within bounds.
    pub(super) async fn end(self) {
        let Some(running) = self.0 else { return };
        if !running.worker.end().await {
            tracing::warn!("The collector is slow; the last spans are dropped");
        }
    }
}
