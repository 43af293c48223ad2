//! Tells Redis of revocations, and this replica first.
//!
//! The order never changes: refuse here, then ask Redis. Applying a revocation twice is harmless.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures_util::future::join_all;
use redis::{RedisResult, ScriptInvocation};
use tokio::time::{MissedTickBehavior, interval};

use super::RedisStore;
use super::journal::PendingEnd;
use super::keys::{id_text, parse_id};
use super::link::{Cause, Link, StoreOp};
use super::message::Message;
use crate::model::{End, EndReason, SessionId, Shard};
use crate::store::{StoreError, record, shard_of};
use crate::time::{Timestamp, millis};

/// Sessions that one script run revokes.
const CHUNK: usize = 500;

impl RedisStore {
    /// Refuses sessions on this replica from now on.
    pub(super) fn deny(&self, ids: &[SessionId], expires_at: Timestamp) {
        if ids.is_empty() {
            return;
        }
        self.revocations.revoke(ids, expires_at);
        self.journal.remember(ids.iter().copied(), expires_at);
    }

    /// Applies a revocation in Redis and publishes it; returns how many sessions it ended there,
    /// where that is known.
    pub(super) async fn apply(&self, link: &Link, revocation: &PendingEnd) -> Result<u64, StoreError> {
        match revocation {
            PendingEnd::Sessions { shard, ids, end, expires_at } => {
                self.apply_sessions(link, *shard, ids, *end, *expires_at).await.map(|()| 0)
            }
            PendingEnd::Principal { .. } => self.apply_principal(link, revocation).await,
        }
    }

    /// Tells the other replicas without recording anything: all that is left when Redis refuses
    /// writes. A principal's sessions are not known here and cannot be named.
    pub(super) async fn publish(&self, link: &Link, revocation: &PendingEnd) -> Result<(), StoreError> {
        let PendingEnd::Sessions { ids, expires_at, .. } = revocation else { return Ok(()) };
        let text = Message::unrecorded(&self.nonce(), &self.head(*expires_at), ids);
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.channel()).arg(text);
        let mut connection = link.write.connection();
        let sending = async move { command.query_async::<i64>(&mut connection).await };
        self.sender.send(StoreOp::End, link, &link.write, sending).await.map(drop)
    }

    /// Revokes again what a fail-over brought back; a replica does it before it vouches for anything.
    pub(super) async fn reapply(&self, link: &Link) -> RedisResult<()> {
        // Why they ended is not in the messages; for the record that a fail-over brought back it is
        // this replica that ends it now.
        let groups = by_shard(self.journal.recent(), End { reason: EndReason::Admin, at: self.clock.now() });
        let checks = groups.iter().map(|revocation| self.alive(link, revocation));
        let alive: Vec<u64> = join_all(checks).await.into_iter().collect::<RedisResult<_>>()?;
        for (revocation, alive) in groups.into_iter().zip(alive).filter(|(_, alive)| *alive > 0) {
            self.metrics.invalidation_resurrected.inc_by(alive);
            tracing::warn!(sessions = alive, "revoked sessions were back, revoking them again");
            if self.apply(link, &revocation).await.is_err() {
                self.journal.push(revocation);
            }
        }
        Ok(())
    }

    async fn alive(&self, link: &Link, revocation: &PendingEnd) -> RedisResult<u64> {
        let PendingEnd::Sessions { ids, .. } = revocation else { return Ok(0) };
        let mut command = redis::cmd("EXISTS");
        for id in ids {
            command.arg(self.keys.session(*id));
        }
        command.query_async(&mut link.read.connection()).await
    }

    /// Tries with every heartbeat what Redis has not acknowledged. Never returns.
    pub(super) async fn retry(&self, link: &Link) -> Infallible {
        let mut ticks = interval(self.heartbeat);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.journal.added() => {}
                _ = ticks.tick() => {}
            }
            for (number, entry) in self.journal.unconfirmed() {
                if !entry.published && self.publish(link, &entry.revocation).await.is_ok() {
                    self.journal.mark_published(number);
                }
                if self.apply(link, &entry.revocation).await.is_ok() {
                    self.journal.confirm(number);
                }
            }
        }
    }

    async fn apply_sessions(
        &self,
        link: &Link,
        shard: Shard,
        ids: &[SessionId],
        end: End,
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut script = self.scripts.end.key(self.keys.control(shard));
        script.arg(self.keys.channel()).arg(self.nonce()).arg(self.head(expires_at));
        self.filing(&mut script, shard, end);
        for id in ids {
            script.key(self.keys.session(*id)).arg(id_text(*id));
        }
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<i64>(&mut connection).await };
        self.sender.send(StoreOp::End, link, &link.write, sending).await?;
        self.wait(link, StoreOp::End).await
    }

    async fn apply_principal(&self, link: &Link, revocation: &PendingEnd) -> Result<u64, StoreError> {
        let PendingEnd::Principal { tenant, principal, end } = revocation else { return Ok(0) };
        // Counted from now: a retry may come long after the revocation was asked for.
        let (shard, expires_at) = (shard_of(tenant, principal), self.credentials_end(self.clock.now()));
        let mut script = self.scripts.end_principal.key(self.keys.index(tenant, principal));
        script.key(self.keys.not_before(tenant, principal)).key(self.keys.control(shard));
        script.arg(self.keys.channel()).arg(self.nonce()).arg(self.head(expires_at));
        script.arg(end.at.0).arg(millis(super::NOT_BEFORE_KEPT));
        self.filing(&mut script, shard, *end);
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<(u64, Vec<String>)>(&mut connection).await };
        let (ended, ids) = self.sender.send(StoreOp::EndPrincipal, link, &link.write, sending).await?;
        let ids: Vec<SessionId> = ids.iter().filter_map(|id| parse_id(id)).collect();
        self.deny(&ids, expires_at);
        self.wait(link, StoreOp::EndPrincipal).await?;
        Ok(ended)
    }

    // WAIT answers for the connection it is sent on: it counts the replicas that have all its writes.
    async fn wait(&self, link: &Link, op: StoreOp) -> Result<(), StoreError> {
        if self.wait_replicas == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("WAIT");
        command.arg(self.wait_replicas).arg(millis(self.wait_at_most));
        let mut connection = link.write.connection();
        let sending = async move { command.query_async(&mut connection).await as RedisResult<u32> };
        let confirmed = self.sender.send(op, link, &link.write, sending).await?;
        if confirmed >= self.wait_replicas { Ok(()) } else { Err(Cause::Replicas(confirmed).into()) }
    }

    /// Returns the part of a message that scripts take as one argument.
    pub(super) fn head(&self, expires_at: Timestamp) -> String {
        Message::head(self.clock.now(), expires_at)
    }

    /// Adds the arguments with which a script files sessions that have ended.
    pub(super) fn filing(&self, script: &mut ScriptInvocation<'_>, shard: Shard, end: End) {
        script.arg(self.keys.session_prefix(shard)).arg(self.keys.index_prefix(shard));
        script.arg(self.keys.ended_prefix(shard)).arg(self.keys.ended_index_prefix(shard));
        script.arg(record::encode_end(end).as_slice()).arg(millis(self.keep_ended));
    }
}

/// Returns revocations of one shard and at most 500 sessions each.
pub(super) fn by_shard(sessions: Vec<(SessionId, Timestamp)>, end: End) -> Vec<PendingEnd> {
    let mut shards: BTreeMap<u16, (Shard, Vec<SessionId>, Timestamp)> = BTreeMap::new();
    for (id, ends) in sessions {
        let shard = id.shard();
        let (_, ids, expires_at) = shards.entry(shard.index()).or_insert_with(|| (shard, Vec::new(), ends));
        ids.push(id);
        *expires_at = ends.max(*expires_at);
    }
    let chunked = |(shard, ids, expires_at): (Shard, Vec<SessionId>, Timestamp)| {
        let chunks: Vec<Vec<SessionId>> = ids.chunks(CHUNK).map(<[SessionId]>::to_vec).collect();
        chunks.into_iter().map(move |ids| PendingEnd::Sessions { shard, ids, end, expires_at })
    };
    shards.into_values().flat_map(chunked).collect()
}
