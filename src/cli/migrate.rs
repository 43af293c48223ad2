//! `doorward migrate`: brings the directory's schema up to date.

use super::{ConfigFiles, SUCCESS, Surroundings, block_on, say};
use crate::directory::Directory;
use crate::telemetry::with_causes;

/// Migrates; returns the exit code.
pub fn run(files: &ConfigFiles, surroundings: &mut Surroundings<'_>) -> u8 {
    let config = match surroundings.read(files) {
        Ok(loaded) => loaded.config,
        Err(code) => return code,
    };
    let done = block_on(async {
        let directory = Directory::open(&config.directory).map_err(|error| with_causes(&error))?;
        directory.migrate().await.map_err(|error| with_causes(&error))
    });
    match done.map_err(|error| error.to_string()).flatten() {
        Ok(()) => {
            say(surroundings.stdout, "the directory's schema is up to date\n");
            SUCCESS
        }
        Err(why) => surroundings.fail(&why),
    }
}
