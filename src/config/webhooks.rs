//! Who may tell Doorward about users and logins: senders of webhooks.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use super::secret_digest::SecretDigest;
use super::values::secret;

/// What every signing secret begins with (contracts §10).
const PREFIX: &str = "whsec_";
/// The shortest key that the Standard Webhooks specification allows.
const KEY_BYTES_MIN: usize = 24;
/// Clerk shows secrets with padding and other senders without.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Who may tell Doorward about users and logins.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhooks {
    /// The Clerk instance of the section `clerk`; `POST /webhooks/clerk` is 404 without it.
    pub clerk: Option<ClerkWebhooks>,
}

impl FromKeys for Webhooks {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { clerk: keys.take("clerk") }
    }
}

/// What `POST /webhooks/clerk` believes.
#[derive(Clone, Debug, PartialEq)]
pub struct ClerkWebhooks {
    /// The endpoint's signing secrets; one that is being replaced stays until the new one is in use.
    pub secrets: Vec<SigningSecret>,
    /// Which instance's events are believed, `ins_…`; any when absent.
    pub instance_id: Option<String>,
}

impl FromKeys for ClerkWebhooks {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { secrets: keys.take("secrets"), instance_id: keys.take("instance_id") }
    }
}

/// The key behind `whsec_…`: at least 24 bytes, wiped on drop, `[redacted]` in `Debug`.
#[derive(Clone)]
pub struct SigningSecret(Zeroizing<Vec<u8>>);

impl Webhooks {
    /// Returns what changes only with a restart, and the signing secrets.
    pub(super) fn apart(self) -> (Self, SecretDigest) {
        let Self { clerk } = self;
        let secrets = clerk.iter().flat_map(|clerk| &clerk.secrets);
        let digest = SecretDigest::of("webhooks.clerk.secrets", secrets.map(SigningSecret::expose));
        let clerk =
            clerk.map(|ClerkWebhooks { secrets: _, instance_id }| ClerkWebhooks { secrets: Vec::new(), instance_id });
        (Self { clerk }, digest)
    }
}

impl SigningSecret {
    /// Returns the key behind `text`, which is `whsec_` and base64; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let key = Zeroizing::new(BASE64.decode(text.strip_prefix(PREFIX)?).ok()?);
        (key.len() >= KEY_BYTES_MIN).then_some(Self(key))
    }

    /// Returns the key; the name is there to be searched for in review.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for SigningSecret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

impl PartialEq for SigningSecret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl FromTree for SigningSecret {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let expected = || "is not a signing secret; expected whsec_ and base64 of at least 24 bytes".to_owned();
        let parse = |value: &Value| Self::parse(secret(value)?.expose()).ok_or_else(expected);
        place.is_secret(notes);
        place.value(notes, parse, || Self(Zeroizing::new(Vec::new())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signing_secret_is_whsec_and_base64_of_enough_bytes() {
        let key = |text: &str| SigningSecret::parse(text).map(|secret| secret.expose().to_vec());
        let bytes = b"0123456789abcdef0123456789abcdef".to_vec();
        assert_eq!(key("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="), Some(bytes.clone()));
        assert_eq!(key("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"), Some(bytes));
        for bad in ["", "whsec_", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=", "whsec_c2hvcnQ=", "whsec_***"] {
            assert_eq!(key(bad), None, "{bad}");
        }
        let shown = format!("{:?}", SigningSecret::parse("whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="));
        assert_eq!(shown, "Some([redacted])");
    }
}
