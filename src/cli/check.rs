//! `doorward check`: is this configuration good, and what does it amount to?

use super::{ConfigFiles, Environment, SUCCESS, print};

/// Prints the effective configuration, or everything that is wrong with it; returns the exit code.
pub fn run(files: &ConfigFiles, environment: &mut Environment<'_>) -> u8 {
    match environment.load(files) {
        Ok(loaded) => {
            // The headline is a comment, so that the whole output is a file that can be loaded.
            let text = format!("# configuration is valid (hash {})\n{}", loaded.hash, loaded.effective);
            print(environment.stdout, &text);
            SUCCESS
        }
        Err(code) => code,
    }
}
