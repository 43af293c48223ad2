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
use crate::model::SessionId;
use crate::model::session::AgentMark;
use crate::model::{NewSession, SessionSecret, SessionToken, TokenKind};
use crate::store::sqlite::SqliteStore;
use crate::store::{Created, KEEP_ENDED, Listed, Page, Presented, Rotated, Stamp};
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
        let store =
            SqliteStore::open(&directory.join("sessions.db"), KEEP_ENDED, clock.clone(), metrics).await.unwrap();
        Self { sessions: service(store, clock.clone(), adjust), clock, directory }
    }

    fn guest(&self, device: &str) -> NewSession {
        let key = TokenKey::new(1, &[7; 32]).unwrap();
        let guests = Guests::new(key, "default".parse().unwrap());
        NewSession::guest(guests.principal(device, Generation(0)), self.clock.now())
    }

    async fn sign_in(&self, device: &str) -> Started {
        self.sessions.start(&self.guest(device), "anonymous", Handout::OPAQUE).await.unwrap()
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
    async fn create(&self, session: &Session, cap: u32, now: Timestamp) -> Result<Created, StoreError> {
        self.store.create(session, cap, now).await
    }

    async fn find(&self, id: SessionId, _: Stamp, now: Timestamp) -> Result<Option<Session>, StoreError> {
        match self.sessions.find_by_id(id, now).await {
            Ok(found) => Ok(Some((*found.session).clone())),
            Err(Refusal::Unavailable) => Err(StoreError::Unavailable("through the cache".into())),
            Err(_) => Ok(None),
        }
    }

    async fn touch(&self, id: SessionId, touch: Touch, now: Timestamp) -> Result<bool, StoreError> {
        let touched = self.store.touch(id, touch, now).await?;
        self.sessions.cache.forget(id, self.sessions.revocations.stamp(&id)).await;
        Ok(touched)
    }

    async fn rotate(&self, id: SessionId, presented: Presented, now: Timestamp) -> Result<Rotated, StoreError> {
        let rotated = self.store.rotate(id, presented, now).await?;
        self.sessions.cache.forget(id, self.sessions.revocations.stamp(&id)).await;
        Ok(rotated)
    }

    async fn end(&self, ids: &[SessionId], end: End) -> Result<(), StoreError> {
        self.store.end(ids, end).await
    }

    async fn end_principal(&self, tenant: &TenantId, principal: &PrincipalId, end: End) -> Result<u64, StoreError> {
        self.store.end_principal(tenant, principal, end).await
    }

    async fn list(
        &self,
        tenant: &TenantId,
        principal: &PrincipalId,
        page: Page,
        now: Timestamp,
    ) -> Result<Vec<Listed>, StoreError> {
        self.store.list(tenant, principal, page, now).await
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
    let token = started.opaque();
    let token = token.expose();
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
    let token = started.opaque();
    let token = token.expose();
    assert_eq!(bench.sessions.end_by_token(token).await.unwrap().id, started.session.id);
    assert_eq!(bench.refusal(token).await, Refusal::Revoked);
    assert_eq!(bench.sessions.end_by_token(token).await.unwrap_err(), Refusal::Revoked);
    bench.clock.advance(Duration::from_mins(31));
    assert_eq!(bench.refusal(token).await, Refusal::Expired);
}

#[tokio::test]
async fn what_was_not_minted_here_is_told_apart_by_shape() {
    let bench = Bench::new(|_| {}).await;
    let token = bench.sign_in("phone").await.opaque().expose().to_owned();
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
    let token = started.opaque();
    let token = token.expose();
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
    assert_eq!(bench.sessions.end_principal(&principal.tenant, &principal.id).await.unwrap(), 2);
    for ended in [&first, &second] {
        assert_eq!(bench.refusal(ended.opaque().expose()).await, Refusal::Revoked);
    }
    assert!(bench.sessions.validate(other.opaque().expose()).await.is_ok());
    assert!(bench.sessions.list(&principal.tenant, &principal.id).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_proof_is_good_for_one_session() {
    let bench = Bench::new(|_| {}).await;
    let sign_in = NewSession { proof_id: Some("proof".to_owned()), ..bench.guest("phone") };
    bench.sessions.start(&sign_in, "clerk", Handout::OPAQUE).await.unwrap();
    assert_eq!(bench.sessions.start(&sign_in, "clerk", Handout::OPAQUE).await.unwrap_err(), StartError::AlreadyUsed);
}

#[tokio::test]
async fn a_replica_that_receives_nothing_answers_from_what_it_knew_until_the_lease_ends() {
    let bench = Bench::new(|_| {}).await;
    let (known, unknown) = (bench.sign_in("phone").await, bench.sign_in("tablet").await);
    bench.sessions.validate(known.opaque().expose()).await.unwrap();
    let revocations = bench.sessions.revocations();
    let generation = revocations.lose();
    revocations.go_live(generation, bench.clock.monotonic().plus(Duration::from_secs(2)));
    bench.sessions.validate(known.opaque().expose()).await.unwrap();
    revocations.lose();
    assert_eq!(bench.sessions.validate(known.opaque().expose()).await.unwrap().source, Source::Cache);
    assert_eq!(bench.refusal(unknown.opaque().expose()).await, Refusal::Unavailable, "never seen in this generation");
    bench.clock.advance(Duration::from_secs(2));
    assert_eq!(bench.refusal(known.opaque().expose()).await, Refusal::Unavailable);
}

#[tokio::test]
async fn serving_stale_is_bounded_and_never_serves_the_revoked() {
    let bench = Bench::new(|policy| policy.max_stale = Duration::from_secs(30)).await;
    let (kept, ended) = (bench.sign_in("phone").await, bench.sign_in("tablet").await);
    let revocations = bench.sessions.revocations();
    let generation = revocations.lose();
    revocations.go_live(generation, bench.clock.monotonic().plus(Duration::from_secs(2)));
    for started in [&kept, &ended] {
        bench.sessions.validate(started.opaque().expose()).await.unwrap();
    }
    revocations.lose();
    revocations.revoke(&[ended.session.id], ended.session.expires_at);
    bench.clock.advance(Duration::from_secs(10));
    assert_eq!(bench.sessions.validate(kept.opaque().expose()).await.unwrap().source, Source::Stale);
    assert_eq!(bench.refusal(ended.opaque().expose()).await, Refusal::Revoked);
    bench.clock.advance(Duration::from_secs(22));
    assert_eq!(bench.refusal(kept.opaque().expose()).await, Refusal::Unavailable);
}

#[tokio::test]
async fn after_an_anomaly_nothing_is_let_through_on_the_rest_of_the_lease() {
    let bench = Bench::new(|policy| policy.max_stale = Duration::from_secs(30)).await;
    let started = bench.sign_in("phone").await;
    bench.sessions.validate(started.opaque().expose()).await.unwrap();
    bench.sessions.revocations().lose();
    bench.sessions.revocations().end_lease();
    assert_eq!(bench.refusal(started.opaque().expose()).await, Refusal::Unavailable);
}

const EVERYTHING: Handout = Handout { opaque: true, cookie: Some(CookieLife::Sliding), refresh: true };
const AGENT: AgentMark = AgentMark(*b"safa");
const DAY: Duration = Duration::from_hours(24);

impl Bench {
    async fn hand_out(&self, handout: Handout) -> Started {
        self.sessions.start(&self.guest("phone"), "anonymous", handout).await.unwrap()
    }

    async fn in_cookie(&self, token: &SessionToken) -> Result<Validated, Refusal> {
        self.sessions.validate_watched(Slot::Cookie, token.expose(), &mut None).await
    }

    async fn as_bearer(&self, token: &SessionToken) -> Result<Validated, Refusal> {
        self.sessions.validate(token.expose()).await
    }

    async fn rotate(&self, token: &SessionToken) -> Result<Refreshed, Refusal> {
        self.sessions.rotate(token.expose(), AGENT).await
    }
}

#[tokio::test]
async fn each_credential_opens_its_own_door_only() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    let (opaque, cookie, refresh) = (started.opaque(), started.cookie(), started.refresh());
    assert!(bench.as_bearer(&opaque).await.is_ok());
    assert!(bench.in_cookie(&opaque).await.is_ok(), "operators' own servers set it as a cookie");
    assert!(bench.in_cookie(&cookie).await.is_ok());
    assert_eq!(bench.as_bearer(&cookie).await.unwrap_err(), Refusal::Unknown);
    assert_eq!(bench.as_bearer(&refresh).await.unwrap_err(), Refusal::Unknown);
    assert_eq!(bench.in_cookie(&refresh).await.unwrap_err(), Refusal::Unknown);
    assert!(bench.rotate(&refresh).await.is_ok());
    assert_eq!(bench.rotate(&opaque).await.unwrap_err(), Refusal::Unknown);
    assert_eq!(bench.rotate(&cookie).await.unwrap_err(), Refusal::Unknown);
}

#[tokio::test]
async fn what_was_not_handed_out_opens_nothing() {
    let bench = Bench::new(|_| {}).await;
    let opaque = bench.hand_out(Handout::OPAQUE).await;
    assert_eq!(bench.in_cookie(&opaque.cookie()).await.unwrap_err(), Refusal::Expired);
    assert_eq!(bench.rotate(&opaque.refresh()).await.unwrap_err(), Refusal::Expired);
    let refresh = bench.hand_out(Handout { opaque: false, cookie: None, refresh: true }).await;
    assert_eq!(bench.as_bearer(&refresh.opaque()).await.unwrap_err(), Refusal::Expired);
}

#[tokio::test]
async fn each_credential_ends_by_itself_and_the_record_with_the_last() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    bench.clock.advance(Duration::from_mins(30));
    assert_eq!(bench.as_bearer(&started.opaque()).await.unwrap_err(), Refusal::Expired, "not longer for the others");
    assert!(bench.in_cookie(&started.cookie()).await.is_ok());
    bench.clock.advance(DAY * 7);
    assert_eq!(bench.in_cookie(&started.cookie()).await.unwrap_err(), Refusal::Expired, "idle");
    let refreshed = bench.rotate(&started.refresh()).await.unwrap();
    bench.clock.advance(DAY * 23);
    assert_eq!(bench.rotate(&refreshed.refresh).await.unwrap_err(), Refusal::Expired);
}

#[tokio::test]
async fn an_extended_token_does_not_extend_the_others() {
    let bench = Bench::new(|policy| policy.extendable = true).await;
    let started = bench.hand_out(EVERYTHING).await;
    bench.clock.advance(Duration::from_mins(20));
    bench.sessions.extend(&started.session).await.unwrap();
    bench.clock.advance(Duration::from_mins(20));
    assert!(bench.as_bearer(&started.opaque()).await.is_ok());
    bench.clock.advance(Duration::from_mins(10));
    assert_eq!(bench.as_bearer(&started.opaque()).await.unwrap_err(), Refusal::Expired);
    assert_eq!(bench.as_bearer(&started.opaque()).await.unwrap_err(), Refusal::Expired, "also from the cache");
    assert!(bench.in_cookie(&started.cookie()).await.is_ok());
}

#[tokio::test]
async fn a_cookie_slides_while_it_is_used_and_its_hard_end_stays() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    let cookie = started.cookie();
    let first = bench.in_cookie(&cookie).await.unwrap();
    assert!(!bench.sessions.slide(&first.session).await.unwrap(), "within the minute");
    for _ in 0..4 {
        bench.clock.advance(DAY * 6);
        let found = bench.in_cookie(&cookie).await.unwrap();
        assert!(bench.sessions.slide(&found.session).await.unwrap());
        let found = bench.in_cookie(&cookie).await.unwrap();
        assert_eq!(found.session.last_seen, bench.clock.now());
        assert!(!bench.sessions.slide(&found.session).await.unwrap(), "once a minute");
    }
    bench.clock.advance(DAY * 6);
    assert_eq!(bench.in_cookie(&cookie).await.unwrap_err(), Refusal::Expired, "30 days in all");
}

#[tokio::test]
async fn a_fixed_cookie_ends_with_its_token() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(Handout { cookie: Some(CookieLife::Fixed), ..Handout::OPAQUE }).await;
    bench.clock.advance(Duration::from_mins(30) - Duration::from_millis(1));
    let found = bench.in_cookie(&started.cookie()).await.unwrap();
    assert!(!bench.sessions.slide(&found.session).await.unwrap());
    bench.clock.advance(Duration::from_millis(1));
    assert_eq!(bench.in_cookie(&started.cookie()).await.unwrap_err(), Refusal::Expired);
}

#[tokio::test]
async fn one_end_ends_every_credential() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    let refreshed = bench.rotate(&started.refresh()).await.unwrap();
    bench.sessions.end(&started.session, EndReason::Logout).await.unwrap();
    assert_eq!(bench.as_bearer(&started.opaque()).await.unwrap_err(), Refusal::Revoked);
    assert_eq!(bench.in_cookie(&started.cookie()).await.unwrap_err(), Refusal::Revoked);
    assert_eq!(bench.rotate(&refreshed.refresh).await.unwrap_err(), Refusal::Revoked);
    assert!(bench.sessions.is_revoked(&started.session), "and its streams");
}

#[tokio::test]
async fn a_repeated_refresh_gets_the_same_answer_and_a_stolen_one_ends_the_session() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    let first = bench.rotate(&started.refresh()).await.unwrap();
    let again = bench.rotate(&started.refresh()).await.unwrap();
    assert_eq!(again.refresh.expose(), first.refresh.expose());
    assert_eq!((first.repeated, again.repeated), (false, true));
    bench.clock.advance(Duration::from_secs(11));
    assert_eq!(bench.rotate(&started.refresh()).await.unwrap_err(), Refusal::Revoked);
    assert_eq!(bench.as_bearer(&started.opaque()).await.unwrap_err(), Refusal::Revoked, "the thief's and the owner's");
    assert_eq!(bench.rotate(&first.refresh).await.unwrap_err(), Refusal::Revoked);
    let results = &bench.sessions.metrics;
    let counted = |result| results.refresh_tokens.with_label_values(&[result]).get();
    assert_eq!([counted("next"), counted("repeated"), counted("reused")], [1, 1, 1]);
    assert_eq!(results.sessions_revoked.with_label_values(&["reuse"]).get(), 1);
}

#[tokio::test]
async fn another_user_agent_within_the_grace_is_a_thief() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    bench.rotate(&started.refresh()).await.unwrap();
    let stolen = bench.sessions.rotate(started.refresh().expose(), AgentMark(*b"curl")).await;
    assert_eq!(stolen.unwrap_err(), Refusal::Revoked);
    assert!(bench.sessions.is_revoked(&started.session));
}

#[tokio::test]
async fn a_leaked_key_opens_no_session_whose_secret_it_does_not_know() {
    let bench = Bench::new(|_| {}).await;
    let started = bench.hand_out(EVERYTHING).await;
    let keys = TokenKeys::new("dw_".to_owned(), TokenKey::new(1, &[7; 32]).unwrap(), Vec::new());
    let guess = SessionSecret::new(&SystemRandom::new()).unwrap();
    let in_an_hour = bench.clock.now().plus(Duration::from_hours(1));
    let forge = |kind| keys.mint(kind, started.session.id, &guess, in_an_hour, 0);
    for _ in ["from the store", "from the cache"] {
        assert_eq!(bench.as_bearer(&forge(TokenKind::Access)).await.unwrap_err(), Refusal::Unknown);
        assert_eq!(bench.in_cookie(&forge(TokenKind::Cookie)).await.unwrap_err(), Refusal::Unknown);
    }
    assert!(bench.rotate(&forge(TokenKind::Refresh)).await.is_err());
    assert!(bench.as_bearer(&started.opaque()).await.is_ok(), "the session itself is unharmed");
    assert_eq!(bench.sessions.rotate(started.refresh().expose(), AGENT).await.unwrap().session.refresh.turn, 1);
}
