//! Values that must never be printed, and the randomness they are made of.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SecureRandom;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

/// A configured secret: wiped on drop, `[redacted]` in `Debug`, and never serialised.
#[derive(Clone)]
pub struct Secret(SecretString);

/// A secret that may be replaced while it is in use; clones are the same one.
#[derive(Clone, Debug)]
pub struct Rotating(Arc<ArcSwap<Secret>>);

/// The operating system refused to give random bytes.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the system's random number generator failed")]
pub struct NoEntropy;

impl Secret {
    /// Takes ownership of a secret's text.
    pub fn new(text: String) -> Self {
        Self(SecretString::from(text))
    }

    /// Returns the text; the name is there to be searched for in review.
    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        use subtle::ConstantTimeEq;
        self.expose().as_bytes().ct_eq(other.expose().as_bytes()).into()
    }
}

impl Rotating {
    /// Returns one that is `secret` until it is replaced.
    pub fn new(secret: Secret) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(secret)))
    }

    /// Puts `secret` in place of the one before: every clone returns it from now on.
    pub fn replace(&self, secret: Secret) {
        self.0.store(Arc::new(secret));
    }

    /// Returns the secret as it is now.
    pub fn current(&self) -> Arc<Secret> {
        self.0.load_full()
    }
}

/// Returns `N` random bytes, wiped on drop.
pub fn random_bytes<const N: usize>(random: &dyn SecureRandom) -> Result<Zeroizing<[u8; N]>, NoEntropy> {
    let mut bytes = Zeroizing::new([0; N]);
    random.fill(bytes.as_mut_slice()).map_err(|_| NoEntropy)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        assert_eq!(format!("{:?}", Secret::new("hunter2".to_owned())), "[redacted]");
        assert!(!format!("{:?}", Rotating::new(Secret::new("hunter2".to_owned()))).contains("hunter2"));
    }

    #[test]
    fn a_replaced_secret_is_replaced_in_every_clone() {
        let held = Rotating::new(Secret::new("old".to_owned()));
        let holder = held.clone();
        held.replace(Secret::new("new".to_owned()));
        assert_eq!(holder.current().expose(), "new");
    }
}
