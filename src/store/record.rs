//! A session as bytes: a format version, a head of fixed width, and a msgpack map with one-letter names.
//!
//! What changes after a session was made stands in the `Head`, at offsets that scripts write to in
//! place; the map is written once and never again, so that a release that does not know one of its
//! letters cannot drop it. Unknown letters are ignored and missing optional ones are defaulted, so that
//! neighbouring releases share a store. A higher version byte is refused as
//! [`StoreError::NewerRecord`], which callers answer with 503: a record that this build cannot read is
//! not an ended session. Invariant: the bytes of version 1 never change (a test pins them). The session's
//! id is the key under which a record is filed and no part of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::model::session::{AgentMark, ClientInfo, RefreshTurn};
use crate::model::{End, EndReason, Principal, Session, SessionId, Verifier};
use crate::time::Timestamp;

/// The format version that this build writes, and the highest that it reads.
pub(super) const VERSION: u8 = 1;
/// Bytes before the map: the version and the head.
const PREFIX: usize = 79;
/// Bytes before the record of a session that has ended.
const END: usize = 7;
/// Bytes of what a principal's index is called.
pub(super) const HANDLE: usize = 22;

/// What changes while a session lives, and what a script must know of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// When the record ends.
    pub(super) expires_at: Timestamp,
    /// When a request last used the session, to about a minute.
    pub(super) last_seen: Timestamp,
    /// Until when an extended opaque token lives.
    pub(super) extended_until: Timestamp,
    /// Which refresh token is due.
    pub(super) refresh: RefreshTurn,
    /// The name of the principal's index.
    pub(super) handle: [u8; HANDLE],
    /// What the secret must match.
    pub(super) verifier: Verifier,
}

#[derive(Serialize, Deserialize)]
struct RecordFields<'a> {
    #[serde(rename = "k")]
    kind: &'a str,
    #[serde(rename = "u")]
    principal: &'a str,
    #[serde(rename = "t")]
    tenant: &'a str,
    #[serde(rename = "m", default)]
    method: &'a str,
    #[serde(rename = "r", borrow, default, skip_serializing_if = "Vec::is_empty")]
    roles: Vec<&'a str>,
    #[serde(rename = "s", default, skip_serializing_if = "Option::is_none")]
    provider_session: Option<&'a str>,
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    actor: Option<&'a str>,
    #[serde(rename = "a")]
    authenticated_at: u64,
    /// Milliseconds.
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    idle: Option<u64>,
    #[serde(rename = "d", default, skip_serializing_if = "Option::is_none")]
    device: Option<&'a str>,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    ip: Option<&'a str>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'a str>,
}

#[derive(Debug, thiserror::Error)]
enum Undecodable {
    #[error("shorter than its head")]
    Short,
    #[error("unknown format version 0")]
    Version,
    #[error(transparent)]
    Map(#[from] rmp_serde::decode::Error),
    #[error("principal kind, principal, tenant or actor: {0}")]
    Principal(#[from] crate::model::principal::InvalidIdentifier),
    #[error("role: {0}")]
    Role(#[from] crate::model::role::InvalidRole),
}

impl Head {
    fn of(session: &Session) -> Self {
        Self {
            expires_at: session.expires_at,
            last_seen: session.last_seen,
            extended_until: session.extended_until,
            refresh: session.refresh,
            handle: super::handle(&session.principal.tenant, &session.principal.id),
            verifier: session.verifier,
        }
    }

    /// Returns the head of a record; `NewerRecord` or `Corrupt` if it cannot be read.
    pub(super) fn read(record: &[u8]) -> Result<Self, StoreError> {
        split(record).map(|(head, _)| head)
    }

    /// Writes this head over the one in `record` and leaves everything else as it is.
    pub(super) fn write(&self, record: &mut [u8]) {
        record.iter_mut().zip(self.bytes()).for_each(|(into, from)| *into = from);
    }

    fn bytes(&self) -> [u8; PREFIX] {
        let moment = |at: Timestamp| -> [u8; 6] {
            let [_, _, rest @ ..] = at.0.min(MOMENT_MAX).to_be_bytes();
            rest
        };
        let (turn, since) = (self.refresh.turn.to_be_bytes(), moment(self.refresh.since));
        let parts: [&[u8]; 9] = [
            &[VERSION],
            &moment(self.expires_at),
            &moment(self.last_seen),
            &moment(self.extended_until),
            &turn,
            &since,
            &self.refresh.agent.0,
            &self.handle,
            &self.verifier.0,
        ];
        let mut bytes = [0; PREFIX];
        bytes.iter_mut().zip(parts.into_iter().flatten()).for_each(|(into, from)| *into = *from);
        bytes
    }
}

/// The last moment that six bytes hold.
const MOMENT_MAX: u64 = (1 << 48) - 1;

/// Returns what stands before the record of a session that has ended: a code for why, and when.
pub(super) fn encode_end(end: End) -> [u8; END] {
    let [_, _, rest @ ..] = end.at.0.min(MOMENT_MAX).to_be_bytes();
    let mut bytes = [0; END];
    bytes.iter_mut().zip(std::iter::once(end.reason.code()).chain(rest)).for_each(|(into, from)| *into = from);
    bytes
}

/// Returns why and when a session ended, and its record; `NewerRecord` for a reason that this build does
/// not know.
pub(super) fn decode_end(bytes: &[u8]) -> Result<(End, &[u8]), StoreError> {
    let parted = bytes.split_first().and_then(|(code, rest)| moment(rest).map(|(at, record)| (*code, at, record)));
    let (code, at, record) = parted.ok_or_else(|| StoreError::Corrupt(Undecodable::Short.into()))?;
    let reason = EndReason::from_code(code).ok_or(StoreError::NewerRecord(code))?;
    Ok((End { reason, at }, record))
}

/// Returns the record of `session` in the current format; `Corrupt` never happens for a session made
/// from parsed parts.
pub fn encode(session: &Session) -> Result<Vec<u8>, StoreError> {
    let fields = RecordFields {
        kind: session.principal.kind.as_str(),
        principal: session.principal.id.as_str(),
        tenant: session.principal.tenant.as_str(),
        method: &session.method,
        roles: session.roles.iter().map(crate::model::Role::as_str).collect(),
        provider_session: session.provider_session.as_deref(),
        actor: session.actor.as_ref().map(crate::model::ActorId::as_str),
        authenticated_at: session.authenticated_at.0,
        idle: session.idle.map(crate::time::millis),
        device: session.device.as_deref(),
        ip: session.client.ip.as_deref(),
        user_agent: session.client.user_agent.as_deref(),
    };
    let mut record = Head::of(session).bytes().to_vec();
    rmp_serde::encode::write_named(&mut record, &fields).map_err(|error| StoreError::Corrupt(error.into()))?;
    Ok(record)
}

/// Returns the session that was filed under `id`; `NewerRecord` or `Corrupt` if it cannot be read.
pub fn decode(id: SessionId, record: &[u8]) -> Result<Session, StoreError> {
    let (head, map) = split(record)?;
    decode_map(id, head, map).map_err(|error| StoreError::Corrupt(error.into()))
}

fn split(record: &[u8]) -> Result<(Head, &[u8]), StoreError> {
    let corrupt = |error: Undecodable| StoreError::Corrupt(error.into());
    match record.first() {
        Some(&VERSION) => {}
        Some(0) => return Err(corrupt(Undecodable::Version)),
        Some(&newer) => return Err(StoreError::NewerRecord(newer)),
        None => return Err(corrupt(Undecodable::Short)),
    }
    let parted = record.split_first_chunk::<PREFIX>();
    let (prefix, map) = parted.ok_or_else(|| corrupt(Undecodable::Short))?;
    let head = head_of(prefix).ok_or_else(|| corrupt(Undecodable::Short))?;
    Ok((head, map))
}

fn head_of(prefix: &[u8; PREFIX]) -> Option<Head> {
    let (_version, rest) = prefix.split_first()?;
    let (expires_at, rest) = moment(rest)?;
    let (last_seen, rest) = moment(rest)?;
    let (extended_until, rest) = moment(rest)?;
    let (turn, rest) = rest.split_first_chunk::<4>()?;
    let (since, rest) = moment(rest)?;
    let (agent, rest) = rest.split_first_chunk::<4>()?;
    let (handle, rest) = rest.split_first_chunk::<HANDLE>()?;
    let verifier = Verifier(rest.try_into().ok()?);
    let refresh = RefreshTurn { turn: u32::from_be_bytes(*turn), since, agent: AgentMark(*agent) };
    Some(Head { expires_at, last_seen, extended_until, refresh, handle: *handle, verifier })
}

fn moment(bytes: &[u8]) -> Option<(Timestamp, &[u8])> {
    let (moment, rest) = bytes.split_first_chunk::<6>()?;
    let at = moment.iter().fold(0, |at, byte| at << 8 | u64::from(*byte));
    Some((Timestamp(at), rest))
}

fn decode_map(id: SessionId, head: Head, map: &[u8]) -> Result<Session, Undecodable> {
    let fields: RecordFields<'_> = rmp_serde::from_slice(map)?;
    let principal =
        Principal { kind: fields.kind.parse()?, id: fields.principal.parse()?, tenant: fields.tenant.parse()? };
    Ok(Session {
        id,
        principal,
        roles: fields.roles.into_iter().map(str::parse).collect::<Result<_, _>>()?,
        provider_session: fields.provider_session.map(str::to_owned),
        actor: fields.actor.map(str::parse).transpose()?,
        method: fields.method.to_owned(),
        verifier: head.verifier,
        authenticated_at: Timestamp(fields.authenticated_at),
        expires_at: head.expires_at,
        extended_until: head.extended_until,
        idle: fields.idle.map(Duration::from_millis),
        last_seen: head.last_seen,
        refresh: head.refresh,
        device: fields.device.map(str::to_owned),
        client: ClientInfo { ip: fields.ip.map(str::to_owned), user_agent: fields.user_agent.map(str::to_owned) },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{PrincipalKind, Shard};

    fn id() -> SessionId {
        SessionId::new(Timestamp(1_800_000_000_001), Shard::of(5), &[0xAB; 10])
    }

    fn full() -> Session {
        Session {
            id: id(),
            principal: Principal {
                kind: PrincipalKind::User,
                id: "user_2b".parse().unwrap(),
                tenant: "acme".parse().unwrap(),
            },
            roles: vec!["org:admin".parse().unwrap()],
            provider_session: Some("sess_1".to_owned()),
            actor: Some("user_op".parse().unwrap()),
            method: "clerk".to_owned(),
            verifier: Verifier([0xEE; 24]),
            authenticated_at: Timestamp(1_800_000_000_000),
            expires_at: Timestamp(1_800_001_800_001),
            extended_until: Timestamp(1_800_001_800_002),
            idle: Some(Duration::from_hours(1)),
            last_seen: Timestamp(1_800_000_000_003),
            refresh: RefreshTurn { turn: 7, since: Timestamp(1_800_000_000_004), agent: AgentMark(*b"safa") },
            device: Some("client_1".to_owned()),
            client: ClientInfo { ip: Some("::1".to_owned()), user_agent: Some("curl".to_owned()) },
        }
    }

    fn bare() -> Session {
        Session {
            roles: Vec::new(),
            provider_session: None,
            actor: None,
            method: String::new(),
            extended_until: Timestamp(0),
            idle: None,
            refresh: RefreshTurn::default(),
            device: None,
            client: ClientInfo::default(),
            ..full()
        }
    }

    // What another release might write: the head of `bare` and the same map with changes.
    fn map_with(change: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) -> Vec<u8> {
        let mut map = serde_json::Map::new();
        for (name, value) in [("k", "user"), ("u", "user_2b"), ("t", "acme")] {
            map.insert(name.to_owned(), value.into());
        }
        map.insert("a".to_owned(), 1_800_000_000_000_u64.into());
        change(&mut map);
        let mut record = Head::of(&bare()).bytes().to_vec();
        record.extend(rmp_serde::to_vec_named(&map).unwrap());
        record
    }

    #[test]
    fn a_session_survives_the_round_trip() {
        for session in [full(), bare()] {
            assert_eq!(decode(id(), &encode(&session).unwrap()).unwrap(), session);
        }
    }

    #[test]
    fn the_bytes_of_version_1_are_pinned() {
        let mut pinned = vec![0x01];
        pinned.extend(b"\x01\xA3\x18\x77\xC7\x41\x01\xA3\x18\x5C\x50\x03\x01\xA3\x18\x77\xC7\x42");
        pinned.extend(b"\0\0\0\x07\x01\xA3\x18\x5C\x50\x04safa");
        pinned.extend(crate::store::handle(&"acme".parse().unwrap(), &"user_2b".parse().unwrap()));
        pinned.extend([0xEE; 24]);
        pinned.extend(b"\x8C\xA1k\xA4user\xA1u\xA7user_2b\xA1t\xA4acme\xA1m\xA5clerk\xA1r\x91\xA9org:admin");
        pinned.extend(b"\xA1s\xA6sess_1\xA1o\xA7user_op\xA1a\xCF\x00\x00\x01\xA3\x18\x5C\x50\x00");
        pinned.extend(b"\xA1l\xCE\x00\x36\xEE\x80\xA1d\xA8client_1\xA1w\xA3::1\xA1g\xA4curl");
        assert_eq!(encode(&full()).unwrap(), pinned);
        assert_eq!(decode(id(), &pinned).unwrap(), full());
    }

    #[test]
    fn a_head_is_changed_in_place() {
        let mut record = encode(&full()).unwrap();
        let expected = Session { last_seen: Timestamp(1_800_000_999_999), ..full() };
        Head { last_seen: Timestamp(1_800_000_999_999), ..Head::read(&record).unwrap() }.write(&mut record);
        assert_eq!(decode(id(), &record).unwrap(), expected);
    }

    #[test]
    fn an_end_stands_before_the_record() {
        let end = End { reason: EndReason::Reuse, at: Timestamp(1_800_000_000_009) };
        let bytes = [encode_end(end).as_slice(), b"record"].concat();
        assert_eq!(bytes[..END], *b"\x05\x01\xA3\x18\x5C\x50\x09");
        assert_eq!(decode_end(&bytes).unwrap(), (end, b"record".as_slice()));
        assert!(matches!(decode_end(&[99, 0, 0, 0, 0, 0, 0]), Err(StoreError::NewerRecord(99))));
        assert!(matches!(decode_end(&bytes[..6]), Err(StoreError::Corrupt(_))));
    }

    #[test]
    fn unknown_fields_are_ignored_and_missing_optional_ones_defaulted() {
        let record = map_with(|map| {
            map.insert("z".to_owned(), serde_json::json!({"later": [1, 2, {"deep": null}]}));
            map.insert("idle".to_owned(), 7.into());
        });
        assert_eq!(decode(id(), &record).unwrap(), bare());
    }

    #[test]
    fn a_newer_version_is_not_corrupt() {
        let mut record = encode(&full()).unwrap();
        record[0] = 2;
        assert!(matches!(decode(id(), &record), Err(StoreError::NewerRecord(2))));
        assert!(matches!(decode(id(), &[255]), Err(StoreError::NewerRecord(255))));
    }

    #[test]
    fn what_does_not_decode_is_corrupt() {
        let good = encode(&full()).unwrap();
        for length in 0..good.len() {
            assert!(matches!(decode(id(), &good[..length]), Err(StoreError::Corrupt(_))), "cut to {length}");
        }
        let wrong = [
            vec![0; PREFIX + 1],
            [Head::of(&bare()).bytes().as_slice(), &[0xC0]].concat(),
            map_with(|map| drop(map.remove("u"))),
            map_with(|map| drop(map.insert("k".to_owned(), "root".into()))),
            map_with(|map| drop(map.insert("u".to_owned(), "a\r\nX-Admin: 1".into()))),
            map_with(|map| drop(map.insert("r".to_owned(), serde_json::json!(["a,b"])))),
            map_with(|map| drop(map.insert("a".to_owned(), "soon".into()))),
        ];
        for record in wrong {
            assert!(matches!(decode(id(), &record), Err(StoreError::Corrupt(_))), "{record:?}");
        }
    }
}
