//! Sessions in Redis, shared by all replicas, and the channel on which they learn of revocations.
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

use self::client::{RedisDeadlines, Target};
use self::journal::{Filing, Journal, PendingEnd};
use self::keys::{Keys, id_text, parse_id};
use self::link::{Cause, CommandSender, Link, StoreOp};
use self::scripts::Scripts;
use super::revocations::Revocations;
use super::{Created, Listed, Page, Presented, Rotated, SessionStore, Stamp, StoreError, Touch, record};
use crate::config;
use crate::metrics::Metrics;
use crate::model::{End, EndReason, PrincipalId, Session, SessionId, TenantId};
use crate::time::{Clock, Timestamp, millis};

mod apply;
mod client;
mod journal;
mod keys;
mod link;
mod list;
mod message;
mod scripts;
mod subscriber;
mod supervisor;
#[cfg(test)]
mod tests;

pub use client::RedisConfigError;

/// How long sign-ins from before a principal's revocation stay void.
const NOT_BEFORE_KEPT: Duration = Duration::from_hours(30 * 24);
/// Tombstones outlive every credential, whose end is not known where its session is ended by id.
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
    sender: CommandSender,
    link: ArcSwapOption<Link>,
    deadlines: RedisDeadlines,
    heartbeat: Duration,
    lease: Duration,
    /// How long the longest credential lives.
    credential_life: Duration,
    /// How long ended sessions stay known; zero for not at all.
    keep_ended: Duration,
    wait_replicas: u32,
    wait_at_most: Duration,
    /// Tells this replica's script runs from others'. Not a secret, so not from a given source.
    instance: String,
    runs: AtomicU64,
}

impl RedisStore {
    /// Returns the store that the configuration names, not yet connected: [`run`](Self::run) does
    /// that. What ended stays known for `keep_ended`. Fails only for what no Redis could mend.
    pub fn connect(
        config: &config::Sessions,
        keep_ended: Duration,
        clock: Arc<dyn Clock>,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, RedisConfigError> {
        let heartbeat = config.revocation.heartbeat;
        let answer = heartbeat.max(config.redis.timeout);
        let deadlines = RedisDeadlines { connect: config.redis.connect_timeout, answer };
        let target = Target::new(config, deadlines)?;
        let keys = Arc::new(Keys::new(&config.redis.key_prefix, target.is_cluster()));
        Ok(Arc::new(Self {
            keys,
            scripts: Scripts::new(),
            revocations: Revocations::new(clock.clone()),
            journal: Journal::new(clock.clone(), metrics.clone(), REAPPLY_WINDOW),
            sender: CommandSender::new(config.redis.timeout, metrics.clone()),
            link: ArcSwapOption::empty(),
            deadlines,
            heartbeat,
            lease: config.revocation.lease,
            credential_life: config.ttl.max(TOMBSTONE_MIN),
            keep_ended,
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

    /// Returns how long at most an answer may be cached; `None` where every revocation is certain to be received.
    pub fn cache_ttl_cap(&self) -> Option<Duration> {
        self.target.load().is_cluster().then_some(CLUSTER_CACHE_TTL)
    }

    fn linked(&self, op: StoreOp) -> Result<Arc<Link>, StoreError> {
        self.link.load_full().ok_or_else(|| self.sender.refuse(op, Cause::NotConnected))
    }

    fn nonce(&self) -> String {
        format!("{}-{}", self.instance, self.runs.fetch_add(1, Ordering::Relaxed))
    }

    // When the credentials of a session have ended by themselves that was ended at `at`.
    fn credentials_end(&self, at: Timestamp) -> Timestamp {
        at.plus(self.credential_life)
    }

    // Redis refuses a lifetime of zero. A record outlives its session by as long as an ended one is kept.
    fn ttl(&self, expires_at: Timestamp, now: Timestamp) -> u64 {
        millis(expires_at.since(now) + self.keep_ended).max(1)
    }

    async fn carry_out(&self, op: StoreOp, filing: Filing<'_>) -> Result<u64, StoreError> {
        let link = self.linked(op)?;
        let ended = match filing.revocation() {
            Some(revocation) => self.apply(&link, revocation).await?,
            None => 0,
        };
        filing.confirm();
        Ok(ended)
    }

    async fn run_rotation(&self, id: SessionId, presented: Presented, now: Timestamp) -> Result<Rotated, StoreError> {
        let link = self.linked(StoreOp::Rotate)?;
        let mut script = self.scripts.rotate.key(self.keys.session(id));
        script.arg(presented.turn).arg(&presented.verifier.0[..]).arg(&presented.agent.0[..]);
        script.arg(millis(presented.grace)).arg(now.0);
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<(String, Option<Vec<u8>>)>(&mut connection).await };
        let (word, record) = self.sender.send(StoreOp::Rotate, &link, &link.write, sending).await?;
        let Some(record) = record else { return Ok(Rotated::Gone) };
        let session = record::decode(id, &record)?;
        match word.as_str() {
            "next" => Ok(Rotated::Next(session)),
            "repeated" => Ok(Rotated::Repeated(session)),
            "ahead" => Ok(Rotated::Ahead(session)),
            "reused" => Ok(Rotated::Reused(session)),
            _ => Err(Cause::Answer.into()),
        }
    }
}

#[async_trait]
impl SessionStore for RedisStore {
    async fn create(&self, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError> {
        let link = self.linked(StoreOp::Create)?;
        let (shard, tenant, principal) = (session.id.shard(), &session.principal.tenant, &session.principal.id);
        let expires_at = self.credentials_end(now);
        let mut script = self.scripts.create.key(self.keys.session(session.id));
        script.key(self.keys.index(tenant, principal)).key(self.keys.not_before(tenant, principal));
        script.key(self.keys.control(shard));
        script.arg(record::encode(session)?).arg(self.ttl(session.expires_at, now)).arg(now.0);
        script.arg(session.authenticated_at.0).arg(cap).arg(id_text(session.id));
        script.arg(self.keys.channel()).arg(self.nonce()).arg(self.head(expires_at));
        self.filing(&mut script, shard, End { reason: EndReason::Evicted, at: now });
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<Vec<String>>(&mut connection).await };
        let answer = self.sender.send(StoreOp::Create, &link, &link.write, sending).await?;
        match answer.split_first() {
            Some((word, evicted)) if word == "stored" => {
                let evicted: Vec<SessionId> = evicted.iter().filter_map(|id| parse_id(id)).collect();
                self.deny(&evicted, expires_at);
                Ok(Created::Stored { evicted })
            }
            Some((word, _)) if word == "superseded" => Ok(Created::Superseded),
            Some((word, _)) if word == "taken" => Err(Cause::Taken.into()),
            _ => Err(Cause::Answer.into()),
        }
    }

    // What this replica refuses is gone for it, also while Redis could not be told to delete it.
    async fn find(&self, id: SessionId, stamp: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError> {
        let link = self.linked(StoreOp::Find)?;
        if link.generation != stamp.generation || !self.revocations.is_current() {
            return Err(self.sender.refuse(StoreOp::Find, Cause::NotConnected));
        }
        let mut command = redis::cmd("GET");
        command.arg(self.keys.session(id));
        let mut connection = link.read.connection();
        let sending = async move { command.query_async::<Option<Vec<u8>>>(&mut connection).await };
        let found = self.sender.send(StoreOp::Find, &link, &link.read, sending).await?;
        let session = found.map(|bytes| record::decode(id, &bytes)).transpose()?;
        Ok(session.filter(|session| !session.is_expired(now) && !self.revocations.is_revoked(&id)))
    }

    async fn touch(&self, id: SessionId, touch: Touch, now: Timestamp) -> Result<bool, StoreError> {
        if self.revocations.is_revoked(&id) {
            return Ok(false);
        }
        let link = self.linked(StoreOp::Touch)?;
        let mut script = self.scripts.touch.key(self.keys.session(id));
        script.arg(touch.seen.0).arg(touch.extend_to.unwrap_or_default().0).arg(now.0);
        script.arg(millis(self.keep_ended)).arg(self.keys.index_prefix(id.shard()));
        let mut connection = link.write.connection();
        let sending = async move { script.invoke_async::<i64>(&mut connection).await };
        match self.sender.send(StoreOp::Touch, &link, &link.write, sending).await? {
            0 => Ok(false),
            1 => Ok(true),
            newer => Err(StoreError::NewerRecord(u8::try_from(-newer).unwrap_or(u8::MAX))),
        }
    }

    async fn rotate(&self, id: SessionId, presented: Presented, now: Timestamp) -> Result<Rotated, StoreError> {
        if self.revocations.is_revoked(&id) || presented.turn == u32::MAX {
            return Ok(Rotated::Gone);
        }
        self.run_rotation(id, presented, now).await
    }

    async fn end(&self, ids: &[SessionId], end: End) -> Result<(), StoreError> {
        let expires_at = self.credentials_end(end.at);
        self.deny(ids, expires_at);
        let sessions = ids.iter().map(|id| (*id, expires_at)).collect();
        let filings: Vec<_> = apply::by_shard(sessions, end).into_iter().map(|one| self.journal.file(one)).collect();
        // After one failure the rest is left to the journal: the caller's time is bounded.
        for filing in filings {
            self.carry_out(StoreOp::End, filing).await?;
        }
        Ok(())
    }

    async fn end_principal(&self, tenant: &TenantId, principal: &PrincipalId, end: End) -> Result<u64, StoreError> {
        let revocation = PendingEnd::Principal { tenant: tenant.clone(), principal: principal.clone(), end };
        self.carry_out(StoreOp::EndPrincipal, self.journal.file(revocation)).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError> {
        self.list_page(tenant, principal, page, now).await
    }

    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let link = self.linked(StoreOp::Claim)?;
        let lifetime = millis(until.since(now)).max(1);
        let mut command = redis::cmd("SET");
        command.arg(self.keys.claim(digest)).arg("").arg("NX").arg("PX").arg(lifetime);
        let mut connection = link.write.connection();
        let sending = async move { command.query_async::<Option<String>>(&mut connection).await };
        Ok(self.sender.send(StoreOp::Claim, &link, &link.write, sending).await?.is_some())
    }

    fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }
}
