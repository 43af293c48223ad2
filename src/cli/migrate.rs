//! `doorward migrate`: brings the directory's schema up to date.

use super::{ConfigFiles, Environment, SUCCESS, block_on, print};
use crate::directory::Directory;
use crate::telemetry::with_causes;

/// Migrates; returns the exit code.
pub fn run(files: &ConfigFiles, environment: &mut Environment<'_>) -> u8 {
    let config = match environment.read(files) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let done = block_on(async {
        let directory = Directory::open(&config.directory).map_err(|error| with_causes(&error))?;
        directory.migrate().await.map_err(|error| with_causes(&error))
    });
    match done.map_err(|error| error.to_string()).flatten() {
        Ok(()) => {
            print(environment.stdout, "the directory's schema is up to date\n");
            SUCCESS
        }
        Err(why) => environment.fail(&why),
    }
}
