//! The directory of a running server: opened at once, its schema brought up to date when it can be.
//!
//! A mistake in the configuration ends the start; a database that is away does not.

use std::sync::Arc;
use std::time::Duration;

use super::{ServeError, Shared, serve_error};
use crate::config::Config;
use crate::directory::{Directory, DirectoryError};
use crate::guests::{Guests, Rebinds};
use crate::session::Sessions;
use crate::telemetry::with_causes;

const RETRY: Duration = Duration::from_secs(1);

/// Opens the directory. While its database is away, migrating its schema is retried in the background.
pub(super) async fn open(config: &Config, shared: &Shared) -> Result<Arc<Directory>, ServeError> {
    let directory =
        Directory::open(&config.directory).map_err(|error| serve_error("cannot open the directory", &error))?;
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
        Err(error) => return Err(serve_error("cannot open the directory", &error)),
    }
    Ok(directory)
}

/// Returns the rebind service, running. Its tables are looked at when the database can be asked.
pub(super) async fn open_rebinds(
    config: &Config,
    directory: &Arc<Directory>,
    sessions: &Arc<Sessions>,
    guests: &Arc<Guests>,
    shared: &Shared,
) -> Result<Arc<Rebinds>, ServeError> {
    let (clock, metrics) = (shared.clock.clone(), shared.metrics.clone());
    let (directory, sessions, guests) = (directory.clone(), sessions.clone(), guests.clone());
    let alias = config.outbox.alias.url.is_some();
    let rebinds = Rebinds::new(config, directory, sessions, guests, alias, clock, metrics);
    let rebinds = Arc::new(rebinds.map_err(|error| serve_error("cannot set up rebinding", &error))?);
    match rebinds.check().await {
        Ok(()) => {}
        Err(error @ DirectoryError::Tables(_)) => {
            return Err(serve_error("the configuration does not fit the database", &error));
        }
        Err(_) => {
            tokio::spawn(check_later(rebinds.clone()));
        }
    }
    let running = rebinds.clone();
    tokio::spawn(async move { running.run().await });
    Ok(rebinds)
}

// Until it succeeds, rebinds are answered 503.
async fn check_later(rebinds: Arc<Rebinds>) {
    let mut every = tokio::time::interval(RETRY);
    let mut reported = None;
    loop {
        every.tick().await;
        match rebinds.check().await {
            Ok(()) => return,
            Err(error @ DirectoryError::Tables(_)) if reported.as_ref() != Some(&error.to_string()) => {
                tracing::error!(error = %error, "The configuration does not fit the database");
                reported = Some(error.to_string());
            }
            Err(_) => {}
        }
    }
}
