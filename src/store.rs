//! Durable homes of sessions, and what each replica knows of revocations.

use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::model::session::AgentMark;
use crate::model::{End, PrincipalId, Session, SessionId, Shard, TenantId, Verifier};
use crate::time::Timestamp;

#[cfg(test)]
pub(crate) mod conformance;
mod measured;
pub mod record;
pub mod redis;
pub mod revocations;
pub mod sqlite;

pub use revocations::{Revocations, Stamp};

/// How long ended sessions stay known to operations that show them. No surface does so yet.
pub const KEEP_ENDED: Duration = Duration::ZERO;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A page of a principal's sessions, newest first.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Which sessions.
    pub which: Which,
    /// The last session of the page before; sessions made before it follow.
    pub after: Option<SessionId>,
    /// How many at most.
    pub limit: usize,
}

/// Which sessions a list shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    /// Those that live.
    Live,
    /// Those that ended no longer ago than `sessions.keep_ended`.
    Ended,
}

/// A session as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The record as it was last.
    pub session: Session,
    /// Why and when it ended, if it did.
    pub ended: Option<End>,
}

/// What changes in a live session because it was used.
#[derive(Clone, Copy, Debug)]
pub struct Touch {
    /// When it was used; never moves back.
    pub seen: Timestamp,
    /// The new end of its opaque token, where a `stream` route extends it; never moves back.
    pub extend_to: Option<Timestamp>,
}

/// A refresh token as presented, its MAC already proven right.
#[derive(Clone, Copy, Debug)]
pub struct Presented {
    /// The turn that it carries.
    pub turn: u32,
    /// What the record must hold.
    pub verifier: Verifier,
    /// Which user agent presents it.
    pub agent: AgentMark,
    /// How long after a turn its predecessor gets the same answer again; zero for never.
    pub grace: Duration,
}

/// The answer to [`SessionStore::rotate`]; the session is as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rotated {
    /// It was due: the next turn has begun.
    Next(Session),
    /// It had just been replaced, by the same user agent: its answer is given again, nothing changed.
    Repeated(Session),
    /// It is genuine and ahead of the record, which lost turns in a fail-over: adopted, and the next turn has begun.
    Ahead(Session),
    /// It was replaced longer ago or is presented by another user agent: it was stolen. Nothing changed.
    Reused(Session),
    /// There is no live session with this secret.
    Gone,
}

/// The answer to [`SessionStore::create`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Created {
    /// Stored; the named older sessions of the principal were ended to stay within the cap.
    Stored {
        /// What had to go, oldest first.
        evicted: Vec<SessionId>,
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
    async fn create(&self, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError>;

    /// Returns the live session with this id.
    ///
    /// `stamp` was read before the call. An implementation that hears of ends over a connection must
    /// read through that same connection, and refuse as unavailable when the stamp's generation is no
    /// longer its own: then no read predates its subscription.
    async fn find(&self, id: SessionId, stamp: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError>;

    /// Records that a live session was used; `false` if it is gone. Never makes a record.
    async fn touch(&self, id: SessionId, touch: Touch, now: Timestamp) -> Result<bool, StoreError>;

    /// Moves a session to its next refresh token, in one step: of concurrent attempts with one token,
    /// one begins the next turn. The grace is measured by the store's clock; a negative age is within it.
    async fn rotate(&self, id: SessionId, presented: Presented, now: Timestamp) -> Result<Rotated, StoreError>;

    /// Ends sessions. `Ok` means durable and published; on `Err` this replica refuses them anyway
    /// and goes on trying to tell the store.
    async fn end(&self, ids: &[SessionId], end: End) -> Result<(), StoreError>;

    /// Ends every session of a principal, also those whose sign-in is under way; returns how many.
    async fn end_principal(&self, tenant: &TenantId, principal: &PrincipalId, end: End) -> Result<u64, StoreError>;

    /// Returns a page of the principal's sessions, newest first. Only operations that show sessions
    /// call it, never the guard.
    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError>;

    /// Remembers a digest until `until`; `false` if it was remembered already.
    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError>;

    /// Returns what this replica knows of revocations.
    fn revocations(&self) -> &std::sync::Arc<Revocations>;
}

/// Returns all live sessions of a principal, newest first, page by page.
pub async fn list_live(
    store: &dyn SessionStore,
    tenant: &TenantId,
    principal: &PrincipalId,
    now: Timestamp,
) -> Result<Vec<Session>, StoreError> {
    const PAGE: usize = 500;
    let (mut sessions, mut after): (Vec<Session>, _) = (Vec::new(), None);
    loop {
        let page = Page { which: Which::Live, after, limit: PAGE };
        let listed = store.list(tenant, principal, page, now).await?;
        after = listed.last().map(|last| last.session.id);
        let last_page = listed.len() < PAGE;
        sessions.extend(listed.into_iter().map(|listed| listed.session));
        if last_page {
            return Ok(sessions);
        }
    }
}

/// Returns the slot that a principal's sessions live in: the same on every replica and release.
pub fn shard_of(tenant: &TenantId, principal: &PrincipalId) -> Shard {
    // FNV-1a: stable for ever, unlike the standard library's hasher.
    let bytes = tenant.as_str().bytes().chain(std::iter::once(0)).chain(principal.as_str().bytes());
    Shard::of(bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)))
}

/// Returns what a principal's index is called: 22 base64url characters for 16 bytes of SHA-256.
fn handle(tenant: &TenantId, principal: &PrincipalId) -> [u8; record::HANDLE] {
    // Identifiers are visible ASCII (model::principal): NUL cannot occur in them, so it separates.
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(tenant.as_str().as_bytes());
    context.update(&[0]);
    context.update(principal.as_str().as_bytes());
    let digest = context.finish();
    let text = URL_SAFE_NO_PAD.encode(digest.as_ref().get(..16).unwrap_or_default());
    let mut handle = [0; record::HANDLE];
    handle.iter_mut().zip(text.bytes()).for_each(|(into, from)| *into = from);
    handle
}
