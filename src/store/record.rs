//! A session as bytes: one format version byte, then a msgpack map with one-letter names.
//!
//! Unknown fields are ignored and missing optional ones are defaulted, so that neighbouring
//! releases share a store. A higher version byte is refused as [`StoreError::NewerRecord`], which
//! callers answer with 503: a record that this build cannot read is not a revoked session.
//! Invariant: the bytes of version 1 never change (a test pins them). The token id is the key
//! under which a record is filed and no part of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

use super::StoreError;
use crate::model::{Principal, Session, SessionId, TokenId};
use crate::time::Timestamp;

const VERSION: u8 = 1;

#[derive(Serialize, Deserialize)]
struct Fields<'a> {
    #[serde(rename = "i", with = "uuid_bytes")]
    id: Uuid,
    #[serde(rename = "k")]
    kind: &'a str,
    #[serde(rename = "u")]
    principal: &'a str,
    #[serde(rename = "t")]
    tenant: &'a str,
    #[serde(rename = "r", borrow, default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<&'a str>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    provider_session: Option<&'a str>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(rename = "a")]
    authenticated_at: u64,
    #[serde(rename = "c")]
    created_at: u64,
    #[serde(rename = "e")]
    expires_at: u64,
}

#[derive(Debug, thiserror::Error)]
enum Undecodable {
    #[error("empty")]
    Empty,
    #[error("unknown format version 0")]
    Version,
    #[error(transparent)]
    Map(#[from] rmp_serde::decode::Error),
    #[error("principal kind, principal or tenant: {0}")]
    Principal(#[from] crate::model::principal::InvalidIdentifier),
}

/// Returns the record of `session` in the current format; `Corrupt` never happens for a session
/// made from parsed parts.
pub fn encode(session: &Session) -> Result<Vec<u8>, StoreError> {
    let fields = Fields {
        id: session.id.0,
        kind: session.principal.kind.as_str(),
        principal: session.principal.id.as_str(),
        tenant: session.principal.tenant.as_str(),
        roles: session.roles.iter().map(String::as_str).collect(),
        provider_session: session.provider_session.as_deref(),
        actor: session.actor.as_deref(),
        authenticated_at: session.authenticated_at.0,
        created_at: session.created_at.0,
        expires_at: session.expires_at.0,
    };
    let mut record = vec![VERSION];
    rmp_serde::encode::write_named(&mut record, &fields).map_err(|error| StoreError::Corrupt(error.into()))?;
    Ok(record)
}

/// Returns the session that was filed under `token_id`; `NewerRecord` or `Corrupt` if it cannot be read.
pub fn decode(token_id: TokenId, record: &[u8]) -> Result<Session, StoreError> {
    match record.split_first() {
        Some((&VERSION, map)) => decode_map(token_id, map),
        Some((&0, _)) => Err(Undecodable::Version),
        Some((&newer, _)) => return Err(StoreError::NewerRecord(newer)),
        None => Err(Undecodable::Empty),
    }
    .map_err(|error| StoreError::Corrupt(error.into()))
}

fn decode_map(token_id: TokenId, map: &[u8]) -> Result<Session, Undecodable> {
    let fields: Fields<'_> = rmp_serde::from_slice(map)?;
    let principal =
        Principal { kind: fields.kind.parse()?, id: fields.principal.parse()?, tenant: fields.tenant.parse()? };
    Ok(Session {
        id: SessionId(fields.id),
        token_id,
        principal,
        roles: fields.roles.into_iter().map(str::to_owned).collect(),
        provider_session: fields.provider_session.map(str::to_owned),
        actor: fields.actor.map(str::to_owned),
        authenticated_at: Timestamp(fields.authenticated_at),
        created_at: Timestamp(fields.created_at),
        expires_at: Timestamp(fields.expires_at),
    })
}

// Sixteen bytes instead of uuid's 36 characters of text.
mod uuid_bytes {
    use super::{Deserialize, Deserializer, Serializer, Uuid};

    pub(super) fn serialize<S: Serializer>(id: &Uuid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(id.as_bytes())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        Uuid::from_slice(bytes).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PrincipalKind;

    const ID: TokenId = TokenId([5; 24]);

    fn full() -> Session {
        Session {
            id: SessionId(Uuid::from_bytes([0xAB; 16])),
            token_id: ID,
            principal: Principal {
                kind: PrincipalKind::User,
                id: "user_2b".parse().unwrap(),
                tenant: "acme".parse().unwrap(),
            },
            roles: vec!["org:admin".to_owned()],
            provider_session: Some("sess_1".to_owned()),
            actor: Some("user_op".to_owned()),
            authenticated_at: Timestamp(1_800_000_000_000),
            created_at: Timestamp(1_800_000_000_001),
            expires_at: Timestamp(1_800_001_800_001),
        }
    }

    fn bare() -> Session {
        Session { roles: Vec::new(), provider_session: None, actor: None, ..full() }
    }

    // What another release might write: the same map with changes.
    fn map_with(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Vec<u8> {
        let mut map = serde_json::Map::new();
        for (name, value) in [("k", "user"), ("u", "user_2b"), ("t", "acme")] {
            map.insert(name.to_owned(), value.into());
        }
        for (name, value) in [("a", 1_800_000_000_000_u64), ("c", 1_800_000_000_001), ("e", 1_800_001_800_001)] {
            map.insert(name.to_owned(), value.into());
        }
        change(&mut map);
        // JSON has no bytes: the id goes in by hand, as the map's last entry.
        let mut record = vec![VERSION, 0x80 | u8::try_from(map.len() + 1).unwrap()];
        for (name, value) in map {
            record.extend(rmp_serde::to_vec(&name).unwrap());
            record.extend(rmp_serde::to_vec(&value).unwrap());
        }
        record.extend([0xA1, b'i', 0xC4, 16]);
        record.extend([0xAB; 16]);
        record
    }

    #[test]
    fn a_session_survives_the_round_trip() {
        for session in [full(), bare()] {
            assert_eq!(decode(ID, &encode(&session).unwrap()).unwrap(), session);
        }
    }

    #[test]
    fn the_bytes_of_version_1_are_pinned() {
        let mut pinned = vec![0x01, 0x8A, 0xA1, b'i', 0xC4, 0x10];
        pinned.extend([0xAB; 16]);
        pinned
            .extend(b"\xA1k\xA4user\xA1u\xA7user_2b\xA1t\xA4acme\xA1r\x91\xA9org:admin\xA1s\xA6sess_1\xA1o\xA7user_op");
        pinned.extend(b"\xA1a\xCF\x00\x00\x01\xA3\x18\x5C\x50\x00");
        pinned.extend(b"\xA1c\xCF\x00\x00\x01\xA3\x18\x5C\x50\x01");
        pinned.extend(b"\xA1e\xCF\x00\x00\x01\xA3\x18\x77\xC7\x41");
        assert_eq!(encode(&full()).unwrap(), pinned);
        assert_eq!(decode(ID, &pinned).unwrap(), full());
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_optional_ones_defaulted() {
        let record = map_with(|map| {
            map.insert("z".to_owned(), serde_json::json!({"later": [1, 2, {"deep": null}]}));
            map.insert("idle".to_owned(), 7.into());
        });
        assert_eq!(decode(ID, &record).unwrap(), bare());
    }

    #[test]
    fn a_newer_version_is_not_corrupt() {
        let mut record = encode(&full()).unwrap();
        record[0] = 2;
        assert!(matches!(decode(ID, &record), Err(StoreError::NewerRecord(2))));
        assert!(matches!(decode(ID, &[255]), Err(StoreError::NewerRecord(255))));
    }

    #[test]
    fn what_does_not_decode_is_corrupt() {
        let good = encode(&full()).unwrap();
        for length in 0..good.len() {
            assert!(matches!(decode(ID, &good[..length]), Err(StoreError::Corrupt(_))), "cut to {length}");
        }
        let wrong = [
            vec![0, 0x80],
            vec![VERSION, 0xC0],
            map_with(|map| drop(map.remove("u"))),
            map_with(|map| drop(map.insert("k".to_owned(), "root".into()))),
            map_with(|map| drop(map.insert("u".to_owned(), "a\r\nX-Admin: 1".into()))),
            map_with(|map| drop(map.insert("e".to_owned(), "soon".into()))),
        ];
        for record in wrong {
            assert!(matches!(decode(ID, &record), Err(StoreError::Corrupt(_))), "{record:?}");
        }
    }
}
