//! Sessions in Redis, shared by all replicas, and the bus on which they hear of revocations.
//!
//! Reads go over the connection that is subscribed to revocations, and only in the generation of
//! the caller's stamp: no answer is older than the subscription. Writes are Lua scripts on a
//! second connection. Not connected, not answered in time, not a primary, out of memory: all of it
//! is `Unavailable`, at once, and never "no such session".

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use async_trait::async_trait;
use tokio::sync::Notify;
use uuid::Uuid;

use self::client::{Deadlines, Target};
use self::journal::{Filing, Journal, Revocation};
use self::keys::Keys;
use self::link::{Cause, Link, Op, Sender};
use self::scripts::Scripts;
use super::{Created, Key, RevokeReason, SessionStore, Stamp, StoreError, record, revocations::Revocations};
use crate::config;
use crate::metrics::Metrics;
use crate::model::{PrincipalId, Session, Shard, TenantId, TokenId};
use crate::time::{Clock, Timestamp};

mod apply;
mod client;
mod hearing;
mod journal;
mod keys;
mod link;
mod message;
mod scripts;
mod supervisor;
#[cfg(test)]
mod tests;

pub use client::RedisConfigError;

/// How long sign-ins from before a principal's revocation stay void.
const NOT_BEFORE_KEPT: Duration = Duration::from_hours(30 * 24);
/// Tombstones outlive every token; a token's end is not known where it is revoked by id.
const TOMBSTONE_MIN: Duration = Duration::from_hours(1);
/// How far back revocations are applied again after a reconnect: longer than a fail-over takes.
const REAPPLY_WINDOW: Duration = Duration::from_mins(10);
/// A cluster's bus promises nothing, so answers must not be kept long.
const CLUSTER_CACHE_TTL: Duration = Duration::from_secs(5);

/// A way to connect that has been checked and is not in use yet.
pub struct NewCredentials(Target);

/// A session store on Redis.
pub struct RedisStore {
    target: ArcSwap<Target>,
    /// Another target was set.
    rotated: Notify,
    keys: Arc<Keys>,
    scripts: Scripts,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    revocations: Arc<Revocations>,
    journal: Arc<Journal>,
    sender: Sender,
    link: ArcSwapOption<Link>,
    deadlines: Deadlines,
    heartbeat: Duration,
    lease: Duration,
    token_life: Duration,
    wait_replicas: u32,
    wait_at_most: Duration,
    /// Tells this replica's script runs from others'. Not a secret, so not from a given source.
    instance: String,
    runs: AtomicU64,
}

impl RedisStore {
    /// Returns the store that the configuration names, not yet connected: [`run`](Self::run) does
    /// that. Fails only for what no Redis could mend.
    pub fn connect(
        config: &config::Sessions,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisConfigError> {
        let heartbeat = config.revocation.heartbeat;
        let answer = heartbeat.max(config.redis.timeout);
        let deadlines = Deadlines { connect: config.redis.connect_timeout, answer };
        let target = Target::new(config, deadlines)?;
        let keys = Arc::new(Keys::new(&config.redis.key_prefix, target.is_cluster()));
        Ok(Arc::new(Self {
            keys,
            scripts: Scripts::new(),
            revocations: Revocations::new(clock.clone()),
            journal: Journal::new(clock.clone(), metrics.clone(), REAPPLY_WINDOW),
            sender: Sender::new(config.redis.timeout, metrics.clone()),
            link: ArcSwapOption::empty(),
            deadlines,
            heartbeat,
            lease: config.revocation.lease,
            token_life: config.ttl.max(TOMBSTONE_MIN),
            wait_replicas: config.revocation.wait_replicas,
            wait_at_most: config.redis.timeout / 2,
            instance: Uuid::new_v4().simple().to_string(),
            runs: AtomicU64::new(0),
            target: ArcSwap::from_pointee(target),
            rotated: Notify::new(),
            clock,
            metrics,
        }))
    }

    /// Returns how to connect with the password and the certificates of `config`; nothing changes yet.
    pub fn check_credentials(&self, config: &config::Sessions) -> Result<NewCredentials, RedisConfigError> {
        Target::new(config, self.deadlines).map(NewCredentials)
    }

    /// Connects with these from now on. The connections in use go on, under the new password if Redis
    /// takes it; those of a cluster, which come and go by themselves, are made anew at once.
    pub fn use_credentials(&self, NewCredentials(target): NewCredentials) {
        self.target.store(Arc::new(target));
        self.rotated.notify_one();
    }

    /// Returns how long at most an answer may be cached; `None` where revocations are certain to be heard.
    pub fn cache_ttl_cap(&self) -> Option<Duration> {
        self.target.load().is_cluster().then_some(CLUSTER_CACHE_TTL)
    }

    fn linked(&self, op: Op) -> Result<Arc<Link>, StoreError> {
        self.link.load_full().ok_or_else(|| self.sender.refuse(op, Cause::NotConnected))
    }

    fn nonce(&self) -> String {
        format!("{}-{}", self.instance, self.runs.fetch_add(1, Ordering::Relaxed))
    }

    fn token_end(&self, revoked_at: Timestamp) -> Timestamp {
        revoked_at.plus(self.token_life)
    }

    async fn carry_out(&self, op: Op, filing: Filing<'_>) -> Result<u64, StoreError> {
        let link = self.linked(op)?;
        let ended = match filing.revocation() {
            Some(revocation) => self.apply(&link, revocation).await?,
            None => 0,
        };
        filing.confirm();
        Ok(ended)
    }

    // What this replica refuses is gone for it, also while Redis could not be told to delete it.
    async fn read(&self, op: Op, link: &Link, key: Key, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let lane = if op == Op::Find { &link.read } else { &link.write };
        let mut command = redis::cmd("GET");
        command.arg(self.keys.session(key));
        let mut connection = lane.connection();
        let sending = async move { command.query_async::<Option<Vec<u8>>>(&mut connection).await };
        let found = self.sender.send(op, link, lane, sending).await?;
        let session = found.map(|bytes| record::decode(key.id, &bytes)).transpose()?;
        Ok(session.filter(|session| !session.is_expired(now) && !self.revocations.is_revoked(&key.id)))
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn create(&self, key: Key, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError> {
        let link = self.linked(Op::Create)?;
        let (shard, tenant, principal) = (key.shard, &session.principal.tenant, &session.principal.id);
        let expires_at = self.token_end(now);
        let mut script = self.scripts.create.key(self.keys.session(key));
        script.key(self.keys.index(shard, tenant, principal)).key(self.keys.not_before(shard, tenant, principal));
        script.key(self.keys.control(shard));
        script.arg(record::encode(session)?).arg(ttl(session.expires_at, now)).arg(now.0);
        script.arg(session.authenticated_at.0).arg(cap).arg(key.id.to_text()).arg(index_entry(session));
        script.arg(self.keys.session_prefix(shard)).arg(self.keys.channel()).arg(self.nonce());
        script.arg(message::Message::head(self.clock.now(), shard, expires_at));
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<Vec<String>>(&mut connection).await };
        let answer = self.sender.send(Op::Create, &link, &link.write, sending).await?;
        match answer.split_first() {
            Some((word, evicted)) if word == "stored" => {
                let evicted: Vec<TokenId> = evicted.iter().filter_map(|id| TokenId::from_text(id)).collect();
                let keys: Vec<Key> = evicted.iter().map(|id| Key { id: *id, shard }).collect();
                self.deny(&keys, expires_at);
                Ok(Created::Stored { evicted })
            }
            Some((word, _)) if word == "superseded" => Ok(Created::Superseded),
            Some((word, _)) if word == "taken" => Err(Cause::Taken.into()),
            _ => Err(Cause::Answer.into()),
        }
    }

    async fn find(&self, key: Key, stamp: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let link = self.linked(Op::Find)?;
        if link.generation != stamp.generation || !self.revocations.is_current() {
            return Err(self.sender.refuse(Op::Find, Cause::NotConnected));
        }
        self.read(Op::Find, &link, key, now).await
    }

    async fn extend(&self, key: Key, expires_at: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let link = self.linked(Op::Extend)?;
        let Some(mut session) = self.read(Op::Extend, &link, key, now).await? else { return Ok(false) };
        session.expires_at = expires_at;
        let (tenant, principal) = (&session.principal.tenant, &session.principal.id);
        let mut script = self.scripts.extend.key(self.keys.session(key));
        script.key(self.keys.index(key.shard, tenant, principal));
        script.arg(record::encode(&session)?).arg(ttl(expires_at, now));
        script.arg(key.id.to_text()).arg(index_entry(&session));
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<u8>(&mut connection).await };
        Ok(self.sender.send(Op::Extend, &link, &link.write, sending).await? == 1)
    }

    async fn revoke(&self, keys: &[Key], _reason: RevokeReason, now: Timestamp) -> Result<(), StoreError> {
        let expires_at = self.token_end(now);
        self.deny(keys, expires_at);
        let sessions = keys.iter().map(|key| (*key, expires_at)).collect();
        let filings: Vec<_> = apply::by_shard(sessions).into_iter().map(|one| self.journal.file(one)).collect();
        // After one failure the rest is left to the journal: the caller's time is bounded.
        for filing in filings {
            self.carry_out(Op::Revoke, filing).await?;
        }
        Ok(())
    }

    async fn revoke_principal(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        shard: Shard,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        let (tenant, principal) = (tenant.clone(), principal.clone());
        let revocation = Revocation::Principal { tenant, principal, shard, not_before: now };
        self.carry_out(Op::RevokePrincipal, self.journal.file(revocation)).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        shard: Shard,
        now: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        let link = self.linked(Op::List)?;
        let mut names = redis::cmd("HKEYS");
        names.arg(self.keys.index(shard, tenant, principal));
        let mut connection = link.write.connection();
        let sending = async move { names.query_async::<Vec<String>>(&mut connection).await };
        let ids = self.sender.send(Op::List, &link, &link.write, sending).await?;
        let ids: Vec<TokenId> = ids.iter().filter_map(|id| TokenId::from_text(id)).collect();
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut records = redis::cmd("MGET");
        for id in &ids {
            records.arg(self.keys.session(Key { id: *id, shard }));
        }
        let mut connection = link.write.connection();
        let sending = async move { records.query_async::<Vec<Option<Vec<u8>>>>(&mut connection).await };
        let records = self.sender.send(Op::List, &link, &link.write, sending).await?;
        let found = ids.into_iter().zip(records).filter_map(|(id, bytes)| Some(record::decode(id, &bytes?)));
        let mut sessions = found.collect::<Result<Vec<_>, _>>()?;
        sessions.retain(|session| !session.is_expired(now) && !self.revocations.is_revoked(&session.token_id));
        sessions.sort_by_key(|session| std::cmp::Reverse(session.created_at));
        Ok(sessions)
    }

    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let link = self.linked(Op::Claim)?;
        let mut command = redis::cmd("SET");
        command.arg(self.keys.claim(digest)).arg("").arg("NX").arg("PX").arg(ttl(until, now));
        let mut connection = link.write.connection();
        let sending = async move { command.query_async::<Option<String>>(&mut connection).await };
        Ok(self.sender.send(Op::Claim, &link, &link.write, sending).await?.is_some())
    }

    fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }
}

// Redis refuses a lifetime of zero.
fn ttl(expires_at: Timestamp, now: Timestamp) -> u64 {
    millis(expires_at.since(now)).max(1)
}

fn index_entry(session: &Session) -> String {
    format!("{}:{}", session.created_at.0, session.expires_at.0)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
