//! Who may tell Doorward about users and logins: senders of webhooks.

use std::fmt;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Deserializer, de::Error};
use zeroize::Zeroizing;

use super::sessions::secret;

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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhooks {
    /// The Clerk instance of the section `clerk`; `POST /webhooks/clerk` is 404 without it.
    pub clerk: Option<ClerkWebhooks>,
}

/// What `POST /webhooks/clerk` believes.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClerkWebhooks {
    /// The endpoint's signing secrets; one that is being replaced stays until the new one is in use.
    pub secrets: Vec<SigningSecret>,
    /// Which instance's events are believed, `ins_…`; any when absent.
    #[serde(default)]
    pub instance_id: Option<String>,
}

/// The key behind `whsec_…`: at least 24 bytes, wiped on drop, `[redacted]` in `Debug`.
#[derive(Clone)]
pub struct SigningSecret(Zeroizing<Vec<u8>>);

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

impl<'de> Deserialize<'de> for SigningSecret {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let expected = || D::Error::custom("is not a signing secret; expected whsec_ and base64 of at least 24 bytes");
        Self::parse(secret(input)?.expose()).ok_or_else(expected)
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
