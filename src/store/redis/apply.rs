//! Tells Redis of revocations, and this replica first.
//!
//! The order never changes: refuse here, then ask Redis. Applying a revocation twice is harmless.

use std::collections::BTreeMap;
use std::convert::Infallible;

use futures_util::future::join_all;
use redis::RedisResult;
use tokio::time::{MissedTickBehavior, interval};

use super::RedisStore;
use super::journal::Revocation;
use super::link::{Cause, Link, Op};
use super::message::Message;
use crate::model::{Shard, TokenId};
use crate::store::{Key, StoreError};
use crate::time::Timestamp;

/// Sessions that one script run revokes.
const CHUNK: usize = 500;

impl RedisStore {
    /// Refuses sessions on this replica from now on.
    pub(super) fn deny(&self, keys: &[Key], expires_at: Timestamp) {
        if keys.is_empty() {
            return;
        }
        let ids: Vec<TokenId> = keys.iter().map(|key| key.id).collect();
        self.revocations.revoke(&ids, expires_at);
        self.journal.remember(keys.iter().copied(), expires_at);
    }

    /// Applies a revocation in Redis and publishes it; returns how many sessions it ended there,
    /// where that is known.
    pub(super) async fn apply(&self, link: &Link, revocation: &Revocation) -> Result<u64, StoreError> {
        match revocation {
            Revocation::Sessions { shard, keys, expires_at } => {
                self.apply_sessions(link, *shard, keys, *expires_at).await.map(|()| 0)
            }
            Revocation::Principal { .. } => self.apply_principal(link, revocation).await,
        }
    }

    /// Tells the other replicas without recording anything: all that is left when Redis refuses
    /// writes. A principal's sessions are not known here and cannot be named.
    pub(super) async fn publish(&self, link: &Link, revocation: &Revocation) -> Result<(), StoreError> {
        let Revocation::Sessions { shard, keys, expires_at } = revocation else { return Ok(()) };
        let ids: Vec<TokenId> = keys.iter().map(|key| key.id).collect();
        let text = Message::unrecorded(&self.nonce(), &self.head(*shard, *expires_at), &ids);
        let mut command = redis::cmd("PUBLISH");
        command.arg(self.keys.channel()).arg(text);
        let mut connection = link.write.connection();
        let sending = async move { command.query_async::<i64>(&mut connection).await };
        self.sender.send(Op::Revoke, link, &link.write, sending).await.map(drop)
    }

    /// Revokes again what a fail-over brought back; a replica does it before it vouches for anything.
    pub(super) async fn reapply(&self, link: &Link) -> RedisResult<()> {
        let groups = by_shard(self.journal.recent());
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

    async fn alive(&self, link: &Link, revocation: &Revocation) -> RedisResult<u64> {
        let Revocation::Sessions { keys, .. } = revocation else { return Ok(0) };
        let mut command = redis::cmd("EXISTS");
        for key in keys {
            command.arg(self.keys.session(*key));
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
        keys: &[Key],
        expires_at: Timestamp,
    ) -> Result<(), StoreError> {
        let mut script = self.scripts.revoke.key(self.keys.control(shard));
        script.arg(self.keys.channel()).arg(self.nonce()).arg(self.head(shard, expires_at));
        for key in keys {
            script.key(self.keys.session(*key)).arg(key.id.to_text());
        }
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<i64>(&mut connection).await };
        self.sender.send(Op::Revoke, link, &link.write, sending).await?;
        self.wait(link, Op::Revoke).await
    }

    async fn apply_principal(&self, link: &Link, revocation: &Revocation) -> Result<u64, StoreError> {
        let Revocation::Principal { tenant, principal, shard, not_before } = revocation else { return Ok(0) };
        // Counted from now: a retry may come long after the revocation was asked for.
        let (shard, expires_at) = (*shard, self.token_end(self.clock.now()));
        let mut script = self.scripts.revoke_principal.key(self.keys.index(shard, tenant, principal));
        script.key(self.keys.not_before(shard, tenant, principal)).key(self.keys.control(shard));
        script.arg(not_before.0).arg(super::millis(super::NOT_BEFORE_KEPT)).arg(self.keys.session_prefix(shard));
        script.arg(self.keys.channel()).arg(self.nonce()).arg(self.head(shard, expires_at));
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<(u64, Vec<String>)>(&mut connection).await };
        let (ended, ids) = self.sender.send(Op::RevokePrincipal, link, &link.write, sending).await?;
        let ids = ids.iter().filter_map(|id| TokenId::from_text(id));
        let keys: Vec<Key> = ids.map(|id| Key { id, shard }).collect();
        self.deny(&keys, expires_at);
        self.wait(link, Op::RevokePrincipal).await?;
        Ok(ended)
    }

    // WAIT answers for the connection it is sent on: it counts the replicas that have all its writes.
    async fn wait(&self, link: &Link, op: Op) -> Result<(), StoreError> {
        if self.wait_replicas == 0 {
            return Ok(());
        }
        let mut command = redis::cmd("WAIT");
        command.arg(self.wait_replicas).arg(super::millis(self.wait_at_most));
        let mut connection = link.write.connection();
        let sending = async move { command.query_async(&mut connection).await as RedisResult<u32> };
        let confirmed = self.sender.send(op, link, &link.write, sending).await?;
        if confirmed >= self.wait_replicas { Ok(()) } else { Err(Cause::Replicas(confirmed).into()) }
    }

    fn head(&self, shard: Shard, expires_at: Timestamp) -> String {
        Message::head(self.clock.now(), shard, expires_at)
    }
}

/// Returns revocations of one shard and at most 500 sessions each.
pub(super) fn by_shard(sessions: Vec<(Key, Timestamp)>) -> Vec<Revocation> {
    let mut shards: BTreeMap<u16, (Shard, Vec<Key>, Timestamp)> = BTreeMap::new();
    for (key, ends) in sessions {
        let (_, keys, expires_at) = shards.entry(key.shard.index()).or_insert_with(|| (key.shard, Vec::new(), ends));
        keys.push(key);
        *expires_at = ends.max(*expires_at);
    }
    let chunked = |(shard, keys, expires_at): (Shard, Vec<Key>, Timestamp)| {
        let chunks: Vec<Vec<Key>> = keys.chunks(CHUNK).map(<[Key]>::to_vec).collect();
        chunks.into_iter().map(move |keys| Revocation::Sessions { shard, keys, expires_at })
    };
    shards.into_values().flat_map(chunked).collect()
}
