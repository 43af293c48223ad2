//! Who an identity is, and what a sign-in leaves behind, over real stores.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;

use super::*;
use crate::config::tests::TestDirectory;
use crate::config::{self, Config};
use crate::directory::{Directory, LoginStatus, embedded};
use crate::guests::Guests;
use crate::metrics::Metrics;
use crate::model::{Identity, NewSession, PrincipalId, PrincipalKind, ProviderId, TokenKey, TokenKeys};
use crate::session::{Policy, Sessions, Setup};
use crate::store::KEEP_ENDED;
use crate::store::sqlite::SqliteStore;
use crate::time::{Clock, ManualClock, Timestamp};

const NOON: Timestamp = Timestamp(1_800_000_000_000);
// Their keys are never asked for. The ids of the second one's users begin with v_.
const ISSUERS: &str = "{ partner: { issuer: 'https://p', jwks_url: 'https://p/jwks' }, \
                         verbatim: { issuer: 'https://v', jwks_url: 'https://v/jwks', \
                                     user_id: subject, subject_prefix: v_ } }";

/// The services over embedded stores of their own.
struct Bench {
    sign_in: SignIn,
    resolver: Arc<Resolver>,
    directory: Arc<Directory>,
    sessions: Arc<Sessions>,
    metrics: Arc<Metrics>,
    _files: TestDirectory,
}

impl Bench {
    async fn new(checks_ended_logins: bool) -> Self {
        let files = TestDirectory::new();
        let directory = embedded(&files).await;
        Self::over(directory, files, checks_ended_logins).await
    }

    /// Nothing listens where the directory should be.
    async fn without_directory() -> Self {
        let url = "postgres://nobody@127.0.0.1:1/none".parse().unwrap();
        let config = config::Directory { url, timeout: Duration::from_secs(1), ..config().directory };
        Self::over(Directory::open(&config).unwrap(), TestDirectory::new(), false).await
    }

    async fn over(directory: Directory, files: TestDirectory, checks_ended_logins: bool) -> Self {
        let (config, directory) = (config(), Arc::new(directory));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(NOON));
        let metrics = Arc::new(Metrics::new().unwrap());
        let place = files.path().join("sessions.db");
        let store = SqliteStore::open(&place, KEEP_ENDED, clock.clone(), metrics.clone()).await.unwrap();
        let key = TokenKey::new(1, &[7; 32]).unwrap();
        let sessions = Sessions::new(Setup {
            store,
            keys: TokenKeys::new("dw_".to_owned(), key.clone(), Vec::new()),
            guest_key: key.clone(),
            policy: Policy::from_config(&config),
            cache: config.sessions.cache.clone(),
            clock: clock.clone(),
            random: Arc::new(SystemRandom::new()),
            metrics: metrics.clone(),
        });
        let resolver = Arc::new(Resolver::new(&config, directory.clone(), clock.clone()));
        let sign_in = SignIn::new(SignInSetup {
            sessions: sessions.clone(),
            directory: directory.clone(),
            guests: Arc::new(Guests::new(key, config.tenants.default.clone())),
            resolver: resolver.clone(),
            checks_ended_logins,
            clock,
            metrics: metrics.clone(),
        });
        Self { sign_in, resolver, directory, sessions, metrics, _files: files }
    }

    fn attempts(&self, method: SignInMethod, outcome: &str) -> u64 {
        self.metrics.login_attempts.with_label_values(&[method.as_str(), outcome]).get()
    }
}

fn config() -> Config {
    Config::load(&[], &[("DOORWARD__ISSUERS".to_owned(), ISSUERS.to_owned())].into()).unwrap().config
}

fn identity(provider: &str, subject: &str) -> Identity {
    Identity {
        provider: provider.parse().unwrap(),
        subject: subject.parse().unwrap(),
        tenant: None,
        roles: vec!["org:admin".parse().unwrap()],
        provider_session: Some("sess_1".to_owned()),
        actor: None,
        authenticated_at: NOON,
        proof_id: None,
    }
}

fn id(text: &str) -> PrincipalId {
    text.parse().unwrap()
}

#[tokio::test]
async fn the_same_subject_at_two_providers_is_two_principals() {
    let bench = Bench::new(false).await;
    let resolve =
        async |provider: &str, subject: &str| bench.resolver.resolve(&identity(provider, subject)).await.unwrap();
    let clerks = resolve("clerk", "user_alice").await;
    assert_eq!(
        (clerks.kind, clerks.id.as_str(), clerks.tenant.as_str()),
        (PrincipalKind::User, "user_alice", "default")
    );
    let partners = resolve("partner", "user_alice").await;
    assert_ne!(partners.id, clerks.id);
    assert_eq!(resolve("partner", "user_alice").await, partners, "the next time too");
    assert_ne!(resolve("partner", "user_bob").await.id, partners.id);
    assert_eq!(resolve("verbatim", "v_alice").await.id.as_str(), "v_alice");
    // A provider that the configuration does not name has users of its own, under any name.
    assert_ne!(resolve("stranger", "v_alice").await.id.as_str(), "v_alice");

    let find = async |provider: &str, subject: &str| {
        let (provider, subject) = (provider.parse::<ProviderId>().unwrap(), subject.parse().unwrap());
        bench.resolver.find_user(&provider, &subject).await.unwrap()
    };
    assert_eq!(find("clerk", "user_never_seen").await, Some(id("user_never_seen")));
    assert_eq!(find("partner", "user_alice").await, Some(partners.id));
    assert_eq!(find("partner", "user_never_seen").await, None, "finding makes no user");
    assert_eq!(find("partner", "user_never_seen").await, None);
}

#[tokio::test]
async fn only_users_of_other_providers_need_the_directory() {
    let bench = Bench::without_directory().await;
    for (provider, subject) in [("clerk", "user_alice"), ("verbatim", "v_alice")] {
        let signed_in = bench.sign_in.with_identity(identity(provider, subject), None).await.unwrap();
        assert_eq!(signed_in.started.session.principal.id, id(subject));
        assert_eq!(bench.sign_in.find_principal(&identity(provider, subject)).await.unwrap().id, id(subject));
    }
    let refused = bench.sign_in.with_identity(identity("partner", "user_alice"), None).await;
    assert!(matches!(refused, Err(SignInError::Directory(_))), "{refused:?}");
    let unknown = bench.sign_in.find_principal(&identity("partner", "user_alice")).await;
    assert!(matches!(unknown, Err(SignInError::Directory(_))), "{unknown:?}");
    assert_eq!(bench.attempts(SignInMethod::Clerk, "success"), 2);
    assert_eq!(bench.attempts(SignInMethod::Clerk, "unavailable"), 1);
}

#[tokio::test]
async fn what_ends_at_one_provider_does_not_end_at_another() {
    let bench = Bench::new(true).await;
    let sign_in = async |provider: &str| bench.sign_in.with_identity(identity(provider, "user_alice"), None).await;
    let clerks = sign_in("clerk").await.unwrap().started.session.principal.clone();
    sign_in("partner").await.unwrap();

    let until = NOON.plus(Duration::from_hours(1));
    bench.directory.end_login(&ProviderId::CLERK, "sess_1", until, NOON).await.unwrap();
    assert!(matches!(sign_in("clerk").await, Err(SignInError::LoginEnded)));
    sign_in("partner").await.expect("its login has the same name and is another");
    bench.directory.delete_user(&clerks.id, NOON).await.unwrap();
    assert!(matches!(sign_in("clerk").await, Err(SignInError::UserDeleted)));
    assert!(matches!(
        bench.sign_in.find_principal(&identity("clerk", "user_alice")).await,
        Err(SignInError::UserDeleted)
    ));
    sign_in("partner").await.expect("its user has the same name and is another");

    let partners = bench.resolver.resolve(&identity("partner", "user_alice")).await.unwrap();
    bench.directory.delete_user(&partners.id, NOON).await.unwrap();
    assert!(matches!(sign_in("partner").await, Err(SignInError::UserDeleted)));
    assert_eq!(bench.attempts(SignInMethod::Clerk, "success"), 4);
    assert_eq!(bench.attempts(SignInMethod::Clerk, "invalid_token"), 3);
}

#[tokio::test]
async fn a_proof_that_one_provider_used_up_is_another_providers_still() {
    let bench = Bench::new(false).await;
    let once =
        |provider: &str, subject: &str| Identity { proof_id: Some("proof".to_owned()), ..identity(provider, subject) };
    bench.sign_in.with_identity(once("clerk", "user_alice"), None).await.unwrap();
    let again = bench.sign_in.with_identity(once("clerk", "user_alice"), None).await;
    assert!(matches!(again, Err(SignInError::AlreadyUsed)), "{again:?}");
    bench.sign_in.with_identity(once("partner", "user_alice"), None).await.unwrap();
}

#[tokio::test]
async fn a_guest_is_counted_like_everybody_and_comes_back_as_the_same() {
    let bench = Bench::new(false).await;
    let client_ip: Option<IpAddr> = Some("192.0.2.7".parse().unwrap());
    let first = bench.sign_in.as_guest("phone", client_ip).await.unwrap().started;
    let again = bench.sign_in.as_guest("phone", client_ip).await.unwrap().started;
    assert_eq!(first.session.principal, again.session.principal);
    assert_eq!(first.session.principal.kind, PrincipalKind::Anonymous);
    assert_ne!(first.session.id, again.session.id);
    assert!(bench.sessions.validate(first.opaque().expose()).await.is_ok());
    bench.sign_in.record_refusal(SignInMethod::Anonymous, client_ip, "unprocessable");
    assert_eq!(bench.attempts(SignInMethod::Anonymous, "success"), 2);
    assert_eq!(bench.attempts(SignInMethod::Anonymous, "unprocessable"), 1);
}

#[tokio::test]
async fn a_sign_in_is_known_to_the_directory_when_it_is_answered_where_ends_are_told() {
    let bench = Bench::new(true).await;
    let started = bench.sign_in.with_identity(identity("partner", "user_alice"), None).await.unwrap().started;
    let principal = started.session.principal.clone();
    assert_eq!(bench.directory.list_tenants(&principal.id).await.unwrap(), std::slice::from_ref(&principal.tenant));
    let login = NewSession::of(principal, identity("partner", "user_alice"));
    let status = bench.directory.find_login_status(&login, NOON).await.unwrap();
    assert!(matches!(status, LoginStatus::Active(_)), "{status:?}");
}
