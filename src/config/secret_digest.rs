//! Tells whether a secret has changed, and nothing else.

use std::fmt;
use std::path::Path;

use aws_lc_rs::digest::{Context, SHA256};
use zeroize::Zeroizing;

use crate::secret::Secret;

/// One secret: what logs and metrics call it, and the SHA-256 of what it is, which `Debug` hides.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretDigest {
    /// Its key in the configuration, e.g. `directory.password`.
    pub key: &'static str,
    /// The digest; `None` when the secret is not set.
    pub digest: Option<Vec<u8>>,
}

impl SecretDigest {
    /// Returns the digest of a secret that consists of `parts`: unset without any.
    pub(super) fn of<'s>(key: &'static str, parts: impl IntoIterator<Item = &'s [u8]>) -> Self {
        let mut parts = parts.into_iter().peekable();
        let digest = parts.peek().is_some().then(|| {
            let mut context = Context::new(&SHA256);
            for part in parts {
                // With its length, so that no two lists of parts are one text.
                context.update(&(part.len() as u64).to_be_bytes());
                context.update(part);
            }
            context.finish().as_ref().to_vec()
        });
        Self { key, digest }
    }

    /// Returns the digest of a single secret.
    pub(super) fn of_secret(key: &'static str, secret: Option<&Secret>) -> Self {
        Self::of(key, secret.map(|secret| secret.expose().as_bytes()))
    }

    /// Returns the digest of what a file holds now. One that cannot be read is a problem that its user reports.
    pub(super) fn of_file(key: &'static str, path: Option<&Path>) -> Self {
        let content = path.map(|path| Zeroizing::new(std::fs::read(path).unwrap_or_default()));
        Self::of(key, content.as_ref().map(|content| content.as_slice()))
    }
}

impl fmt::Debug for SecretDigest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SecretDigest({})", self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_tells_parts_apart_and_an_empty_secret_from_none() {
        let digest = |parts: &[&str]| SecretDigest::of("key", parts.iter().map(|part| part.as_bytes())).digest;
        assert_eq!(digest(&[]), None);
        assert!(digest(&[""]).is_some());
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
    }
}
