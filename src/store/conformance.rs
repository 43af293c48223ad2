//! What every [`SessionStore`] must do, as cases that any implementation runs in its own tests.
//!
//! [`run`] takes a maker and calls it once per case; the stores it returns may share their data,
//! because each case has a tenant of its own. Time passes only as the `now` argument: lifetimes
//! are far longer than a run, so that a store with a clock of its own (Redis) never ends a session
//! by itself here. A case fails by panicking.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use uuid::Uuid;

use super::{Created, Listed, Page, Presented, Rotated, SessionStore, Touch, Which, list_live, shard_of};
use crate::model::session::{AgentMark, ClientInfo};
use crate::model::{End, EndReason, Principal, PrincipalId, PrincipalKind, Session, SessionId, TenantId, Verifier};
use crate::time::{Clock, SystemClock, Timestamp};

const CAP: u32 = 100;
const MINUTE: u64 = 60_000;
const GRACE: Duration = Duration::from_hours(1);

/// A fresh tenant in a store, and a present moment.
#[derive(Clone)]
struct Case {
    store: Arc<dyn SessionStore>,
    tenant: TenantId,
    now: Timestamp,
    sessions: Arc<AtomicU64>,
}

/// Runs every case against stores from `make`.
pub(crate) async fn run(make: impl AsyncFn() -> Arc<dyn SessionStore>) {
    a_created_session_is_found_whole(Case::new(make().await)).await;
    an_unknown_session_is_not_found(Case::new(make().await)).await;
    an_expired_session_is_not_found(Case::new(make().await)).await;
    a_revoked_session_is_gone_and_remembered(Case::new(make().await)).await;
    revoking_again_or_nothing_is_fine(Case::new(make().await)).await;
    several_sessions_are_revoked_at_once(Case::new(make().await)).await;
    the_cap_evicts_the_oldest(Case::new(make().await)).await;
    an_expired_session_takes_no_place_under_the_cap(Case::new(make().await)).await;
    revoke_principal_ends_all_and_counts(Case::new(make().await)).await;
    revoke_principal_bars_earlier_sign_ins_only(Case::new(make().await)).await;
    revoke_principal_bars_sign_ins_under_way(Case::new(make().await)).await;
    principals_and_tenants_do_not_mix(Case::new(make().await)).await;
    the_list_is_newest_first_and_live_only(Case::new(make().await)).await;
    pages_follow_each_other_without_a_gap(Case::new(make().await)).await;
    touch_moves_forward_only_and_in_a_live_session_only(Case::new(make().await)).await;
    an_extension_does_not_shorten_a_longer_session(Case::new(make().await)).await;
    refresh_tokens_take_turns(Case::new(make().await)).await;
    a_grace_ends(Case::new(make().await)).await;
    a_turn_ahead_of_the_record_is_adopted(Case::new(make().await)).await;
    only_a_live_session_with_this_secret_is_rotated(Case::new(make().await)).await;
    concurrent_rotations_give_one_successor(Case::new(make().await)).await;
    ended_sessions_are_forgotten_where_nothing_shows_them(Case::new(make().await)).await;
    a_proof_is_claimed_once_until_it_lapses(Case::new(make().await)).await;
    concurrent_creates_stay_within_the_cap(Case::new(make().await)).await;
    nothing_is_found_after_revoke_returned(Case::new(make().await)).await;
}

/// Runs the cases of stores from `make` that keep ended sessions for an hour.
pub(crate) async fn run_keeping_ended(make: impl AsyncFn() -> Arc<dyn SessionStore>) {
    ended_sessions_stay_known_with_their_reason(Case::new(make().await)).await;
    the_cap_evicts_the_oldest(Case::new(make().await)).await;
    an_expired_session_takes_no_place_under_the_cap(Case::new(make().await)).await;
    revoke_principal_ends_all_and_counts(Case::new(make().await)).await;
    touch_moves_forward_only_and_in_a_live_session_only(Case::new(make().await)).await;
    concurrent_creates_stay_within_the_cap(Case::new(make().await)).await;
}

impl Case {
    fn new(store: Arc<dyn SessionStore>) -> Self {
        let tenant = format!("tenant:{}", Uuid::new_v4()).parse().unwrap();
        Self { store, tenant, now: SystemClock::new().now(), sessions: Arc::default() }
    }

    fn after(&self, millis: u64) -> Timestamp {
        Timestamp(self.now.0 + millis)
    }

    // Each session is a millisecond newer than the one before, and ends as much later.
    fn session_of(&self, tenant: &TenantId, principal: &str) -> Session {
        let order = self.sessions.fetch_add(1, Ordering::SeqCst);
        let principal = Principal { kind: PrincipalKind::User, id: principal.parse().unwrap(), tenant: tenant.clone() };
        let shard = shard_of(tenant, &principal.id);
        let made = Timestamp(self.now.0 - MINUTE + order);
        Session::plain(principal, shard, made, self.after(10 * MINUTE + order))
    }

    fn session(&self, principal: &str) -> Session {
        self.session_of(&self.tenant, principal)
    }

    async fn store(&self, session: &Session) {
        assert_eq!(self.create(session, CAP).await, Created::Stored { evicted: Vec::new() });
    }

    async fn create(&self, session: &Session, cap: u32) -> Created {
        self.store.create(session, cap, self.now).await.unwrap()
    }

    async fn stored(&self, principal: &str) -> Session {
        let session = self.session(principal);
        self.store(&session).await;
        session
    }

    async fn find_at(&self, session: &Session, now: Timestamp) -> Option<Session> {
        let stamp = self.store.revocations().stamp(&session.id);
        self.store.find(session.id, stamp, now).await.unwrap()
    }

    async fn find(&self, session: &Session) -> Option<Session> {
        self.find_at(session, self.now).await
    }

    async fn revoke(&self, sessions: &[&Session]) {
        let ids: Vec<SessionId> = sessions.iter().map(|session| session.id).collect();
        self.store.end(&ids, self.end(EndReason::Logout)).await.unwrap();
    }

    async fn revoke_principal_at(&self, principal: &str, now: Timestamp) -> u64 {
        let principal: PrincipalId = principal.parse().unwrap();
        let end = End { reason: EndReason::Principal, at: now };
        self.store.end_principal(&self.tenant, &principal, end).await.unwrap()
    }

    async fn list_at(&self, tenant: &TenantId, principal: &str, now: Timestamp) -> Vec<Session> {
        let principal: PrincipalId = principal.parse().unwrap();
        list_live(self.store.as_ref(), tenant, &principal, now).await.unwrap()
    }

    async fn page(&self, principal: &str, which: Which, after: Option<&Session>, limit: usize) -> Vec<Listed> {
        let page = Page { which, after: after.map(|session| session.id), limit };
        self.store.list(&self.tenant, &principal.parse().unwrap(), page, self.now).await.unwrap()
    }

    fn end(&self, reason: EndReason) -> End {
        End { reason, at: self.now }
    }

    async fn rotate(&self, session: &Session, turn: u32, agent: &[u8; 4], grace: Duration) -> Rotated {
        let presented = Presented { turn, verifier: session.verifier, agent: AgentMark(*agent), grace };
        self.store.rotate(session.id, presented, self.now).await.unwrap()
    }

    async fn list(&self, principal: &str) -> Vec<Session> {
        self.list_at(&self.tenant, principal, self.now).await
    }

    // Gone from the store, and refused also where the store would still have it.
    async fn assert_revoked(&self, session: &Session) {
        assert_eq!(self.find(session).await, None);
        assert!(self.store.revocations().is_revoked(&session.id));
    }

    async fn assert_live(&self, session: &Session) {
        assert_eq!(self.find(session).await.as_ref(), Some(session));
        assert!(!self.store.revocations().is_revoked(&session.id));
    }
}

async fn a_created_session_is_found_whole(case: Case) {
    let bare = case.stored("bare").await;
    let full = Session {
        roles: vec!["org:admin".parse().unwrap(), "viewer".parse().unwrap()],
        provider_session: Some("sess_1".to_owned()),
        actor: Some("user_op".parse().unwrap()),
        method: "clerk".to_owned(),
        idle: Some(Duration::from_hours(168)),
        device: Some("client_1".to_owned()),
        client: ClientInfo { ip: Some("2001:db8::1".to_owned()), user_agent: Some("Grüße".to_owned()) },
        principal: Principal { kind: PrincipalKind::Anonymous, ..case.session("anon:1").principal },
        ..case.session("anon:1")
    };
    case.store(&full).await;
    case.assert_live(&bare).await;
    case.assert_live(&full).await;
}

async fn an_unknown_session_is_not_found(case: Case) {
    case.stored("holder").await;
    let never_stored = case.session("holder");
    assert_eq!(case.find(&never_stored).await, None);
    assert!(!case.store.revocations().is_revoked(&never_stored.id));
    assert_eq!(case.list("stranger").await, []);
}

async fn an_expired_session_is_not_found(case: Case) {
    let session = case.stored("brief").await;
    let last_moment = Timestamp(session.expires_at.0 - 1);
    assert_eq!(case.find_at(&session, last_moment).await.as_ref(), Some(&session));
    assert_eq!(case.find_at(&session, session.expires_at).await, None);
}

async fn a_revoked_session_is_gone_and_remembered(case: Case) {
    let (ended, kept) = (case.stored("leaver").await, case.stored("leaver").await);
    let before = case.store.revocations().stamp(&ended.id);
    case.revoke(&[&ended]).await;
    case.assert_revoked(&ended).await;
    assert_ne!(case.store.revocations().stamp(&ended.id), before, "an answer from before could be found again");
    case.assert_live(&kept).await;
    assert_eq!(case.list("leaver").await, [kept]);
}

async fn revoking_again_or_nothing_is_fine(case: Case) {
    let session = case.stored("leaver").await;
    case.revoke(&[&session]).await;
    case.revoke(&[&session]).await;
    case.revoke(&[]).await;
    let never_stored = case.session("leaver");
    case.revoke(&[&never_stored]).await;
    case.assert_revoked(&session).await;
    case.assert_revoked(&never_stored).await;
}

async fn several_sessions_are_revoked_at_once(case: Case) {
    let sessions = [case.stored("one").await, case.stored("two").await, case.stored("two").await];
    case.revoke(&sessions.iter().collect::<Vec<_>>()).await;
    for session in &sessions {
        case.assert_revoked(session).await;
    }
}

async fn the_cap_evicts_the_oldest(case: Case) {
    let sessions: Vec<Session> = (0..4).map(|_| case.session("busy")).collect();
    for session in &sessions[..3] {
        assert_eq!(case.create(session, 3).await, Created::Stored { evicted: Vec::new() });
    }
    // The cap was lowered meanwhile: two have to go at once.
    let evicted = vec![sessions[0].id, sessions[1].id];
    assert_eq!(case.create(&sessions[3], 2).await, Created::Stored { evicted });
    case.assert_revoked(&sessions[0]).await;
    case.assert_revoked(&sessions[1]).await;
    case.assert_live(&sessions[2]).await;
    case.assert_live(&sessions[3]).await;
}

async fn an_expired_session_takes_no_place_under_the_cap(case: Case) {
    let old = case.stored("seldom").await;
    let later = old.expires_at;
    let new = Session { expires_at: Timestamp(later.0 + MINUTE), ..case.session("seldom") };
    let created = case.store.create(&new, 1, later).await.unwrap();
    assert_eq!(created, Created::Stored { evicted: Vec::new() });
    assert_eq!(case.find_at(&new, later).await, Some(new));
}

async fn revoke_principal_ends_all_and_counts(case: Case) {
    let sessions = [case.stored("stolen").await, case.stored("stolen").await, case.stored("stolen").await];
    let before = case.store.revocations().stamp(&sessions[0].id);
    assert_eq!(case.revoke_principal_at("stolen", case.now).await, 3);
    for session in &sessions {
        case.assert_revoked(session).await;
    }
    assert_ne!(case.store.revocations().stamp(&sessions[0].id), before);
    assert_eq!(case.list("stolen").await, []);
    assert_eq!(case.revoke_principal_at("stolen", case.now).await, 0);
}

async fn revoke_principal_bars_earlier_sign_ins_only(case: Case) {
    assert_eq!(case.revoke_principal_at("stolen", case.now).await, 0);
    // A replica whose clock is behind must not open the gap again.
    assert_eq!(case.revoke_principal_at("stolen", Timestamp(case.now.0 - MINUTE)).await, 0);
    for authenticated_at in [Timestamp(case.now.0 - 1), case.now] {
        let late = Session { authenticated_at, ..case.session("stolen") };
        assert_eq!(case.create(&late, CAP).await, Created::Superseded);
        assert_eq!(case.find(&late).await, None);
    }
    let again = Session { authenticated_at: case.after(MINUTE), ..case.session("stolen") };
    case.store(&again).await;
    case.assert_live(&again).await;
}

async fn revoke_principal_bars_sign_ins_under_way(case: Case) {
    let creates = (0..16).map(|_| {
        let case = case.clone();
        tokio::spawn(async move { case.create(&case.session("stolen"), CAP).await })
    });
    let creates: Vec<_> = creates.collect();
    case.revoke_principal_at("stolen", case.now).await;
    for created in join_all(creates).await {
        created.unwrap();
    }
    assert_eq!(case.list("stolen").await, [], "a sign-in slipped past the revocation");
}

async fn principals_and_tenants_do_not_mix(case: Case) {
    // Names chosen so that joining tenant and principal with a separator confuses them.
    let inner: TenantId = format!("{}:a", case.tenant).parse().unwrap();
    let other: TenantId = format!("{}2", case.tenant).parse().unwrap();
    let bystanders =
        [case.session("b"), case.session_of(&inner, "b"), case.session_of(&other, "a:b"), case.session("A:b")];
    for session in &bystanders {
        case.store(session).await;
    }
    let target = case.session("a:b");
    case.store(&target).await;
    assert_eq!(case.list("a:b").await, std::slice::from_ref(&target));
    let newer = case.session("a:b");
    assert_eq!(case.create(&newer, 1).await, Created::Stored { evicted: vec![target.id] });
    assert_eq!(case.revoke_principal_at("a:b", case.now).await, 1);
    for session in &bystanders {
        case.assert_live(session).await;
        let Principal { tenant, id, .. } = &session.principal;
        assert_eq!(case.list_at(tenant, id.as_str(), case.now).await, std::slice::from_ref(session));
        case.store(&case.session_of(tenant, id.as_str())).await;
    }
}

async fn the_list_is_newest_first_and_live_only(case: Case) {
    let brief = Session { expires_at: case.after(MINUTE), ..case.session("busy") };
    case.store(&brief).await;
    let sessions = [case.stored("busy").await, case.stored("busy").await, case.stored("busy").await];
    let [first, second, third] = sessions;
    case.revoke(&[&second]).await;
    assert_eq!(case.list("busy").await, [third.clone(), first.clone(), brief.clone()]);
    assert_eq!(case.list_at(&case.tenant, "busy", brief.expires_at).await, [third, first]);
}

async fn pages_follow_each_other_without_a_gap(case: Case) {
    let mut newest_first = Vec::new();
    for _ in 0..7 {
        newest_first.insert(0, case.stored("busy").await);
    }
    let (mut listed, mut after) = (Vec::new(), None);
    for expected in [3, 3, 1, 0] {
        let page = case.page("busy", Which::Live, after.as_ref(), 3).await;
        assert_eq!(page.len(), expected);
        assert!(page.iter().all(|listed| listed.ended.is_none()));
        after = page.last().map(|listed| listed.session.clone()).or(after);
        listed.extend(page.into_iter().map(|listed| listed.session));
    }
    assert_eq!(listed, newest_first);
}

async fn ended_sessions_stay_known_with_their_reason(case: Case) {
    let (first, second, third) =
        (case.stored("leaver").await, case.stored("leaver").await, case.stored("leaver").await);
    let lives = case.stored("leaver").await;
    let evicted = case.stored("evicted").await;
    let brief = Session { expires_at: case.now, ..case.session("leaver") };
    assert_eq!(case.store.create(&brief, CAP, Timestamp(case.now.0 - 1)).await.unwrap(), stored_without_evictions());
    case.store.end(&[first.id], case.end(EndReason::Logout)).await.unwrap();
    case.store.end(&[second.id, third.id], case.end(EndReason::Reuse)).await.unwrap();
    let newer = case.session("evicted");
    assert_eq!(case.create(&newer, 1).await, Created::Stored { evicted: vec![evicted.id] });

    let ended = |session: &Session, reason| Listed { session: session.clone(), ended: Some(case.end(reason)) };
    let expected = [
        ended(&brief, EndReason::Expired),
        ended(&third, EndReason::Reuse),
        ended(&second, EndReason::Reuse),
        ended(&first, EndReason::Logout),
    ];
    assert_eq!(case.page("leaver", Which::Ended, None, 10).await, expected);
    assert_eq!(case.page("leaver", Which::Ended, Some(&third), 1).await, expected[2..3]);
    assert_eq!(case.page("evicted", Which::Ended, None, 10).await, [ended(&evicted, EndReason::Evicted)]);
    assert_eq!(case.list("leaver").await, std::slice::from_ref(&lives));
    assert_eq!(case.revoke_principal_at("leaver", case.now).await, 1);
    assert_eq!(case.page("leaver", Which::Ended, Some(&brief), 1).await, [ended(&lives, EndReason::Principal)]);
    for gone in [&first, &brief, &lives, &evicted] {
        assert_eq!(case.find(gone).await, None, "what is known of it lets it in again");
    }
}

async fn ended_sessions_are_forgotten_where_nothing_shows_them(case: Case) {
    let session = case.stored("leaver").await;
    case.revoke(&[&session]).await;
    case.stored("leaver").await;
    case.revoke_principal_at("leaver", case.now).await;
    assert_eq!(case.page("leaver", Which::Ended, None, 10).await, []);
}

async fn touch_moves_forward_only_and_in_a_live_session_only(case: Case) {
    let session = case.stored("walker").await;
    let touch = async |session: &Session, touch: Touch, now| case.store.touch(session.id, touch, now).await.unwrap();
    let seen = |seen| Touch { seen, extend_to: None };
    assert!(touch(&session, seen(case.after(5)), case.now).await);
    assert!(touch(&session, seen(case.now), case.now).await, "a replica whose clock is behind");
    let used = Session { last_seen: case.after(5), ..session.clone() };
    assert_eq!(case.find(&session).await, Some(used.clone()), "the end does not move because it was used");

    let later = case.after(20 * MINUTE);
    let extend = |to| Touch { seen: case.now, extend_to: Some(to) };
    assert!(touch(&session, extend(later), case.now).await);
    assert!(touch(&session, extend(case.after(MINUTE)), case.now).await, "an earlier end");
    let extended = Session { expires_at: later, extended_until: later, ..used };
    assert_eq!(case.find_at(&session, session.expires_at).await, Some(extended.clone()));
    assert_eq!(case.list_at(&case.tenant, "walker", session.expires_at).await, [extended]);
    assert_eq!(case.find_at(&session, later).await, None);
    let (expired, later_still) = (later, case.after(40 * MINUTE));
    assert!(!touch(&session, extend(later_still), expired).await, "an expired session was revived");
    case.revoke(&[&session]).await;
    assert!(!touch(&session, extend(later_still), case.now).await, "a revoked session was revived");
    assert!(!touch(&case.session("walker"), extend(later_still), case.now).await, "a session was made");
    case.assert_revoked(&session).await;
}

async fn an_extension_does_not_shorten_a_longer_session(case: Case) {
    let session = case.stored("walker").await;
    let extend = Touch { seen: case.now, extend_to: Some(case.after(MINUTE)) };
    assert!(case.store.touch(session.id, extend, case.now).await.unwrap());
    let expected = Session { extended_until: case.after(MINUTE), last_seen: case.now, ..session.clone() };
    assert_eq!(case.find(&session).await, Some(expected));
}

async fn refresh_tokens_take_turns(case: Case) {
    let session = case.stored("walker").await;
    let Rotated::Next(first) = case.rotate(&session, 0, b"safa", GRACE).await else { panic!("it was due") };
    assert_eq!((first.refresh.turn, first.refresh.agent), (1, AgentMark(*b"safa")));
    assert_eq!(Session { refresh: session.refresh, ..first.clone() }, session, "nothing else changes");
    assert_eq!(case.find(&session).await.as_ref(), Some(&first));
    assert_eq!(case.rotate(&session, 0, b"safa", GRACE).await, Rotated::Repeated(first.clone()));
    assert_eq!(case.rotate(&session, 0, b"curl", GRACE).await, Rotated::Reused(first.clone()), "another user agent");
    assert_eq!(case.rotate(&session, 0, b"safa", Duration::ZERO).await, Rotated::Reused(first.clone()), "no grace");
    let Rotated::Next(second) = case.rotate(&session, 1, b"curl", GRACE).await else { panic!("it was due") };
    assert_eq!(second.refresh.turn, 2);
    assert_eq!(case.rotate(&session, 0, b"curl", GRACE).await, Rotated::Reused(second.clone()), "two turns old");
    assert_eq!(case.find(&session).await, Some(second), "a stolen token changes nothing by itself");
}

async fn a_grace_ends(case: Case) {
    let session = case.stored("walker").await;
    case.rotate(&session, 0, b"safa", GRACE).await;
    let millisecond = Duration::from_millis(1);
    let ended = async {
        while !matches!(case.rotate(&session, 0, b"safa", millisecond).await, Rotated::Reused(_)) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), ended).await.expect("the store's clock goes on");
}

async fn a_turn_ahead_of_the_record_is_adopted(case: Case) {
    let session = case.stored("walker").await;
    let Rotated::Ahead(adopted) = case.rotate(&session, 5, b"safa", GRACE).await else { panic!("it was ahead") };
    assert_eq!(adopted.refresh.turn, 6);
    assert_eq!(case.rotate(&session, 5, b"safa", GRACE).await, Rotated::Repeated(adopted.clone()), "its retry");
    assert_eq!(case.rotate(&session, 0, b"safa", GRACE).await, Rotated::Reused(adopted));
}

async fn only_a_live_session_with_this_secret_is_rotated(case: Case) {
    let session = case.stored("walker").await;
    let forged = Session { verifier: Verifier([8; 24]), ..session.clone() };
    assert_eq!(case.rotate(&forged, 0, b"safa", GRACE).await, Rotated::Gone, "another secret");
    assert_eq!(case.rotate(&case.session("walker"), 0, b"safa", GRACE).await, Rotated::Gone, "never stored");
    assert_eq!(case.rotate(&session, u32::MAX, b"safa", GRACE).await, Rotated::Gone, "there is no next turn");
    let presented = Presented { turn: 0, verifier: session.verifier, agent: AgentMark::default(), grace: GRACE };
    let expired = case.store.rotate(session.id, presented, session.expires_at).await.unwrap();
    assert_eq!(expired, Rotated::Gone, "its time has passed");
    case.assert_live(&session).await;
    case.revoke(&[&session]).await;
    assert_eq!(case.rotate(&session, 0, b"safa", GRACE).await, Rotated::Gone, "it has ended");
}

async fn concurrent_rotations_give_one_successor(case: Case) {
    let session = case.stored("racer").await;
    let rotations = (0..50).map(|_| {
        let (case, session) = (case.clone(), session.clone());
        tokio::spawn(async move { case.rotate(&session, 0, b"safa", GRACE).await })
    });
    let rotations: Vec<_> = rotations.collect();
    let (mut first, mut successors) = (0, Vec::new());
    for rotated in join_all(rotations).await {
        match rotated.unwrap() {
            Rotated::Next(session) => {
                first += 1;
                successors.push(session);
            }
            Rotated::Repeated(session) => successors.push(session),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((first, successors.len()), (1, 50));
    assert!(successors.iter().all(|session| *session == successors[0]), "they got different answers");
    assert_eq!(successors[0].refresh.turn, 1);
}

fn stored_without_evictions() -> Created {
    Created::Stored { evicted: Vec::new() }
}

async fn a_proof_is_claimed_once_until_it_lapses(case: Case) {
    let mut digest = [0; 32];
    digest[..16].copy_from_slice(Uuid::new_v4().as_bytes());
    let until = case.after(MINUTE);
    let claims = join_all((0..8).map(|_| case.store.claim_once(&digest, until, case.now))).await;
    assert_eq!(claims.into_iter().filter(|claimed| *claimed.as_ref().unwrap()).count(), 1);
    digest[31] ^= 1;
    assert!(case.store.claim_once(&digest, until, case.now).await.unwrap(), "another proof is another matter");
}

async fn concurrent_creates_stay_within_the_cap(case: Case) {
    let creates = (0..20).map(|_| {
        let case = case.clone();
        tokio::spawn(async move { case.create(&case.session("busy"), 5).await })
    });
    let mut evicted = Vec::new();
    for created in join_all(creates).await {
        let Created::Stored { evicted: ids } = created.unwrap() else { panic!("nothing superseded it") };
        evicted.extend(ids);
    }
    let live = case.list("busy").await;
    assert_eq!(live.len(), 5);
    assert_eq!(evicted.len(), 15, "each session beyond the cap is reported once");
    assert!(evicted.iter().all(|id| case.store.revocations().is_revoked(id)));
    for session in &live {
        case.assert_live(session).await;
    }
}

async fn nothing_is_found_after_revoke_returned(case: Case) {
    for _ in 0..20 {
        let session = case.stored("racer").await;
        let revoked = Arc::new(AtomicBool::new(false));
        let finders: Vec<_> = (0..4)
            .map(|_| {
                let (case, session, revoked) = (case.clone(), session.clone(), revoked.clone());
                tokio::spawn(async move {
                    loop {
                        let began_after = revoked.load(Ordering::SeqCst);
                        let found = case.find(&session).await;
                        if began_after {
                            return found;
                        }
                        // A refusal from memory never waits: without this the finders hold every worker.
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        case.revoke(&[&session]).await;
        revoked.store(true, Ordering::SeqCst);
        for found in join_all(finders).await {
            assert_eq!(found.unwrap(), None);
        }
    }
}
