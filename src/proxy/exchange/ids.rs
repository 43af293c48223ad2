//! Names for exchanges.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::api::RequestId;

/// Names exchanges: unique in the process, unpredictable from outside, no secret.
pub struct RequestIds {
    seed: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Returns a source of ids that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    // SplitMix64: a bijection of the counter, so ids never repeat and do not look like a counter.
    pub(in crate::proxy) fn next(&self) -> RequestId {
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut word = self.seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        RequestId::from(word ^ (word >> 31))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_ids_are_sixteen_hex_digits_and_do_not_repeat() {
        let ids = RequestIds::new(7);
        let seen: std::collections::HashSet<String> = (0..1000).map(|_| ids.next().to_string()).collect();
        assert_eq!(seen.len(), 1000);
        assert!(seen.iter().all(|id| id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
