//! The sessions service: the only place that mints tokens and the only place that believes them.
//!
//! A token is believed when its MAC is right, no tombstone names its session, a live record of that
//! session was read no longer ago than the revocation bound, the record's verifier matches its secret,
//! and its own deadline has not passed. "Cannot know" is [`Refusal::Unavailable`] and never a refusal:
//! callers answer 503, not 401.

pub mod audit;
mod cache;
mod find;
pub mod headers;
mod outcome;
mod policy;
mod refresh;
mod start;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::SecureRandom;
use prometheus::IntCounter;

use self::cache::SessionCache;
pub use self::find::Slot;
pub use self::headers::Caller;
pub use self::outcome::{Refusal, Source, StartError, StoreCall, Validated};
pub use self::policy::Policy;
pub use self::refresh::Refreshed;
pub use self::start::{CookieLife, Handout, Started};
use crate::config;
use crate::metrics::Metrics;
use crate::model::{End, EndReason, PrincipalId, PrincipalKind, Session, TenantId, TokenKey, TokenKeys};
use crate::store::{Revocations, SessionStore, StoreError, Touch, list_live};
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

    /// Moves the end of a session's opaque token to a whole lifetime from now: for routes that hold long
    /// streams.
    pub async fn extend(&self, session: &Session) -> Result<Arc<Session>, Refusal> {
        let now = self.clock.now();
        let extended_until = whole_seconds(now.plus(self.policy.ttl));
        self.touch(session, Touch { seen: now, extend_to: Some(extended_until) }, now).await?;
        let expires_at = session.expires_at.max(extended_until);
        Ok(Arc::new(Session { expires_at, extended_until, last_seen: now, ..session.clone() }))
    }

    /// Records that a session's cookie was used, so that its idle limit counts from now. Writes at most
    /// once in [`Policy::touch_every`] and session; a write that is lost shortens the idle limit by no
    /// more than that. Returns whether it wrote.
    pub async fn slide(&self, session: &Session) -> Result<bool, Refusal> {
        let now = self.clock.now();
        if session.idle.is_none() || now < session.last_seen.plus(self.policy.touch_every) {
            return Ok(false);
        }
        self.touch(session, Touch { seen: now, extend_to: None }, now).await.map(|()| true)
    }

    /// Ends the session behind a caller's token; when this returns, this replica refuses it.
    ///
    /// Also while it is unknown whether the session lives: then it answers `Unavailable`.
    pub async fn end_by_token(&self, token: &str) -> Result<Arc<Session>, Refusal> {
        match self.validate(token).await {
            Ok(Validated { session, .. }) => {
                self.end(&session, EndReason::Logout).await?;
                Ok(session)
            }
            Err(Refusal::Unavailable) => {
                // Whether it is live is not known, but its holder wants it ended: the token itself
                // names it. The store's journal sees to it once the store is back.
                let session = self.parse(Slot::Bearer, token)?.session;
                let end = End { reason: EndReason::Logout, at: self.clock.now() };
                let ended = self.store.end(&[session], end).await;
                Err(ended.map_or_else(|error| unavailable(&error, Refusal::Unavailable), |()| Refusal::Unavailable))
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// Ends one session and with it every credential of it. On `Err` this replica refuses it all the same.
    pub async fn end(&self, session: &Session, reason: EndReason) -> Result<(), Refusal> {
        let ended = self.store.end(&[session.id], End { reason, at: self.clock.now() }).await;
        ended.map_err(|error| unavailable(&error, Refusal::Unavailable))?;
        self.count_ended(reason, 1);
        Ok(())
    }

    /// Ends every session of a principal, also those whose sign-in is under way; returns how many.
    pub async fn end_principal(&self, tenant: &TenantId, principal: &PrincipalId) -> Result<u64, Refusal> {
        let end = End { reason: EndReason::Principal, at: self.clock.now() };
        let ended = self.store.end_principal(tenant, principal, end).await;
        let count = ended.map_err(|error| unavailable(&error, Refusal::Unavailable))?;
        self.count_ended(EndReason::Principal, count);
        Ok(count)
    }

    /// Returns the principal's live sessions, newest first.
    pub async fn list(&self, tenant: &TenantId, principal: &PrincipalId) -> Result<Vec<Session>, Refusal> {
        let listed = list_live(self.store.as_ref(), tenant, principal, self.clock.now()).await;
        listed.map_err(|error| unavailable(&error, Refusal::Unavailable))
    }

    /// Returns whether this replica knows that the session has ended: no I/O.
    pub fn is_revoked(&self, session: &Session) -> bool {
        self.revocations.is_revoked(&session.id)
    }

    /// Returns whether a session's end may be moved; if not, its time is up when its time is up.
    pub fn may_extend(&self) -> bool {
        self.policy.extendable
    }

    /// Returns whether `text` begins like one of our tokens.
    pub fn is_own(&self, text: &str) -> bool {
        self.keys.load().has_prefix(text)
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
                woke = changes.changed() => if woke.is_err() { return },
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

    async fn touch(&self, session: &Session, touch: Touch, now: Timestamp) -> Result<(), Refusal> {
        match self.store.touch(session.id, touch, now).await {
            Ok(true) => {}
            Ok(false) => return Err(Refusal::Revoked),
            Err(error) => return Err(unavailable(&error, Refusal::Unavailable)),
        }
        self.cache.forget(session.id, self.revocations.stamp(&session.id)).await;
        Ok(())
    }

    fn count_ended(&self, reason: EndReason, count: u64) {
        self.metrics.sessions_revoked.with_label_values(&[reason.as_str()]).inc_by(count);
    }

    fn publish_gauges(&self) {
        self.metrics.session_cache_entries.set(self.cache.len().cast_signed());
        self.metrics.tombstones.set(i64::try_from(self.revocations.tombstone_count()).unwrap_or(i64::MAX));
    }
}

// Every reachable combination exists from the start, so that `rate()` has a zero to begin from.
fn create_series(metrics: &Metrics) {
    for (kind, method) in [(PrincipalKind::User, "clerk"), (PrincipalKind::Anonymous, "anonymous")] {
        metrics.sessions_created.with_label_values(&[kind.as_str(), method]);
    }
    for reason in [EndReason::Logout, EndReason::Admin, EndReason::Principal, EndReason::Evicted] {
        metrics.sessions_revoked.with_label_values(&[reason.as_str()]);
    }
}

// On whole seconds a record and its token end at the same instant.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp(at.0.div_ceil(1000) * 1000)
}

fn unavailable<E>(error: &StoreError, outcome: E) -> E {
    tracing::debug!(error = %error, "Session store did not answer");
    outcome
}
