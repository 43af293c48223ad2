//! The embedded session store: one `SQLite` file, one server process.
//!
//! Sign-ins are written with `synchronous=NORMAL` and revocations with `FULL`: a power cut may cost
//! a sign-in and never undoes a revocation. A revocation is recorded in [`Revocations`] before its
//! commit, so that a failure refuses, and again after it, because an answer read from a snapshot
//! older than the commit must not be filed under a stamp younger than it. A second server on the
//! same file is refused; operators' tools open it beside the server, which notices what they end
//! within a second.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SecureRandom;
use sqlx::{Sqlite, Transaction};
use zeroize::Zeroizing;

use super::measured::StoreMetrics;
use super::{
    Created, Listed, Page, Presented, Revocations, Rotated, SessionStore, Stamp, StoreError, Touch, Which, record,
};
use crate::metrics::Metrics;
use crate::model::{End, EndReason, PrincipalId, Session, SessionId, TenantId};
use crate::secret::random_bytes;
use crate::time::{Clock, Timestamp};

mod change;
mod journal;
mod open;
mod statements;
#[cfg(test)]
mod tests;
mod upkeep;

use journal::{AttemptJournal, Pending};
pub use open::OpenError;

/// The end of a refusal until the file has told the session's own.
const NEVER: Timestamp = Timestamp(u64::MAX);
const ABSENT_REFUSED_FOR: Duration = Duration::from_hours(1);

/// Sessions in a `SQLite` file.
pub struct SqliteStore {
    connections: open::Connections,
    /// One writer at a time. Queueing here is fair; `SQLite` itself waits by polling, and a
    /// stream of sign-ins could then starve a revocation.
    gate: tokio::sync::Mutex<()>,
    revocations: Arc<Revocations>,
    journal: AttemptJournal,
    /// The count of ends by other processes that this one knows of.
    outside_seen: AtomicI64,
    /// How long ended sessions stay known; zero for not at all.
    keep_ended: Duration,
    clock: Arc<dyn Clock>,
    measured: StoreMetrics,
    metrics: Arc<Metrics>,
    /// Held by the server; absent in a tool beside it, whose revocations must therefore be announced.
    lock: Option<std::fs::File>,
}

/// A session that a transaction ends.
struct EndedSession {
    id: SessionId,
    expires_at: Timestamp,
}

impl SqliteStore {
    /// Opens the store for a server, making the file if it is missing; refused while another server has it.
    /// What ended stays known for `keep_ended`.
    pub async fn open(
        path: &Path,
        keep_ended: Duration,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let lock = open::claim(path)?;
        let connections = open::connect(path).await?;
        open::migrate(path, &connections.durable).await?;
        Self::assemble(path, connections, Some(lock), keep_ended, clock, metrics).await
    }

    /// Opens an existing store for a tool, whether or not a server has it.
    pub async fn open_beside(
        path: &Path,
        keep_ended: Duration,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        let connections = open::connect(path).await?;
        open::verify(path, &connections.readers).await?;
        Self::assemble(path, connections, None, keep_ended, clock, metrics).await
    }

    /// Returns the MAC key for tokens, made from `random` on first use and kept.
    pub async fn token_key(&self, random: &(dyn SecureRandom + Sync)) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.kept_key("token_key", random).await
    }

    /// Returns the key under which device ids are hashed, made from `random` on first use and kept.
    pub async fn device_key(&self, random: &(dyn SecureRandom + Sync)) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        self.kept_key("device_key", random).await
    }

    async fn assemble(
        path: &Path,
        connections: open::Connections,
        lock: Option<std::fs::File>,
        keep_ended: Duration,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, OpenError> {
        // Before the first look-up: what is ended from now on is seen to move the count.
        let outside = statements::outside_revocations(&connections.watcher)
            .await
            .map_err(|source| OpenError::Database { path: path.to_owned(), source })?;
        let measured = upkeep::measured(&metrics);
        Ok(Arc::new(Self {
            connections,
            gate: tokio::sync::Mutex::default(),
            revocations: Revocations::sole(clock.clone()),
            journal: AttemptJournal::new(metrics.revocation_journal_depth.clone()),
            outside_seen: AtomicI64::new(outside),
            keep_ended,
            clock,
            measured,
            metrics,
            lock,
        }))
    }

    async fn kept_key(
        &self,
        name: &'static str,
        random: &(dyn SecureRandom + Sync),
    ) -> Result<Zeroizing<[u8; 32]>, StoreError> {
        let candidate = random_bytes::<32>(random).map_err(unavailable)?;
        let kept = {
            let _turn = self.gate.lock().await;
            statements::keep(&self.connections.durable, name, candidate.as_slice()).await.map_err(unavailable)?
        };
        let kept = <[u8; 32]>::try_from(kept.as_slice()).map_err(|error| StoreError::Corrupt(error.into()))?;
        Ok(Zeroizing::new(kept))
    }

    // See the module's header for why twice.
    async fn commit(&self, mut transaction: Transaction<'_, Sqlite>, ended: &[EndedSession]) -> sqlx::Result<()> {
        let Some(last_end) = ended.iter().map(|session| session.expires_at).max() else {
            return transaction.commit().await;
        };
        if self.lock.is_none() {
            statements::announce_outside_revocation(&mut transaction).await?;
        }
        let ids: Vec<SessionId> = ended.iter().map(|session| session.id).collect();
        self.revocations.revoke(&ids, last_end);
        transaction.commit().await?;
        self.revocations.revoke(&ids, last_end);
        Ok(())
    }

    async fn create_within(&self, session: &Session, record: &[u8], cap: u32, now: Timestamp) -> sqlx::Result<Created> {
        let (tenant, principal) = (&session.principal.tenant, &session.principal.id);
        let _turn = self.gate.lock().await;
        let mut transaction = self.connections.relaxed.begin_with("BEGIN IMMEDIATE").await?;
        let not_before = statements::not_before(&mut transaction, tenant, principal).await?;
        if not_before.is_some_and(|moment| session.authenticated_at <= moment) {
            transaction.rollback().await?;
            return Ok(Created::Superseded);
        }
        let filing = self.filing(End { reason: EndReason::Evicted, at: now });
        let evicted = statements::end_oldest(&mut transaction, tenant, principal, cap, filing).await?;
        statements::insert(&mut transaction, session, record).await?;
        self.commit(transaction, &evicted).await?;
        Ok(Created::Stored { evicted: evicted.into_iter().map(|session| session.id).collect() })
    }

    fn filing(&self, end: End) -> statements::EndFiling {
        statements::EndFiling { end, keep: !self.keep_ended.is_zero() }
    }

    async fn end_within(&self, ids: &[SessionId], end: End) -> sqlx::Result<()> {
        let _turn = self.gate.lock().await;
        let mut transaction = self.connections.durable.begin_with("BEGIN IMMEDIATE").await?;
        let ended = statements::end(&mut transaction, ids, self.filing(end)).await?;
        self.commit(transaction, &ended).await?;
        // What was not there needs no refusal that lasts; it had one without an end until now.
        let present: HashSet<SessionId> = ended.iter().map(|session| session.id).collect();
        let absent: Vec<SessionId> = ids.iter().copied().filter(|id| !present.contains(id)).collect();
        self.revocations.revoke(&absent, end.at.plus(ABSENT_REFUSED_FOR));
        Ok(())
    }

    async fn end_principal_within(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        end: End,
    ) -> sqlx::Result<Vec<EndedSession>> {
        let _turn = self.gate.lock().await;
        let mut transaction = self.connections.durable.begin_with("BEGIN IMMEDIATE").await?;
        statements::raise_not_before(&mut transaction, tenant, principal, end.at).await?;
        let ended = statements::end_principal(&mut transaction, tenant, principal, self.filing(end)).await?;
        self.commit(transaction, &ended).await?;
        Ok(ended)
    }

    // The file would not delete; what can still be read is refused by name, and what was cached is
    // forgotten, so that only the file can vouch for it.
    async fn refuse_principal(&self, tenant: &TenantId, principal: &PrincipalId) {
        if let Ok(ended) = statements::ends_of_principal(&self.connections.readers, tenant, principal).await {
            for session in ended {
                self.revocations.revoke(&[session.id], session.expires_at);
            }
        }
        self.forget_answers();
    }
}

#[async_trait]
impl SessionStore for SqliteStore {
    async fn create(&self, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError> {
        let record = record::encode(session)?;
        let work = self.create_within(session, &record, cap, now);
        self.measured("create", async { work.await.map_err(unavailable) }).await
    }

    async fn find(&self, id: SessionId, _stamp: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError> {
        if self.revocations.is_revoked(&id) {
            return Ok(None);
        }
        self.measured("find", statements::find(&self.connections.readers, id, now)).await
    }

    async fn touch(&self, id: SessionId, touch: Touch, now: Timestamp) -> Result<bool, StoreError> {
        if self.revocations.is_revoked(&id) {
            return Ok(false);
        }
        self.measured("touch", change::touch(self, id, touch, now)).await
    }

    async fn rotate(&self, id: SessionId, presented: Presented, now: Timestamp) -> Result<Rotated, StoreError> {
        if self.revocations.is_revoked(&id) || presented.turn == u32::MAX {
            return Ok(Rotated::Gone);
        }
        self.measured("rotate", change::rotate(self, id, presented, now)).await
    }

    async fn end(&self, ids: &[SessionId], end: End) -> Result<(), StoreError> {
        let attempt = self.journal.attempt(ids.iter().copied().map(Pending::Session).collect(), end);
        self.revocations.revoke(ids, NEVER);
        self.measured("end", async { self.end_within(ids, end).await.map_err(unavailable) }).await?;
        attempt.confirm();
        Ok(())
    }

    async fn end_principal(&self, tenant: &TenantId, principal: &PrincipalId, end: End) -> Result<u64, StoreError> {
        let attempt = self.journal.attempt(vec![Pending::Principal(tenant.clone(), principal.clone())], end);
        let work = async { self.end_principal_within(tenant, principal, end).await.map_err(unavailable) };
        let ended = self.measured("end_principal", work).await;
        if ended.is_err() {
            self.refuse_principal(tenant, principal).await;
        }
        let ended = ended?;
        attempt.confirm();
        Ok(ended.iter().map(|session| u64::from(session.expires_at > end.at)).sum())
    }

    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError> {
        let readers = &self.connections.readers;
        let work = async {
            match page.which {
                Which::Live => statements::list_live(readers, tenant, principal, page, now).await,
                Which::Ended => statements::list_ended(readers, tenant, principal, page, now).await,
            }
        };
        let mut listed = self.measured("list", work).await?;
        listed.retain(|listed| listed.ended.is_some() || !self.revocations.is_revoked(&listed.session.id));
        Ok(listed)
    }

    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let work = async {
            let _turn = self.gate.lock().await;
            statements::claim(&self.connections.relaxed, digest, until, now).await.map_err(unavailable)
        };
        self.measured("claim", work).await
    }

    fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }
}

fn unavailable(error: impl Into<super::BoxError>) -> StoreError {
    StoreError::Unavailable(error.into())
}
