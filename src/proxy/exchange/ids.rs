//! Names for exchanges.

use crate::api::RequestId;
use crate::telemetry::id_sequence::IdSequence;

/// Names exchanges: unique in the process, unpredictable from outside, no secret.
pub struct RequestIds(IdSequence);

impl RequestIds {
    /// Returns a source of ids that begins at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(IdSequence::new(seed))
    }

    pub(in crate::proxy) fn next(&self) -> RequestId {
        RequestId::from(self.0.next())
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
