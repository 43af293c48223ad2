//! The outbox of a running server: delivered until the very end of it.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{Shared, StartError, start_error};
use crate::config::Config;
use crate::directory::Directory;
use crate::outbox::{Outbox, Setup};
use crate::secret::Rotating;
use crate::session::Sessions;

/// How long a delivery under way may take to finish; one that is cut off happens again.
const FINISH: Duration = Duration::from_secs(2);

/// A delivery that can be ended.
pub(super) struct Delivery {
    stop: watch::Sender<bool>,
    /// The key of the sink, if there is one.
    pub(super) api_key: Option<Rotating>,
    task: JoinHandle<()>,
}

impl Delivery {
    /// Starts to deliver.
    pub(super) fn start(
        background: &Runtime,
        config: &Config,
        directory: &Arc<Directory>,
        sessions: &Arc<Sessions>,
        shared: &Shared,
    ) -> Result<Self, StartError> {
        let outbox = Outbox::new(
            &config.outbox,
            Setup {
                directory: directory.clone(),
                sessions: sessions.clone(),
                clock: shared.clock.clone(),
                random: shared.random.clone(),
                metrics: shared.metrics.clone(),
            },
        );
        let outbox = outbox.map_err(|error| start_error("cannot set up the outbox", &error))?;
        let (stop, stopped) = watch::channel(false);
        Ok(Self { stop, api_key: outbox.api_key(), task: background.spawn(outbox.run(stopped)) })
    }

    /// Lets what is under way finish, within bounds.
    pub(super) fn end(self, background: &Runtime) {
        self.stop.send_replace(true);
        let finished = async { tokio::time::timeout(FINISH, self.task).await };
        if background.block_on(finished).is_err() {
            tracing::warn!("A delivery was cut off; it is made again after the next start");
        }
    }
}
