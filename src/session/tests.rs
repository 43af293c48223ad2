//! The service over real stores: what a cache must not change, and what only the service decides.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use aws_lc_rs::rand::SystemRandom;
use uuid::Uuid;

use super::*;
use crate::directory::Generation;
use crate::guests::Guests;
use crate::model::Shard;
use crate::store::Stamp;
use crate::store::sqlite::SqliteStore;
use crate::time::{ManualClock, SystemClock};

const NOW: Timestamp = Timestamp(1_800_000_000_000);

/// A store that is read through the service's cache: it must pass the same suite as the store.
struct Cached {
    store: Arc<dyn SessionStore>,
    sessions: Arc<Sessions>,
}

/// A service over an embedded store of its own, at a time of its own.
struct Bench {
    sessions: Arc<Sessions>,
    clock: Arc<ManualClock>,
    directory: PathBuf,
}

/// Returns the store as seen through the cache.
pub(crate) fn cached(store: Arc<dyn SessionStore>) -> Arc<dyn SessionStore> {
    let sessions = service(store.clone(), Arc::new(SystemClock::new()), |policy| policy.extendable = true);
    Arc::new(Cached { store, sessions })
}

fn service(store: Arc<dyn SessionStore>, clock: Arc<dyn Clock>, adjust: impl FnOnce(&mut Policy)) -> Arc<Sessions> {
    let config = config::Config::load(&[], &std::collections::BTreeMap::new()).unwrap().config;
    let mut policy = Policy::from_config(&config);
    adjust(&mut policy);
    let key = TokenKey::new(1, &[7; 32]).unwrap();
    Sessions::new(Setup {
        store,
        keys: TokenKeys::new("dw_".to_owned(), key.clone(), Vec::new()),
        guest_key: key,
        policy,
        cache: config.sessions.cache,
        clock,
        random: Arc::new(SystemRandom::new()),
        metrics: Arc::new(Metrics::new().unwrap()),
    })
}

impl Bench {
    async fn new(adjust: impl FnOnce(&mut Policy)) -> Self {
        let directory = std::env::temp_dir().join(format!("doorward-session-{}", Uuid::new_v4()));
        let clock = Arc::new(ManualClock::at(NOW));
        let metrics = Arc::new(Metrics::new().unwrap());
        let store = SqliteStore::open(&directory.join("sessions.db"), clock.clone(), metrics).await.unwrap();
        Self { sessions: service(store, clock.clone(), adjust), clock, directory }
    }

    fn guest(&self, device: &str) -> Identity {
        let key = TokenKey::new(1, &[7; 32]).unwrap();
        Guests::new(key, "default".parse().unwrap(), self.clock.clone()).identity(device, Generation(0))
    }

    async fn sign_in(&self, device: &str) -> Started {
        self.sessions.start(&self.guest(device), "anonymous").await.unwrap()
    }

    async fn refusal(&self, token: &str) -> Refusal {
        self.sessions.validate(token).await.unwrap_err()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

#[async_trait]
impl SessionStore for Cached {
    async fn create(&self, key: Key, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError> {
        self.store.create(key, session, cap, now).await
    }

    async fn find(&self, key: Key, _: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError> {
        match self.sessions.find(key, now, &mut None).await {
            Ok(found) => Ok(Some((*found.session).clone())),
            Err(Refusal::Unavailable) => Err(StoreError::Unavailable("through the cache".into())),
            Err(_) => Ok(None),
        }
    }

    async fn extend(&self, key: Key, expires_at: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        let extended = self.store.extend(key, expires_at, now).await?;
        self.sessions.cache.forget(key.id, self.sessions.revocations.stamp(&key.id)).await;
        Ok(extended)
    }

    async fn revoke(&self, keys: &[Key], reason: RevokeReason, now: Timestamp) -> Result<(), StoreError> {
        self.store.revoke(keys, reason, now).await
    }

    async fn revoke_principal(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        shard: Shard,
        now: Timestamp,
    ) -> Result<u64, StoreError> {
        self.store.revoke_principal(tenant, principal, shard, now).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        shard: Shard,
        now: Timestamp,
    ) -> Result<Vec<Session>, StoreError> {
        self.store.list(tenant, principal, shard, now).await
    }

    async fn claim_once(&self, digest: &[u8; 32], until: Timestamp, now: Timestamp) -> Result<bool, StoreError> {
        self.store.claim_once(digest, until, now).await
    }

    fn revocations(&self) -> &Arc<Revocations> {
        self.store.revocations()
    }
}

#[tokio::test]
async fn a_session_is_valid_until_it_ends_and_then_expired() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.sign_in("phone").await;
    let token = started.token.expose();
    assert_eq!(started.expires_in, Duration::from_mins(30));
    assert_eq!(bench.sessions.validate(token).await.unwrap().source, Source::Store);
    assert_eq!(bench.sessions.validate(token).await.unwrap().source, Source::Cache);
    bench.clock.advance(Duration::from_mins(30) - Duration::from_millis(1));
    assert!(bench.sessions.validate(token).await.is_ok());
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.refusal(token).await, Refusal::Expired);
}

#[tokio::test]
async fn an_ended_session_is_revoked_and_later_expired() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.sign_in("phone").await;
    let token = started.token.expose();
    assert_eq!(bench.sessions.end(token).await.unwrap().id, started.session.id);
    assert_eq!(bench.refusal(token).await, Refusal::Revoked);
    assert_eq!(bench.sessions.end(token).await.unwrap_err(), Refusal::Revoked);
    bench.clock.advance(Duration::from_mins(31));
    assert_eq!(bench.refusal(token).await, Refusal::Expired);
}

#[tokio::test]
async fn what_was_not_minted_here_is_told_apart_by_shape() {
    let bench = Bench::new(|_| {}).await;
    let token = bench.sign_in("phone").await.token.expose().to_owned();
    let mut forged = token.clone().into_bytes();
    let last = forged.last_mut().unwrap();
    *last = if *last == b'A' { b'B' } else { b'A' };
    assert_eq!(bench.refusal(std::str::from_utf8(&forged).unwrap()).await, Refusal::Unknown);
    assert_eq!(bench.refusal("dw_short").await, Refusal::Malformed);
    assert_eq!(bench.refusal("").await, Refusal::Malformed);
}

#[tokio::test]
async fn an_extended_session_outlives_its_token() {
    let bench = Bench::new(|policy| policy.extendable = true).await;
    let started = bench.sign_in("phone").await;
    let token = started.token.expose();
    bench.clock.advance(Duration::from_mins(20));
    let extended = bench.sessions.extend(&started.session).await.unwrap();
    assert_eq!(extended.expires_at, bench.clock.now().plus(Duration::from_mins(30)));
    bench.clock.advance(Duration::from_mins(20));
    assert!(bench.sessions.validate(token).await.is_ok());
    bench.clock.advance(Duration::from_mins(20));
    assert_eq!(bench.refusal(token).await, Refusal::Expired);
}

#[tokio::test]
async fn revoking_a_principal_ends_all_of_its_sessions_and_no_other() {
    let bench = Bench::new(|_| {}).await;
    let (first, second, other) =
        (bench.sign_in("phone").await, bench.sign_in("phone").await, bench.sign_in("tablet").await);
    bench.clock.advance(Duration::from_millis(5));
    let principal = &first.session.principal;
    assert_eq!(bench.sessions.list(&principal.tenant, &principal.id).await.unwrap().len(), 2);
    assert_eq!(bench.sessions.revoke_principal(&principal.tenant, &principal.id).await.unwrap(), 2);
    for ended in [&first, &second] {
        assert_eq!(bench.refusal(ended.token.expose()).await, Refusal::Revoked);
    }
    assert!(bench.sessions.validate(other.token.expose()).await.is_ok());
    assert!(bench.sessions.list(&principal.tenant, &principal.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_proof_is_good_for_one_session() {
    let bench = Bench::new(|_| {}).await;
    let identity = Identity { proof_id: Some("proof".to_owned()), ..bench.guest("phone") };
    bench.sessions.start(&identity, "clerk").await.unwrap();
    assert_eq!(bench.sessions.start(&identity, "clerk").await.unwrap_err(), StartError::AlreadyUsed);
}

#[tokio::test]
async fn a_replica_that_hears_nothing_answers_from_what_it_knew_until_the_lease_ends() {
    let bench = Bench::new(|_| {}).await;
    let (known, unknown) = (bench.sign_in("phone").await, bench.sign_in("tablet").await);
    bench.sessions.validate(known.token.expose()).await.unwrap();
    let revocations = bench.sessions.revocations();
    let generation = revocations.lose();
    revocations.go_live(generation, bench.clock.monotonic().plus(Duration::from_secs(2)));
    bench.sessions.validate(known.token.expose()).await.unwrap();
    revocations.lose();
    assert_eq!(bench.sessions.validate(known.token.expose()).await.unwrap().source, Source::Cache);
    assert_eq!(bench.refusal(unknown.token.expose()).await, Refusal::Unavailable, "never seen in this generation");
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(bench.refusal(known.token.expose()).await, Refusal::Unavailable);
}

#[tokio::test]
async fn serving_stale_is_bounded_and_never_serves_the_revoked() {
    let bench = Bench::new(|policy| policy.max_stale = Duration::from_secs(30)).await;
    let (kept, ended) = (bench.sign_in("phone").await, bench.sign_in("tablet").await);
    let revocations = bench.sessions.revocations();
    let generation = revocations.lose();
    revocations.go_live(generation, bench.clock.monotonic().plus(Duration::from_secs(2)));
    for started in [&kept, &ended] {
        bench.sessions.validate(started.token.expose()).await.unwrap();
    }
    revocations.lose();
    revocations.revoke(&[ended.session.token_id], ended.session.expires_at);
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.sessions.validate(kept.token.expose()).await.unwrap().source, Source::Stale);
    assert_eq!(bench.refusal(ended.token.expose()).await, Refusal::Revoked);
    bench.clock.advance(Duration::from_secs(22));
    assert_eq!(bench.refusal(kept.token.expose()).await, Refusal::Unavailable);
}

#[tokio::test]
async fn after_an_anomaly_nothing_is_let_through_on_the_rest_of_the_lease() {
    let bench = Bench::new(|policy| policy.max_stale = Duration::from_secs(30)).await;
    let started = bench.sign_in("phone").await;
    bench.sessions.validate(started.token.expose()).await.unwrap();
    bench.sessions.revocations().lose();
    bench.sessions.revocations().end_lease();
    assert_eq!(bench.refusal(started.token.expose()).await, Refusal::Unavailable);
}
