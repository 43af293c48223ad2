//! What Redis calls our things: keys, channel, and the slots they fall into.
//!
//! All keys of a principal carry one hash tag, so that a script may touch them together in a
//! cluster. The 64 tags are spread evenly over the 16384 slots and never change: they are part of
//! what neighbouring releases share. Session ids are written in an alphabet that sorts as the ids do,
//! so an index is in the order in which sessions were made.

use base64::Engine;
use base64::alphabet::CRYPT;
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, URL_SAFE_NO_PAD};

use crate::model::session::SHARDS;
use crate::model::{PrincipalId, SessionId, Shard, TenantId};
use crate::store::{handle, shard_of};

const SLOTS: u16 = 16384;
/// Its characters are in the order of their codes.
const SORTABLE: GeneralPurpose = GeneralPurpose::new(&CRYPT, NO_PAD);

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
    pub(super) fn session(&self, id: SessionId) -> String {
        format!("{}{}", self.session_prefix(id.shard()), id_text(id))
    }

    /// Returns what the keys of a shard's sessions begin with.
    pub(super) fn session_prefix(&self, shard: Shard) -> String {
        self.of_kind(shard, "s")
    }

    /// Returns the key of the record of a session that has ended.
    pub(super) fn ended(&self, id: SessionId) -> String {
        format!("{}{}", self.ended_prefix(id.shard()), id_text(id))
    }

    /// Returns what the keys of a shard's ended sessions begin with.
    pub(super) fn ended_prefix(&self, shard: Shard) -> String {
        self.of_kind(shard, "e")
    }

    /// Returns the key of the sorted set of a principal's sessions.
    pub(super) fn index(&self, tenant: &TenantId, principal: &PrincipalId) -> String {
        self.of_principal("u", tenant, principal)
    }

    /// Returns what the keys of a shard's indexes begin with.
    pub(super) fn index_prefix(&self, shard: Shard) -> String {
        self.of_kind(shard, "u")
    }

    /// Returns the key of the sorted set of a principal's ended sessions.
    pub(super) fn ended_index(&self, tenant: &TenantId, principal: &PrincipalId) -> String {
        self.of_principal("x", tenant, principal)
    }

    /// Returns what the keys of a shard's indexes of ended sessions begin with.
    pub(super) fn ended_index_prefix(&self, shard: Shard) -> String {
        self.of_kind(shard, "x")
    }

    /// Returns the key of the time before which a principal's sign-ins are void.
    pub(super) fn not_before(&self, tenant: &TenantId, principal: &PrincipalId) -> String {
        self.of_principal("n", tenant, principal)
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

    fn of_kind(&self, shard: Shard, kind: &str) -> String {
        format!("{}:{{{}}}:{kind}:", self.prefix, self.tag(shard))
    }

    fn of_principal(&self, kind: &str, tenant: &TenantId, principal: &PrincipalId) -> String {
        let handle = handle(tenant, principal);
        let handle = std::str::from_utf8(&handle).unwrap_or_default();
        format!("{}{handle}", self.of_kind(shard_of(tenant, principal), kind))
    }

    fn tag(&self, shard: Shard) -> &str {
        self.tags.get(usize::from(shard.index())).map_or("", String::as_str)
    }
}

/// Returns a session's id as 22 characters that sort as ids do.
pub(super) fn id_text(id: SessionId) -> String {
    SORTABLE.encode(id.as_bytes())
}

/// Returns the id that [`id_text`] wrote; `None` for any other text.
pub(super) fn parse_id(text: &str) -> Option<SessionId> {
    SORTABLE.decode(text).ok()?.try_into().ok().map(SessionId::from_bytes)
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
    use crate::time::Timestamp;

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
        let shard = shard_of(&tenant, &principal);
        let id = SessionId::new(Timestamp(7), shard, &[7; 10]);
        let slots = [
            keys.session(id),
            keys.ended(id),
            keys.index(&tenant, &principal),
            keys.ended_index(&tenant, &principal),
            keys.not_before(&tenant, &principal),
            keys.control(shard),
        ]
        .map(Slot::for_key);
        assert!(slots.iter().all(|slot| *slot == slots[0]));
        // What scripts put together from prefixes are the same keys.
        let handle = String::from_utf8(handle(&tenant, &principal).to_vec()).unwrap();
        assert_eq!(keys.index(&tenant, &principal), keys.index_prefix(shard) + &handle);
        assert_eq!(keys.ended_index(&tenant, &principal), keys.ended_index_prefix(shard) + &handle);
    }

    #[test]
    fn ids_are_written_in_the_order_of_time() {
        let mut ids: Vec<SessionId> = (0..200_u8)
            .map(|seed| {
                SessionId::new(Timestamp(u64::from(seed / 3) * 7919), Shard::of(1), &[seed.wrapping_mul(37); 10])
            })
            .collect();
        ids.sort_unstable();
        let texts: Vec<String> = ids.iter().map(|id| id_text(*id)).collect();
        assert!(texts.is_sorted(), "{texts:?}");
        assert!(texts.iter().all(|text| text.len() == 22));
        assert_eq!(texts.iter().filter_map(|text| parse_id(text)).collect::<Vec<_>>(), ids);
        assert_eq!(parse_id("short"), None);
    }
}
