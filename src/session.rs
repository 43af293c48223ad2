//! The sessions service: the only place that mints tokens and the only place that believes them.
//!
//! A token is believed when its MAC is right, no tombstone names it, and a live record of it was
//! read no longer ago than the revocation bound. "Cannot know" is [`Refusal::Unavailable`] and
//! never a refusal: callers answer 503, not 401.

pub mod audit;
mod cache;
mod find;
pub mod headers;
mod outcome;
mod policy;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SecureRandom;
use prometheus::IntCounter;
use uuid::Uuid;

use self::cache::SessionCache;
pub use self::headers::Caller;
pub use self::outcome::{Refusal, Source, StartError, Started, StoreCall, Validated};
pub use self::policy::Policy;
use crate::config;
use crate::metrics::Metrics;
use crate::model::{
    Identity, ParsedToken, Principal, PrincipalId, PrincipalKind, Session, SessionId, TenantId, TokenError, TokenKey,
    TokenKeys, TokenKind,
};
use crate::store::{Created, Key, Revocations, RevokeReason, SessionStore, StoreError, shard_of, shard_of_parts};
use crate::telemetry::audit::{Action, Event};
use crate::time::{Clock, Timestamp};

/// The sessions service.
pub struct Sessions {
    store: Arc<dyn SessionStore>,
    revocations: Arc<Revocations>,
    cache: SessionCache,
    keys: ArcSwap<TokenKeys>,
    guest_key: TokenKey,
    policy: Policy,
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom + Send + Sync>,
    metrics: Arc<Metrics>,
    results: CacheResults,
}

/// What the service is made of.
pub struct Setup {
    /// Where sessions live.
    pub store: Arc<dyn SessionStore>,
    /// What mints and verifies tokens.
    pub keys: TokenKeys,
    /// What names guests; it must outlive every token key.
    pub guest_key: TokenKey,
    /// How long sessions live.
    pub policy: Policy,
    /// How much is kept in memory.
    pub cache: config::sessions::Cache,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The randomness.
    pub random: Arc<dyn SecureRandom + Send + Sync>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

struct CacheResults {
    hit: IntCounter,
    miss: IntCounter,
    negative: IntCounter,
    stale: IntCounter,
}

impl Sessions {
    /// Returns the service over a store.
    pub fn new(setup: Setup) -> Arc<Self> {
        let Setup { store, keys, guest_key, policy, cache, clock, random, metrics } = setup;
        create_series(&metrics);
        let result = |name| metrics.session_cache_requests.with_label_values(&[name]);
        Arc::new(Self {
            revocations: store.revocations().clone(),
            store,
            cache: SessionCache::new(&cache, &metrics),
            keys: ArcSwap::from_pointee(keys),
            guest_key,
            policy,
            clock,
            random,
            results: CacheResults {
                hit: result("hit"),
                miss: result("miss"),
                negative: result("negative"),
                stale: result("stale"),
            },
            metrics,
        })
    }

    /// Starts a session for a verified identity. `method` is the metric label of the way in.
    pub async fn start(&self, identity: &Identity, method: &'static str) -> Result<Started, StartError> {
        let now = self.clock.now();
        self.claim_proof(identity, now).await?;
        let principal = self.principal_of(identity);
        let shard = shard_of(&principal);
        let expires_at = whole_seconds(now.plus(self.policy.ttl));
        let minted = self.keys.load().mint(TokenKind::Access, shard, expires_at, self.random.as_ref());
        let (token, parsed) = minted.map_err(|_| StartError::Unavailable)?;
        let session = Session {
            id: SessionId(Uuid::now_v7()),
            token_id: parsed.id,
            principal,
            roles: identity.roles.clone(),
            provider_session: identity.provider_session.clone(),
            actor: identity.actor.clone(),
            authenticated_at: identity.authenticated_at,
            created_at: now,
            expires_at,
        };
        let key = Key { id: parsed.id, shard };
        match self.store.create(key, &session, self.policy.max_per_principal, now).await {
            Ok(Created::Stored { evicted }) => {
                self.revocations.revoke(&evicted, expires_at);
                self.note_evicted(&session, evicted.len() as u64);
            }
            Ok(Created::Superseded) => return Err(StartError::Superseded),
            Err(error) => return Err(unavailable(&error, StartError::Unavailable)),
        }
        self.metrics.sessions_created.with_label_values(&[identity.kind.as_str(), method]).inc();
        Ok(Started { token, expires_in: self.policy.ttl, session: Arc::new(session) })
    }

    /// Returns the live session behind a caller's token.
    pub async fn validate(&self, token: &str) -> Result<Validated, Refusal> {
        self.validate_watched(token, &mut None).await
    }

    /// As [`validate`](Self::validate); says in `asked` whether and when the store was asked.
    pub async fn validate_watched(&self, token: &str, asked: &mut Option<StoreCall>) -> Result<Validated, Refusal> {
        let now = self.clock.now();
        let parsed = self.parse(token)?;
        let past_its_time = parsed.nominal_expiry <= now;
        if past_its_time && !self.policy.extendable {
            return Err(Refusal::Expired);
        }
        let found = self.find(Key { id: parsed.id, shard: parsed.shard }, now, asked).await;
        // Once a record is gone, only the token's own expiry tells an end from a revocation.
        found.map_err(|refusal| match refusal {
            Refusal::Revoked if past_its_time => Refusal::Expired,
            other => other,
        })
    }

    /// Returns the session of an exchange that is under way, if it is still live.
    pub async fn confirm(&self, session: &Session) -> Result<Validated, Refusal> {
        self.find(key_of(session), self.clock.now(), &mut None).await
    }

    /// Returns whether this replica knows that the session has been revoked: no I/O.
    pub fn is_revoked(&self, session: &Session) -> bool {
        self.revocations.is_revoked(&session.token_id)
    }

    /// Moves a session's end to a whole lifetime from now: for routes that hold long streams.
    pub async fn extend(&self, session: &Session) -> Result<Arc<Session>, Refusal> {
        let now = self.clock.now();
        let (key, expires_at) = (key_of(session), whole_seconds(now.plus(self.policy.ttl)));
        match self.store.extend(key, expires_at, now).await {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::Revoked),
            Err(error) => return Err(unavailable(&error, Refusal::Unavailable)),
        }
        self.cache.forget(key.id, self.revocations.stamp(&key.id)).await;
        Ok(Arc::new(Session { expires_at, ..session.clone() }))
    }

    /// Ends the session behind a caller's token; when this returns, this replica refuses it.
    ///
    /// Also while nobody can say whether it is live: then it answers `Unavailable`.
    pub async fn end(&self, token: &str) -> Result<Arc<Session>, Refusal> {
        match self.validate(token).await {
            Ok(Validated { session, .. }) => {
                self.revoke(&session, RevokeReason::Logout).await?;
                Ok(session)
            }
            Err(Refusal::Unavailable) => {
                // Whether it is live is not known, but its holder wants it ended: the token itself
                // names its place. The store's journal sees to it once the store is back.
                let ParsedToken { id, shard, .. } = self.parse(token)?;
                let revoked = self.store.revoke(&[Key { id, shard }], RevokeReason::Logout, self.clock.now()).await;
                Err(revoked.map_or_else(|error| unavailable(&error, Refusal::Unavailable), |()| Refusal::Unavailable))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Ends one session. On `Err` this replica refuses it all the same.
    pub async fn revoke(&self, session: &Session, reason: RevokeReason) -> Result<(), Refusal> {
        let revoked = self.store.revoke(&[key_of(session)], reason, self.clock.now()).await;
        revoked.map_err(|error| unavailable(&error, Refusal::Unavailable))?;
        self.count_revoked(reason, 1);
        Ok(())
    }

    /// Ends every session of a principal, also those whose sign-in is under way; returns how many.
    pub async fn revoke_principal(&self, tenant: &TenantId, principal: &PrincipalId) -> Result<u64, Refusal> {
        let shard = shard_of_parts(tenant, principal);
        let revoked = self.store.revoke_principal(tenant, principal, shard, self.clock.now()).await;
        let count = revoked.map_err(|error| unavailable(&error, Refusal::Unavailable))?;
        self.count_revoked(RevokeReason::Principal, count);
        Ok(count)
    }

    /// Returns the principal's live sessions, newest first.
    pub async fn list(&self, tenant: &TenantId, principal: &PrincipalId) -> Result<Vec<Session>, Refusal> {
        let shard = shard_of_parts(tenant, principal);
        let listed = self.store.list(tenant, principal, shard, self.clock.now()).await;
        listed.map_err(|error| unavailable(&error, Refusal::Unavailable))
    }

    /// Returns whether a session's end may be moved; if not, its time is up when its time is up.
    pub fn may_extend(&self) -> bool {
        self.policy.extendable
    }

    /// Returns whether `text` begins like one of our tokens.
    pub fn is_own(&self, text: &str) -> bool {
        self.keys.load().has_prefix(text)
    }

    /// Returns who a session of this identity acts for.
    pub fn principal_of(&self, identity: &Identity) -> Principal {
        Principal { kind: identity.kind, id: identity.subject.clone(), tenant: self.tenant_of(identity).clone() }
    }

    /// Returns the tenant that the provider asserted, or else the deployment's default.
    pub fn tenant_of<'a>(&'a self, identity: &'a Identity) -> &'a TenantId {
        identity.tenant.as_ref().unwrap_or(&self.policy.default_tenant)
    }

    /// Returns the tenant of sessions whose provider names none.
    pub fn default_tenant(&self) -> &TenantId {
        &self.policy.default_tenant
    }

    /// Returns what this replica knows of revocations.
    pub fn revocations(&self) -> &Arc<Revocations> {
        &self.revocations
    }

    /// Puts a new key ring in place: what the old one minted and the new one knows stays valid.
    pub fn replace_keys(&self, keys: TokenKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// Looks after cache and tombstones until the runtime ends.
    pub async fn run(&self) {
        const HOUSEKEEPING: Duration = Duration::from_secs(5);
        let mut changes = self.revocations.subscribe();
        let mut generation = self.revocations.vouched_generation();
        let mut tick = tokio::time::interval(HOUSEKEEPING);
        loop {
            tokio::select! {
                heard = changes.changed() => if heard.is_err() { return },
                _ = tick.tick() => {
                    self.revocations.prune();
                    self.publish_gauges();
                }
            }
            // Not before the next generation is live: until then the last answers may still stand.
            let vouched = self.revocations.vouched_generation();
            if vouched != generation {
                generation = vouched;
                self.cache.clear();
            }
        }
    }

    fn parse(&self, token: &str) -> Result<ParsedToken, Refusal> {
        self.keys.load().parse(TokenKind::Access, token).map_err(|error| match error {
            TokenError::Malformed => Refusal::Malformed,
            TokenError::Forged => Refusal::Unknown,
        })
    }

    async fn claim_proof(&self, identity: &Identity, now: Timestamp) -> Result<(), StartError> {
        let Some(proof) = &identity.proof_id else { return Ok(()) };
        let digest = self.guest_key.digest("proof", &[identity.issuer.as_bytes(), proof.as_bytes()]);
        let until = now.plus(PROOF_MEMORY);
        match self.store.claim_once(&digest, until, now).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(StartError::AlreadyUsed),
            Err(error) => Err(unavailable(&error, StartError::Unavailable)),
        }
    }

    fn note_evicted(&self, by: &Session, count: u64) {
        self.count_revoked(RevokeReason::Evicted, count);
        if count > 0 {
            let evicted = Event { session_id: None, actor_id: None, ..audit::event(Action::SessionsEvicted, by) };
            Event { sessions_ended: Some(count), ..evicted }.write();
        }
    }

    fn count_revoked(&self, reason: RevokeReason, count: u64) {
        self.metrics.sessions_revoked.with_label_values(&[reason.as_str()]).inc_by(count);
    }

    fn publish_gauges(&self) {
        self.metrics.session_cache_entries.set(self.cache.len().cast_signed());
        self.metrics.tombstones.set(i64::try_from(self.revocations.tombstone_count()).unwrap_or(i64::MAX));
    }
}

/// How long a single-use proof is remembered: longer than any Clerk session JWT lives.
const PROOF_MEMORY: Duration = Duration::from_hours(24);

// Every reachable combination exists from the start, so that `rate()` has a zero to begin from.
fn create_series(metrics: &Metrics) {
    for (kind, method) in [(PrincipalKind::User, "clerk"), (PrincipalKind::Anonymous, "anonymous")] {
        metrics.sessions_created.with_label_values(&[kind.as_str(), method]);
    }
    for reason in [RevokeReason::Logout, RevokeReason::Admin, RevokeReason::Principal, RevokeReason::Evicted] {
        metrics.sessions_revoked.with_label_values(&[reason.as_str()]);
    }
}

/// Returns where a session is filed.
pub fn key_of(session: &Session) -> Key {
    Key { id: session.token_id, shard: shard_of(&session.principal) }
}

// On whole seconds a record and its token end at the same instant.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_ceil(1000) * 1000)
}

fn unavailable<E>(error: &StoreError, outcome: E) -> E {
    tracing::debug!(error = %error, "Session store did not answer");
    outcome
}
