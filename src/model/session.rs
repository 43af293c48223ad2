//! The server-side record that makes a session's credentials valid.

use std::fmt;
use std::time::Duration;

use subtle::ConstantTimeEq;
use uuid::{Builder, Uuid};

use crate::model::{ActorId, Principal, Role};
use crate::time::Timestamp;

/// How many slots sessions are spread over, so that one principal's data shares a Redis slot.
pub const SHARDS: u16 = 64;

const SHARD_BITS: u8 = 0b0011_1111;

/// A session's identifier: a `UUIDv7` (RFC 9562 §5.7), so ids sort by when sessions were made. Its last
/// six bits name the shard, so the id alone finds its place in every store. Safe to log and to show;
/// it opens nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(Uuid);

/// Which slot a principal's sessions live in: 0 to [`SHARDS`] - 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Shard(u16);

/// The digest of a session's secret. Every credential that carries a secret must match it; the store
/// holds it in place of the secret, from which it cannot be led back.
#[derive(Clone, Copy)]
pub struct Verifier(pub [u8; 24]);

/// One sign-in. The store's copy is authoritative; a credential without one is worth nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// What it is filed under.
    pub id: SessionId,
    /// Who it acts for.
    pub principal: Principal,
    /// Roles inside the tenant.
    pub roles: Vec<Role>,
    /// The provider's session that this one came from (Clerk `sid`).
    pub provider_session: Option<String>,
    /// Who acts in the principal's name, when the provider said so.
    pub actor: Option<ActorId>,
    /// How it was begun: the metric label of the way in.
    pub method: String,
    /// What the secret of its credentials must match.
    pub verifier: Verifier,
    /// When the provider authenticated the caller.
    pub authenticated_at: Timestamp,
    /// When the record ends at the latest: the end of its longest credential.
    pub expires_at: Timestamp,
    /// Until when an opaque token lives that a `stream` route has extended; the start of time if none has.
    pub extended_until: Timestamp,
    /// After how long without a request its cookie is refused; `None` where it has no such cookie.
    pub idle: Option<Duration>,
    /// When it was last written that a request used it.
    pub last_seen: Timestamp,
    /// Which refresh token is due, and since when.
    pub refresh: RefreshTurn,
    /// The browser or device that holds it.
    pub device: Option<String>,
    /// What the caller looked like at sign-in; parsed only where it is shown.
    pub client: ClientInfo,
}

/// The counter that a refresh token carries: a successor has the next turn, the one before it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RefreshTurn {
    /// The turn of the token that is due.
    pub turn: u32,
    /// When that turn began, by the store's clock.
    pub since: Timestamp,
    /// Which user agent began it: a digest that only tells one agent from another.
    pub agent: AgentMark,
}

/// Four bytes of a user agent's digest. Not a secret and no identifier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AgentMark(pub [u8; 4]);

/// What a caller looked like when its session began.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientInfo {
    /// The address it came from.
    pub ip: Option<String>,
    /// Its `User-Agent`, cut to a bound by the surface that took it.
    pub user_agent: Option<String>,
}

/// Why and when a session ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Why.
    pub reason: EndReason,
    /// When.
    pub at: Timestamp,
}

/// Why a session ended. One name per metric label; the code is what stores keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EndReason {
    /// Its holder signed out.
    Logout,
    /// An operator or an API call ended it.
    Admin,
    /// All sessions of its principal were ended at once.
    Principal,
    /// A newer session took its place under the per-principal cap.
    Evicted,
    /// A refresh token was used that had been replaced longer ago than the grace: it was stolen.
    Reuse,
    /// Its time had passed; only operations that show sessions say so.
    Expired,
}

impl SessionId {
    /// Returns a new id that sorts by `at` (to the millisecond) and is filed in `shard`.
    pub fn new(at: Timestamp, shard: Shard, random: &[u8; 10]) -> Self {
        let mut bytes = Builder::from_unix_timestamp_millis(at.0, random).into_uuid().into_bytes();
        let [.., last] = &mut bytes;
        *last = (*last & !SHARD_BITS) | u8::try_from(shard.0).unwrap_or_default();
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the id with these bytes, which need not be a session's: then it finds none.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }

    /// Returns the id as a UUID: its public form.
    pub fn uuid(self) -> Uuid {
        self.0
    }

    /// Returns the id's sixteen bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Returns when the session was made, to the millisecond.
    pub fn created_at(self) -> Timestamp {
        let (seconds, nanos) = self.0.get_timestamp().map_or((0, 0), |at| at.to_unix());
        Timestamp(seconds.saturating_mul(1000).saturating_add(u64::from(nanos / 1_000_000)))
    }

    /// Returns the slot that the session is filed in.
    pub fn shard(self) -> Shard {
        let [.., last] = *self.as_bytes();
        Shard(u16::from(last & SHARD_BITS))
    }
}

impl From<Uuid> for SessionId {
    fn from(uuid: Uuid) -> Self {
        Self(uuid)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl Shard {
    /// Returns the slot of a principal's sessions, from any stable hash of the principal.
    pub fn of(hash: u64) -> Self {
        Self(u16::try_from(hash % u64::from(SHARDS)).unwrap_or_default())
    }

    /// Returns the slot's number, 0 to [`SHARDS`] - 1.
    pub fn index(self) -> u16 {
        self.0
    }
}

// In constant time: a caller must not learn how much of a digest it guessed.
impl PartialEq for Verifier {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Verifier {}

impl fmt::Debug for Verifier {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Verifier")
    }
}

impl Session {
    /// Returns whether the record's lifetime has passed at `now`.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }

    /// Returns whether its cookie has gone unused at `now` for longer than its idle limit.
    pub fn is_idle(&self, now: Timestamp) -> bool {
        self.idle.is_some_and(|idle| now >= self.last_seen.plus(idle))
    }
}

#[cfg(test)]
impl Session {
    /// Returns a user's session that says no more than it must, made and seen at `at`.
    pub(crate) fn plain(principal: Principal, shard: Shard, at: Timestamp, expires_at: Timestamp) -> Self {
        let random = Uuid::new_v4().into_bytes();
        let [random @ .., _, _, _, _, _, _] = random;
        Self {
            id: SessionId::new(at, shard, &random),
            principal,
            roles: Vec::new(),
            provider_session: None,
            actor: None,
            method: String::new(),
            verifier: Verifier([7; 24]),
            authenticated_at: at,
            expires_at,
            extended_until: Timestamp(0),
            idle: None,
            last_seen: at,
            refresh: RefreshTurn::default(),
            device: None,
            client: ClientInfo::default(),
        }
    }
}

impl EndReason {
    /// Every reason.
    pub const ALL: [Self; 6] = [Self::Logout, Self::Admin, Self::Principal, Self::Evicted, Self::Reuse, Self::Expired];

    /// Returns the stable name used in metrics and audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Admin => "admin",
            Self::Principal => "principal",
            Self::Evicted => "evicted",
            Self::Reuse => "reuse",
            Self::Expired => "expired",
        }
    }

    /// Returns the code that stores keep. Codes never change.
    pub fn code(self) -> u8 {
        match self {
            Self::Logout => 1,
            Self::Admin => 2,
            Self::Principal => 3,
            Self::Evicted => 4,
            Self::Reuse => 5,
            Self::Expired => 6,
        }
    }

    /// Returns the reason with this code; `None` for one that a newer release may have written.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.code() == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_names_its_shard_and_sorts_by_time() {
        for shard in [0, 1, 31, 63].map(Shard::of) {
            let id = SessionId::new(Timestamp(1_800_000_000_000), shard, &[0xFF; 10]);
            assert_eq!(id.shard(), shard);
            assert_eq!(id.uuid().get_version_num(), 7);
            assert_eq!(id.created_at(), Timestamp(1_800_000_000_000));
            assert!(SessionId::new(Timestamp(1_800_000_000_001), shard, &[0; 10]) > id);
        }
    }

    #[test]
    fn the_codes_of_reasons_never_change() {
        let codes: Vec<(u8, &str)> = EndReason::ALL.iter().map(|reason| (reason.code(), reason.as_str())).collect();
        let pinned = [(1, "logout"), (2, "admin"), (3, "principal"), (4, "evicted"), (5, "reuse"), (6, "expired")];
        assert_eq!(codes, pinned);
        assert_eq!(EndReason::from_code(5), Some(EndReason::Reuse));
        assert_eq!(EndReason::from_code(7), None);
    }

    #[test]
    fn verifiers_are_compared_whole_and_never_shown() {
        let mut other = [7; 24];
        assert_eq!(Verifier([7; 24]), Verifier(other));
        other[23] = 8;
        assert_ne!(Verifier([7; 24]), Verifier(other));
        assert_eq!(format!("{:?}", Verifier([7; 24])), "Verifier");
    }
}
