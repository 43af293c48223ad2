//! Durable homes of sessions, and what each replica knows of revocations.

use async_trait::async_trait;

use crate::model::{Principal, PrincipalId, Session, Shard, TenantId, TokenId};
use crate::time::Timestamp;

#[cfg(test)]
pub(crate) mod conformance;
pub mod record;
pub mod redis;
pub mod revocations;
pub mod sqlite;

pub use revocations::{Revocations, Stamp};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Where a session is filed: its token id, and the slot that the token itself names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The keyed hash of the token.
    pub id: TokenId,
    /// The principal's slot.
    pub shard: Shard,
}

/// Why a session came to be refused before its time. One name per metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RevokeReason {
    /// Its holder signed out.
    Logout,
    /// An operator or an API call ended it.
    Admin,
    /// All sessions of its principal were ended at once.
    Principal,
    /// A newer session took its place under the per-principal cap.
    Evicted,
}

/// The answer to [`SessionStore::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Stored; the named older sessions of the principal were revoked to stay within the cap.
    Stored {
        /// What had to go, oldest first.
        evicted: Vec<TokenId>,
    },
    /// The principal was revoked as a whole at or after the identity was authenticated.
    Superseded,
}

/// The store could not answer. Callers say 503, never 401: not knowing is not refusing.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Unreachable, timed out, read-only, out of memory, not yet connected.
    #[error("session store unavailable")]
    Unavailable(#[source] BoxError),
    /// A record was written by a version of Doorward that is newer than this one.
    #[error("session record has version {0}, newer than this build reads")]
    NewerRecord(u8),
    /// A record does not decode.
    #[error("session record is corrupt")]
    Corrupt(#[source] BoxError),
}

/// Durable home of sessions. Every implementation passes `store::conformance`.
///
/// `now` is the caller's wall clock; a store with a clock of its own (Redis TTLs) may be stricter.
#[async_trait]
pub trait SessionStore: Send + Sync + 'static {
    /// Stores a session, ending the principal's oldest ones beyond `cap`.
    async fn create(&self, key: Key, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError>;

    /// Returns the live session filed under `key`.
    ///
    /// `stamp` was read before the call. An implementation that hears of revocations over a
    /// connection must read through that same connection, and refuse as unavailable when the
    /// stamp's generation is no longer its own: then no read predates its subscription.
    async fn find(&self, key: Key, stamp: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError>;

    /// Moves the end of a live session to `expires_at`; `false` if it is gone.
    async fn extend(&self, key: Key, expires_at: Timestamp, now: Timestamp) -> Result<bool, StoreError>;

    /// Ends sessions. `Ok` means durable and published; on `Err` this replica refuses them anyway
    /// and goes on trying to tell the store.
    async fn revoke(&self, keys: &[Key], reason: RevokeReason, now: Timestamp) -> Result<(), StoreError>;

    /// Ends every session of a principal, also those whose sign-in is under way; returns how many.
    async fn revoke_principal(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        shard: Shard,
        now: Timestamp,
    ) -> Result<u64, StoreError>;

    /// Returns the principal's live sessions, newest first.
    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        shard: Shard,
        now: Timestamp,
    ) -> Result<Vec<Session>, StoreError>;

    /// Remembers a digest until `until`; `false` if it was remembered already.
    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError>;

    /// Returns what this replica knows of revocations.
    fn revocations(&self) -> &std::sync::Arc<Revocations>;
}

/// Returns the slot that a principal's sessions live in: the same on every replica and release.
pub fn shard_of(principal: &Principal) -> Shard {
    shard_of_parts(&principal.tenant, &principal.id)
}

/// As [`shard_of`], for callers that have the parts only.
pub fn shard_of_parts(tenant: &TenantId, principal: &PrincipalId) -> Shard {
    // FNV-1a: stable for ever, unlike the standard library's hasher.
    let bytes = tenant.as_str().bytes().chain(std::iter::once(0)).chain(principal.as_str().bytes());
    Shard::of(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

impl RevokeReason {
    /// Returns the stable name used in messages and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logout => "logout",
            Self::Admin => "admin",
            Self::Principal => "principal",
            Self::Evicted => "evicted",
        }
    }
}
