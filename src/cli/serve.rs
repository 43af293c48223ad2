//! `doorward serve`: runs the proxy until it is told to stop.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ConfigFiles, SUCCESS, Surroundings};
use crate::config::Config;
use crate::server::{self, Reread};
use crate::telemetry;
use crate::telemetry::audit::{Action, Event};
use crate::time::SystemClock;

/// Serves; returns the exit code.
pub fn run(files: &ConfigFiles, surroundings: &mut Surroundings<'_>) -> u8 {
    let loaded = match surroundings.load(files) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let verbosity = match telemetry::start(&loaded.config.telemetry, Arc::new(SystemClock::new())) {
        Ok(verbosity) => verbosity,
        Err(error) => return surroundings.fail(&error),
    };
    let mut started = || Event { config_hash: Some(&loaded.hash), ..Action::Started.event() }.write();
    match server::serve(&loaded, reread(files, surroundings.environment), verbosity, &mut started) {
        Ok(()) => SUCCESS,
        Err(error) => surroundings.fail(&error),
    }
}

// Files may have changed since; the environment of a running process cannot.
pub(super) fn reread(files: &ConfigFiles, environment: &BTreeMap<String, String>) -> Reread {
    let (files, environment) = (files.files.clone(), environment.clone());
    Box::new(move || Config::load(&files, &environment).map_err(|problems| problems.to_string()))
}
