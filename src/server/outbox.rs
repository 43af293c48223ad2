//! The outbox of a running server: delivered until the very end of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::worker::Worker;
use super::{ServeError, Shared, serve_error};
use crate::config::Config;
use crate::directory::Directory;
use crate::outbox::{OutboxLanes, OutboxSetup};
use crate::secret::Rotating;
use crate::session::Sessions;

/// How long a delivery under way may take to finish; one that is cut off happens again.
const FINISH: Duration = Duration::from_secs(2);

/// The outbox under delivery, until it is ended.
pub(super) struct OutboxDelivery {
    /// The key of the sink, if there is one.
    pub(super) api_key: Option<Rotating>,
    worker: Worker,
}

impl OutboxDelivery {
    /// Starts to deliver.
    pub(super) fn start(
        background: &Handle,
        config: &Config,
        directory: &Arc<Directory>,
        sessions: &Arc<Sessions>,
        shared: &Shared,
    ) -> Result<Self, ServeError> {
        let outbox = OutboxLanes::new(
            &config.outbox,
            OutboxSetup {
                directory: directory.clone(),
                sessions: sessions.clone(),
                clock: shared.clock.clone(),
                random: shared.random.clone(),
                metrics: shared.metrics.clone(),
            },
        );
        let outbox = outbox.map_err(|error| serve_error("cannot set up the outbox", &error))?;
        let api_key = outbox.api_key();
        Ok(Self { api_key, worker: Worker::start(background, FINISH, |stopped| outbox.run(stopped)) })
    }

    /// Lets what is under way finish, within bounds.
    pub(super) async fn end(self) {
        if !self.worker.end().await {
            tracing::warn!("A delivery was cut off; it is made again after the next start");
        }
    }
}
