//! The public keys of one issuer.
//!
//! Only RSA keys of 2048 to 8192 bits that are not published for something else. Entries of a key
//! set that are of no use here are passed over; a set without any usable key is an error, so that
//! it never takes the place of a good one. Keys are parsed once, when they are loaded.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{PublicEncryptingKey, PublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use rustls_pki_types::SubjectPublicKeyInfoDer;
use rustls_pki_types::pem::PemObject;
use serde::Deserialize;
use serde_json::Value;

use super::Reason;
use super::jws::Jws;
use crate::wire::json::parse_object;

const KEYS_MAX: usize = 64;

/// What one issuer signs with.
pub(super) enum KeySet {
    /// A JSON Web Key Set: every usable key under its `kid`.
    Published(Vec<(String, DecodingKey)>),
    /// The one key from a PEM file, for any `kid` and for none.
    Pinned(DecodingKey),
}

/// Why some bytes are not a key set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeySetError {
    #[error("not a JSON Web Key Set")]
    NotAKeySet,
    #[error("more than {KEYS_MAX} keys")]
    TooManyKeys,
    #[error("no usable key: RSA of 2048 to 8192 bits with a \"kid\", for RS256 signatures")]
    NoUsableKey,
    #[error("not a PEM public key (RSA of 2048 to 8192 bits)")]
    NotAPublicKey,
}

/// The members of a JSON Web Key that matter here (RFC 7517, RFC 7518 §6.3).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    key_ops: Option<Vec<String>>,
    n: String,
    e: String,
}

impl KeySet {
    /// Returns the usable keys of a JSON Web Key Set.
    pub(super) fn from_jwks(bytes: &[u8]) -> Result<Self, KeySetError> {
        let mut document = parse_object(bytes).ok_or(KeySetError::NotAKeySet)?;
        let Some(Value::Array(entries)) = document.remove("keys") else { return Err(KeySetError::NotAKeySet) };
        if entries.len() > KEYS_MAX {
            return Err(KeySetError::TooManyKeys);
        }
        let keys: Vec<_> = entries.into_iter().filter_map(usable_key).collect();
        if keys.is_empty() { Err(KeySetError::NoUsableKey) } else { Ok(Self::Published(keys)) }
    }

    /// Returns the key of a PEM file with a `PUBLIC KEY` section.
    pub(super) fn from_pem(bytes: &[u8]) -> Result<Self, KeySetError> {
        let der = SubjectPublicKeyInfoDer::from_pem_slice(bytes).map_err(|_| KeySetError::NotAPublicKey)?;
        let key = PublicEncryptingKey::from_der(&der).map_err(|_| KeySetError::NotAPublicKey)?;
        decoding_key(&key).map(Self::Pinned).ok_or(KeySetError::NotAPublicKey)
    }

    /// Returns how many keys there are.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Published(keys) => keys.len(),
            Self::Pinned(_) => 1,
        }
    }

    /// Checks a JWT's signature with the key it names (contracts §11.1, rules 5 and 6).
    pub(super) fn check(&self, jws: &Jws<'_>) -> Result<(), Reason> {
        let signed_by = |key: &DecodingKey| {
            jsonwebtoken::crypto::verify(jws.signature, jws.message.as_bytes(), key, Algorithm::RS256).unwrap_or(false)
        };
        let verified = match self {
            Self::Pinned(key) => signed_by(key),
            Self::Published(keys) => {
                let named = || keys.iter().filter(|(kid, _)| jws.kid.as_ref() == Some(kid));
                if named().next().is_none() {
                    return Err(Reason::UnknownKey);
                }
                named().any(|(_, key)| signed_by(key))
            }
        };
        if verified { Ok(()) } else { Err(Reason::SignatureVerificationFailed) }
    }
}

fn usable_key(entry: Value) -> Option<(String, DecodingKey)> {
    let jwk: Jwk = serde_json::from_value(entry).ok()?;
    let meant_for_us = jwk.kty == "RSA"
        && jwk.usage.is_none_or(|usage| usage == "sig")
        && jwk.alg.is_none_or(|alg| alg == "RS256")
        && jwk.key_ops.is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
    if !meant_for_us {
        return None;
    }
    let n = URL_SAFE_NO_PAD.decode(jwk.n).ok()?;
    let e = URL_SAFE_NO_PAD.decode(jwk.e).ok()?;
    // This conversion is also the check of the key's size.
    let key: PublicEncryptingKey = PublicKeyComponents { n, e }.try_into().ok()?;
    Some((jwk.kid, decoding_key(&key)?))
}

fn decoding_key(key: &PublicEncryptingKey) -> Option<DecodingKey> {
    Some(DecodingKey::from_rsa_der(key.as_der().ok()?.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_with_a_repeated_key_at_any_depth_is_none() {
        for (document, expected) in [
            (r#"{"keys":[],"data":{"a":1}}"#, KeySetError::NoUsableKey),
            (r#"{"keys":[],"data":{"a":1,"a":2}}"#, KeySetError::NotAKeySet),
            (r#"{"keys":[{"kid":"a","kid":"b"}]}"#, KeySetError::NotAKeySet),
        ] {
            assert_eq!(KeySet::from_jwks(document.as_bytes()).err(), Some(expected), "{document}");
        }
    }
}
