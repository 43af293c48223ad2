//! What one exchange is called in logs, in answers and towards the application.

use std::fmt;

use aws_lc_rs::rand::SecureRandom;
use http::HeaderValue;

use crate::secret::random_bytes;

/// Names one exchange in logs and in `X-Request-ID`: 16 lowercase hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestId(u64);

impl RequestId {
    /// Returns a new random id, or zero if there is no randomness: an id is not a secret.
    pub fn random(random: &dyn SecureRandom) -> Self {
        Self(random_bytes::<8>(random).map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }

    /// Returns a number in [0, 1) that depends on nothing but the id: for sampling.
    pub fn sample_value(self) -> f64 {
        // The upper 53 bits, as many as a double holds exactly.
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let upper = (self.0 >> 11) as f64;
        upper / 9_007_199_254_740_992.0
    }

    /// Returns the id as a header value.
    ///
    /// # Panics
    ///
    /// Never: hex digits are a valid header value.
    pub fn header_value(self) -> HeaderValue {
        HeaderValue::from_bytes(&self.digits()).expect("hex digits are a valid header value")
    }

    // By hand: the formatting machinery costs ten times as much, and every response has one.
    fn digits(self) -> [u8; 16] {
        let nibble = |place: usize| u8::try_from(self.0 >> (60 - 4 * place) & 0xF).unwrap_or_default();
        std::array::from_fn(|place| match nibble(place) {
            digit @ 0..=9 => b'0' + digit,
            letter => b'a' + letter - 10,
        })
    }
}

impl From<u64> for RequestId {
    fn from(id: u64) -> Self {
        Self(id)
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:016x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_id_is_sixteen_lowercase_hex_digits() {
        assert_eq!(RequestId::from(0xABC).to_string(), "0000000000000abc");
        assert_eq!(RequestId::from(0xABC).header_value(), "0000000000000abc");
        let random = aws_lc_rs::rand::SystemRandom::new();
        assert_ne!(RequestId::random(&random), RequestId::random(&random));
    }
}
