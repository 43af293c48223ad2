//! The directory of a running server: opened at once, its schema brought up to date when it can be.

use std::sync::Arc;
use std::time::Duration;

use super::{Shared, StartError, start_error};
use crate::config::Config;
use crate::directory::{Directory, DirectoryError};
use crate::telemetry::with_causes;

const RETRY: Duration = Duration::from_secs(1);

/// Opens the directory. Its database may be away: then its schema is seen to when it comes.
pub(super) async fn open(config: &Config, shared: &Shared) -> Result<Arc<Directory>, StartError> {
    let directory =
        Directory::open(&config.directory).map_err(|error| start_error("cannot open the directory", &error))?;
    let directory = Arc::new(directory);
    let ready = shared.metrics.ready.with_label_values(&["directory"]);
    if !config.directory.migrate {
        ready.set(1);
        return Ok(directory);
    }
    match directory.migrate().await {
        Ok(()) => ready.set(1),
        Err(DirectoryError::Unavailable(_) | DirectoryError::TimedOut(_)) => {
            let (directory, mut every) = (directory.clone(), tokio::time::interval(RETRY));
            tokio::spawn(async move {
                loop {
                    every.tick().await;
                    match directory.migrate().await {
                        Ok(()) => break ready.set(1),
                        Err(error) => tracing::warn!(error = %with_causes(&error), "The directory is not ready"),
                    }
                }
            });
        }
        Err(error) => return Err(start_error("cannot open the directory", &error)),
    }
    Ok(directory)
}
