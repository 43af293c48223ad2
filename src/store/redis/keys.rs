//! What Redis calls our things: keys, channel, and the slots they fall into.
//!
//! All keys of a principal carry one hash tag, so that a script may touch them together in a
//! cluster. The 64 tags are spread evenly over the 16384 slots and never change: they are part of
//! what neighbouring releases share.

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::token::SHARDS;
use crate::model::{PrincipalId, Shard, TenantId};
use crate::store::Key;

const SLOTS: u16 = 16384;

/// Names of keys under one prefix.
pub(super) struct Keys {
    prefix: String,
    tags: Vec<String>,
    clustered: bool,
}

impl Keys {
    /// Returns the names under `prefix`; in a cluster every shard has a control key of its own.
    pub(super) fn new(prefix: &str, clustered: bool) -> Self {
        Self { prefix: prefix.to_owned(), tags: tags(), clustered }
    }

    /// Returns the key of a session's record.
    pub(super) fn session(&self, key: Key) -> String {
        self.session_of(key.shard, &key.id.to_text())
    }

    /// Returns the key of the record of the session with this id in text.
    pub(super) fn session_of(&self, shard: Shard, id: &str) -> String {
        format!("{}{id}", self.session_prefix(shard))
    }

    /// Returns what the keys of a shard's sessions begin with.
    pub(super) fn session_prefix(&self, shard: Shard) -> String {
        format!("{}:{{{}}}:s:", self.prefix, self.tag(shard))
    }

    /// Returns the key of the hash `id -> created:expires` of a principal's sessions.
    pub(super) fn index(&self, shard: Shard, tenant: &TenantId, principal: &PrincipalId) -> String {
        format!("{}:{{{}}}:u:{}", self.prefix, self.tag(shard), handle(tenant, principal))
    }

    /// Returns the key of the time before which a principal's sign-ins are void.
    pub(super) fn not_before(&self, shard: Shard, tenant: &TenantId, principal: &PrincipalId) -> String {
        format!("{}:{{{}}}:n:{}", self.prefix, self.tag(shard), handle(tenant, principal))
    }

    /// Returns the key that stands for a proof already used.
    pub(super) fn claim(&self, digest: &[u8]) -> String {
        format!("{}:once:{}", self.prefix, URL_SAFE_NO_PAD.encode(digest))
    }

    /// Returns the key of the hash that counts a shard's revocations.
    pub(super) fn control(&self, shard: Shard) -> String {
        if self.clustered {
            format!("{}:{{{}}}:ctl", self.prefix, self.tag(shard))
        } else {
            format!("{}:ctl", self.prefix)
        }
    }

    /// Returns which of the [`controls`](Self::controls) counts a shard's revocations.
    pub(super) fn control_index(&self, shard: Shard) -> usize {
        if self.clustered { usize::from(shard.index()) } else { 0 }
    }

    /// Returns all control keys.
    pub(super) fn controls(&self) -> Vec<String> {
        let count = if self.clustered { SHARDS } else { 1 };
        (0..count).map(|index| self.control(Shard::of(u64::from(index)))).collect()
    }

    /// Returns the channel that revocations are published on.
    pub(super) fn channel(&self) -> String {
        format!("{}:rev", self.prefix)
    }

    fn tag(&self, shard: Shard) -> &str {
        self.tags.get(usize::from(shard.index())).map_or("", String::as_str)
    }
}

// Identifiers are visible ASCII (model::principal): NUL cannot occur in them, so it separates.
fn handle(tenant: &TenantId, principal: &PrincipalId) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(tenant.as_str().as_bytes());
    context.update(&[0]);
    context.update(principal.as_str().as_bytes());
    let digest = context.finish();
    URL_SAFE_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default())
}

// The first number whose slot falls into each sixty-fourth of the slots.
fn tags() -> Vec<String> {
    let mut tags = vec![String::new(); usize::from(SHARDS)];
    let mut missing = tags.len();
    for number in 0_u32.. {
        let text = number.to_string();
        let bucket = usize::from(slot(text.as_bytes()) / (SLOTS / SHARDS));
        if let Some(tag) = tags.get_mut(bucket).filter(|tag| tag.is_empty()) {
            *tag = text;
            missing -= 1;
        }
        if missing == 0 {
            break;
        }
    }
    tags
}

// CRC-16/XMODEM, as the cluster specification defines a key's slot.
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0_u16, |crc, byte| {
        (0..8).fold(
            crc ^ (u16::from(*byte) << 8),
            |crc, _| {
                if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
            },
        )
    });
    crc % SLOTS
}

#[cfg(test)]
mod tests {
    use redis::cluster_routing::Slot;

    use super::*;
    use crate::model::TokenId;

    #[test]
    fn tags_are_spread_over_all_slots_and_never_change() {
        let tags = tags();
        for (shard, tag) in tags.iter().enumerate() {
            assert_eq!(usize::from(slot(tag.as_bytes())) / 256, shard, "{tag}");
            assert_eq!(Some(Slot::for_key(tag)), Slot::new(slot(tag.as_bytes())));
        }
        let pinned = [0, 1, 31, 62, 63].map(|shard: usize| tags[shard].as_str());
        assert_eq!(pinned, ["10", "18", "42", "48", "40"]);
    }

    #[test]
    fn keys_of_a_principal_share_a_slot() {
        let (tenant, principal) = ("acme".parse().unwrap(), "user_2b".parse().unwrap());
        let keys = Keys::new("dw", true);
        let shard = Shard::of(17);
        let id = TokenId([7; 24]);
        let slots = [
            keys.session(Key { id, shard }),
            keys.index(shard, &tenant, &principal),
            keys.not_before(shard, &tenant, &principal),
            keys.control(shard),
        ]
        .map(Slot::for_key);
        assert!(slots.iter().all(|slot| *slot == slots[0]));
    }
}
