//! The signature scheme of Svix and of Standard Webhooks (contracts §10).
//!
//! Signed are id, date and body as they came, joined by dots. Of several signatures one has to be
//! right, under one of several secrets; versions other than `v1` are not looked at.

use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use subtle::{Choice, ConstantTimeEq};

use crate::config::webhooks::SigningSecret;
use crate::time::Timestamp;

/// How far a sender's clock may be from ours, either way.
const TOLERANCE: Duration = Duration::from_mins(5);
/// The longest id, in bytes.
const ID_MAX: usize = 256;

/// What the headers of a delivery claim.
pub(super) struct Proof {
    id: String,
    date: String,
    seconds: u64,
    signatures: Vec<Vec<u8>>,
}

impl Proof {
    /// Returns what the headers claim; `None` when one is missing, there twice, or not what it should be.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let id = only(headers, "id").filter(|id| (1..=ID_MAX).contains(&id.len()))?;
        let date = only(headers, "timestamp").filter(|date| date.bytes().all(|byte| byte.is_ascii_digit()))?;
        let signatures = only(headers, "signature")?;
        let decoded = signatures.split(' ').filter_map(|entry| STANDARD.decode(entry.strip_prefix("v1,")?).ok());
        Some(Self {
            id: id.to_owned(),
            date: date.to_owned(),
            seconds: date.parse().ok()?,
            signatures: decoded.collect(),
        })
    }

    /// Returns whether the date is within the tolerance of `now`.
    pub(super) fn is_fresh(&self, now: Timestamp) -> bool {
        now.unix_seconds().abs_diff(self.seconds) <= TOLERANCE.as_secs()
    }

    /// Returns whether one of `secrets` signed `body` under this id and date.
    pub(super) fn covers(&self, body: &[u8], secrets: &[SigningSecret]) -> bool {
        let mut good = Choice::from(0);
        for secret in secrets {
            let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.expose()));
            for part in [self.id.as_bytes(), b".", self.date.as_bytes(), b".", body] {
                context.update(part);
            }
            let expected = context.sign();
            for signature in &self.signatures {
                good |= signature.as_slice().ct_eq(expected.as_ref());
            }
        }
        good.into()
    }

    /// Returns the delivery's id, the same whenever the sender tries again.
    pub(super) fn into_id(self) -> String {
        self.id
    }
}

/// Returns the one value of `svix-<name>`, or else of `webhook-<name>`: visible ASCII and spaces.
fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let names = ["svix", "webhook"].map(|family| format!("{family}-{name}"));
    let present = names.iter().find(|name| headers.contains_key(name.as_str()))?;
    let mut values = headers.get_all(present.as_str()).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "msg_2b3c4d";
    const DATE: &str = "1767225600";
    const BODY: &[u8] = br#"{"type":"session.revoked"}"#;
    const SIGNATURE: &str = "v1,8OihtheEwfsrT52lzN6y9/t8/AOy8g2EI8x1yxCq+ME=";

    fn secret(key: &str) -> SigningSecret {
        SigningSecret::parse(&format!("whsec_{}", STANDARD.encode(key))).unwrap()
    }

    fn headers(entries: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in entries {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn proof(id: &str, date: &str, signature: &str) -> Proof {
        Proof::read(&headers(&[("svix-id", id), ("svix-timestamp", date), ("svix-signature", signature)])).unwrap()
    }

    // The vector of contracts §10.
    #[test]
    fn the_vector_holds() {
        let (right, wrong) = (secret("0123456789abcdef0123456789abcdef"), secret("fedcba9876543210fedcba9876543210"));
        let good = |signature: &str, secrets: &[&SigningSecret]| {
            let secrets: Vec<SigningSecret> = secrets.iter().copied().cloned().collect();
            proof(ID, DATE, signature).covers(BODY, &secrets)
        };
        assert!(good(SIGNATURE, &[&right]));
        assert!(good(SIGNATURE, &[&wrong, &right]), "any secret");
        assert!(good(&format!("v1,AAAA v2,AAAA {SIGNATURE} v1,!!"), &[&right]), "any signature");
        assert!(!good(SIGNATURE, &[&wrong]));
        assert!(!good(SIGNATURE, &[]));
        assert!(!good(&SIGNATURE.replace("v1,", "v2,"), &[&right]), "another version");
        assert!(!good(&SIGNATURE.replace("v1,", "v1a,"), &[&right]), "another version");
        assert!(!good(&SIGNATURE.replace("8O", "8P"), &[&right]));
        assert!(!good("v1,", &[&right]), "nothing");
        assert!(!good("v1,8OihtheEwfs=", &[&right]), "the beginning");
        assert!(!proof("msg_other", DATE, SIGNATURE).covers(BODY, std::slice::from_ref(&right)));
        assert!(!proof(ID, "1767225601", SIGNATURE).covers(BODY, std::slice::from_ref(&right)));
        assert!(!proof(ID, DATE, SIGNATURE).covers(br#"{"type":"session.revoked"} "#, &[right]));
    }

    #[test]
    fn a_date_counts_for_five_minutes_either_way() {
        let fresh = |now: u64| proof(ID, DATE, SIGNATURE).is_fresh(Timestamp(now * 1000 + 999));
        let date: u64 = DATE.parse().unwrap();
        assert!(fresh(date) && fresh(date + 300) && fresh(date - 300));
        assert!(!fresh(date + 301) && !fresh(date - 301) && !fresh(0));
        let far = Proof { seconds: u64::MAX, ..proof(ID, DATE, SIGNATURE) };
        assert!(!far.is_fresh(Timestamp(0)));
    }

    #[test]
    fn each_header_is_there_once_under_either_name() {
        let complete = [("svix-id", ID), ("svix-timestamp", DATE), ("svix-signature", SIGNATURE)];
        assert!(Proof::read(&headers(&complete)).is_some());
        let other = [("webhook-id", ID), ("webhook-timestamp", DATE), ("webhook-signature", SIGNATURE)];
        assert!(Proof::read(&headers(&other)).is_some());
        for left_out in 0..3 {
            let rest: Vec<_> = (0..3).filter(|number| *number != left_out).map(|number| complete[number]).collect();
            assert!(Proof::read(&headers(&rest)).is_none(), "without {}", complete[left_out].0);
            let twice: Vec<_> = complete.into_iter().chain([complete[left_out]]).collect();
            assert!(Proof::read(&headers(&twice)).is_none(), "two {}", complete[left_out].0);
        }
        for (position, bad) in [(0, ""), (1, ""), (1, "now"), (1, "+1767225600"), (1, "1767225600.0"), (1, "-1")] {
            let mut entries = complete;
            entries[position].1 = bad;
            assert!(Proof::read(&headers(&entries)).is_none(), "{bad:?}");
        }
        let long = "x".repeat(ID_MAX + 1);
        assert!(Proof::read(&headers(&[("svix-id", &long), complete[1], complete[2]])).is_none());
    }
}
