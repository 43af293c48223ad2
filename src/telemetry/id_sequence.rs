//! Ids of exchanges, traces and spans: 64-bit numbers.
//!
//! One sequence never repeats a number, and its numbers do not look like a counter. They are not secret.

use std::sync::atomic::{AtomicU64, Ordering};

/// A sequence of ids.
#[derive(Debug)]
pub struct IdSequence {
    seed: u64,
    next: AtomicU64,
}

impl IdSequence {
    /// Returns a sequence that is determined by `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed, next: AtomicU64::new(0) }
    }

    /// Returns an id that this sequence has not given before.
    pub fn next(&self) -> u64 {
        // SplitMix64: a bijection of the counter.
        let count = self.next.fetch_add(1, Ordering::Relaxed);
        let mut word = self.seed.wrapping_add(count.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }
}
