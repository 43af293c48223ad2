//! A presented JWT, taken apart: rules 1 to 3 of contracts §11.1, which need no key.
//!
//! Nothing in here is believed yet. Embedded keys and key locations (`jwk`, `jku`, `x5u`, `x5c`)
//! are never looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use super::Reason;
use crate::wire::headers::is_visible_ascii;
use crate::wire::json::parse_object;

const BYTES_MAX: usize = 8192;
const KID_BYTES_MAX: usize = 256;

/// A JWT of the right shape with an algorithm we verify. Its signature was not looked at.
pub(super) struct Jws<'a> {
    /// What the signature covers.
    pub message: &'a str,
    /// The signature as it came, base64url.
    pub signature: &'a str,
    /// Which key the JWT says signed it, if it says so in a form that a key can be published under.
    pub kid: Option<String>,
    /// Which class of token it says it is (Clerk `cat`).
    pub class: Class,
    /// The payload.
    pub claims: Map<String, Value>,
}

/// Clerk's classes of token, all signed by the same key (contracts §11.1, rule 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    /// A session token, or one that does not say.
    Session,
    /// Made from a JWT template.
    Template,
    /// Machine-to-machine, or unknown.
    Other,
}

impl<'a> Jws<'a> {
    /// Returns the parts of a compact JWS with `alg` RS256 and a type that a session JWT may have.
    pub(super) fn parse(text: &'a str) -> Result<Self, Reason> {
        if text.len() > BYTES_MAX {
            return Err(Reason::Malformed);
        }
        let (message, signature) = text.rsplit_once('.').ok_or(Reason::Malformed)?;
        let (header, payload) = message.split_once('.').ok_or(Reason::Malformed)?;
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| Reason::Malformed)?;
        let header = decode_object(header).ok_or(Reason::Malformed)?;
        let claims = decode_object(payload).ok_or(Reason::Malformed)?;

        if header.get("alg").and_then(Value::as_str) != Some("RS256") {
            return Err(Reason::UnsupportedAlgorithm);
        }
        // No extension is understood here, and RFC 7515 §4.1.11 forbids to ignore a critical one.
        let plain = header.get("typ").is_none_or(|typ| typ == "JWT") && !header.contains_key("crit");
        if !plain {
            return Err(Reason::UnexpectedTokenType);
        }
        let kid = header.get("kid").and_then(Value::as_str).filter(|kid| is_visible_ascii(kid, KID_BYTES_MAX));
        Ok(Self { message, signature, kid: kid.map(str::to_owned), class: class_of(header.get("cat")), claims })
    }

    /// Returns the `iss` claim, good only for choosing whose keys to try.
    pub(super) fn claimed_issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }
}

fn class_of(cat: Option<&Value>) -> Class {
    match cat.map(Value::as_str) {
        None | Some(Some("cl_B7d4PD111AAA" | "cl_I7d4PD111III")) => Class::Session,
        Some(Some("cl_B7d4PD222AAA")) => Class::Template,
        Some(_) => Class::Other,
    }
}

// A payload with a dot in it cannot decode: that is how a fourth part is refused.
fn decode_object(part: &str) -> Option<Map<String, Value>> {
    parse_object(&URL_SAFE_NO_PAD.decode(part).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(header: &str, claims: &str) -> Result<(), Reason> {
        let [header, claims] = [header, claims].map(|part| URL_SAFE_NO_PAD.encode(part));
        Jws::parse(&format!("{header}.{claims}.c2ln")).map(drop)
    }

    #[test]
    fn a_repeated_key_at_any_depth_is_malformed() {
        let (header, claims) = (r#"{"alg":"RS256","x":{"a":1}}"#, r#"{"sub":"user_1","data":{"a":1}}"#);
        assert_eq!(parsed(header, claims), Ok(()));
        assert_eq!(parsed(r#"{"alg":"RS256","x":{"a":1,"a":2}}"#, claims), Err(Reason::Malformed));
        assert_eq!(parsed(header, r#"{"sub":"user_1","data":{"a":1,"a":2}}"#), Err(Reason::Malformed));
    }
}
