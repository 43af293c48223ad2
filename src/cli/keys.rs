//! `doorward keys`: makes the keys that sign tokens.

use aws_lc_rs::rand::SecureRandom;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::Subcommand;
use zeroize::Zeroizing;

use super::{Environment, SUCCESS, print};
use crate::secret;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub enum KeysCommand {
    /// Print a new key for sessions.token.keys: 32 random bytes as text.
    ///
    /// Keep it in a file that only Doorward can read, and name that file in the configuration:
    /// `keys: [{ id: 1, secret: { file: /run/secrets/token-key } }]`. Every replica needs the same.
    Generate,
}

/// Prints a new key; returns the exit code.
pub fn generate(random: &dyn SecureRandom, environment: &mut Environment<'_>) -> u8 {
    match secret::random_bytes::<32>(random) {
        Ok(bytes) => {
            let mut line = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
            line.push('\n');
            print(environment.stdout, &line);
            SUCCESS
        }
        Err(error) => environment.fail(&error),
    }
}
