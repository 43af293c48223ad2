//! One Clerk instance, or another issuer of the same kind of JWT.
//!
//! A JWT is believed when all of contracts §11.1 holds, checked in that order: the signature
//! before any claim. Only keys of this very issuer count.

use std::sync::Arc;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::claims;
use super::jwks::KeyCache;
use super::jws::{Class, Jws};
use super::namespace::Namespace;
use super::{IdentityError, Reason};
use crate::config::Issuer;
use crate::model::Identity;
use crate::time::Clock;

/// One issuer: its rules, what it may name, and its keys.
pub(super) struct Clerk {
    pub(super) rules: Issuer,
    pub(super) namespace: Namespace,
    pub(super) keys: Arc<KeyCache>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Clerk {
    /// Returns the identity that a JWT proves.
    pub(super) async fn verify(&self, jws: &Jws<'_>) -> Result<Identity, IdentityError> {
        let accepted = match jws.class {
            Class::Session => true,
            Class::Template => self.rules.accept_template_tokens,
            Class::Other => false,
        };
        if !accepted {
            return Err(Reason::NotASessionToken.into());
        }
        self.verify_signature(jws).await?;
        let identity = claims::identify(&self.rules, &self.namespace, &jws.claims, self.clock.now())?;
        Ok(Identity { proof_id: self.rules.single_use.then(|| proof_id(jws)), ..identity })
    }

    // Clerk may put a new key under the old `kid`, so that a bad signature, too, is a reason to
    // ask for the keys again (contracts §11.4).
    async fn verify_signature(&self, jws: &Jws<'_>) -> Result<(), IdentityError> {
        let keys = self.keys.current().ok_or(IdentityError::KeysNotLoaded)?;
        let outcome = match keys.check(jws) {
            // No key set can help a JWT that names no key.
            Err(Reason::UnknownKey) if jws.kid.is_none() => Err(Reason::UnknownKey),
            Err(reason) => match self.keys.refetch(&keys).await {
                Some(newer) => newer.check(jws),
                None => Err(reason),
            },
            Ok(()) => Ok(()),
        };
        if outcome == Err(Reason::UnknownKey) {
            self.keys.count_unknown_kid();
        }
        Ok(outcome?)
    }
}

// Not `jti`: old Clerk tokens have none, and two issuers may use the same. There is one way to
// write a signature, since stray base64 bits are refused.
fn proof_id(jws: &Jws<'_>) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, jws.signature.as_bytes()))
}
