//! `doorward serve`: runs the server until a signal ends it.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{ConfigFiles, Environment, SUCCESS};
use crate::config::Config;
use crate::server::{self, Reread};
use crate::telemetry;
use crate::telemetry::audit::{Action, Event};
use crate::time::SystemClock;

/// Serves; returns the exit code.
pub fn run(files: &ConfigFiles, environment: &mut Environment<'_>) -> u8 {
    let loaded = match environment.load(files) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let verbosity = match telemetry::start(&loaded.config.telemetry, Arc::new(SystemClock::new())) {
        Ok(verbosity) => verbosity,
        Err(error) => return environment.fail(&error),
    };
    let mut started = || Event { config_hash: Some(&loaded.hash), ..Action::Started.event() }.write();
    match server::serve(&loaded, reread(files, environment.variables), verbosity, &mut started) {
        Ok(()) => SUCCESS,
        Err(error) => environment.fail(&error),
    }
}

// Files are read again at each reload; the environment of a running process cannot change.
pub(super) fn reread(files: &ConfigFiles, environment: &BTreeMap<String, String>) -> Reread {
    let (files, environment) = (files.files.clone(), environment.clone());
    Box::new(move || Config::load(&files, &environment).map_err(|problems| problems.to_string()))
}
