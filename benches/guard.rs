//! What the guard costs a request, without pingora: `cargo bench --bench guard`.
//!
//! The parts are the real ones, down to a SQLite file. A cache hit must do no I/O: its future is
//! polled once, and one that is not ready then ends the benchmark.

use std::hint::black_box;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use criterion::{Criterion, criterion_group, criterion_main};
use doorward::config::{Auth, Cookie, RouteRule, sessions};
use doorward::directory::Generation;
use doorward::guests::Guests;
use doorward::metrics::Metrics;
use doorward::model::surface::{Mount, SurfaceId, Surfaces};
use doorward::model::{Dialect, NewSession, SessionId, SessionSecret, Shard, TokenKey, TokenKeys, TokenKind};
use doorward::proxy::guard::{self, Permit, Rejection};
use doorward::proxy::path::normalise;
use doorward::proxy::policy::RoutePolicy;
use doorward::proxy::route::{Route, RouteTable};
use doorward::session::{self, Handout, Refusal, Sessions, Setup, Source};
use doorward::store::sqlite::SqliteStore;
use doorward::store::{KEEP_ENDED, SessionStore};
use doorward::time::{Clock, SystemClock, Timestamp};
use futures_util::FutureExt;
use http::request::Parts;
use http::{HeaderValue, Method, Request, header};
use tokio::runtime::Runtime;

const PREFIX: &str = "dw_";

/// A sessions service over a database of its own, which goes when this does.
struct Fixture {
    runtime: Runtime,
    sessions: Arc<Sessions>,
    directory: PathBuf,
    policy: RoutePolicy,
    cookie: Cookie,
}

impl Fixture {
    fn new() -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let directory = std::env::temp_dir().join(format!("doorward-guard-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).expect("the temporary directory is writable");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Arc::new(Metrics::new().expect("metric names are valid"));
        let database = directory.join("sessions.db");
        let opened = SqliteStore::open(&database, KEEP_ENDED, clock.clone(), metrics.clone());
        let store: Arc<dyn SessionStore> = runtime.block_on(opened).expect("a new database opens");
        let setup = Setup {
            store,
            keys: TokenKeys::new(PREFIX.to_owned(), key(), Vec::new()),
            guest_key: key(),
            policy: session::Policy::new(Duration::from_hours(1), 100, "default".parse().expect("visible ASCII")),
            cache: sessions::Cache { capacity: 100_000, max_ttl: Duration::from_hours(1) },
            clock,
            random: Arc::new(SystemRandom::new()),
            metrics,
        };
        Self {
            runtime,
            sessions: Sessions::new(setup),
            directory,
            policy: RoutePolicy {
                auth: Auth::Required,
                allow_anonymous: true,
                require_any_role: Vec::new(),
                stream: false,
                keep_credentials: false,
            },
            cookie: Cookie { enabled: true, name: "session".to_owned(), allowed_origins: Vec::new() },
        }
    }

    fn token(&self) -> String {
        let guests = Guests::new(key(), self.sessions.default_tenant().clone());
        let guest = guests.principal("a device of the benchmark", Generation(0));
        let guest = NewSession::guest(guest, SystemClock::new().now());
        let started = self.runtime.block_on(self.sessions.start(&guest, "anonymous", Handout::OPAQUE));
        started.expect("the store is writable").opaque().expose().to_owned()
    }

    /// Decides in one poll: with no I/O.
    fn authorize(&self, head: &Parts) -> Result<Permit, Rejection> {
        let mut call = None;
        let decision = guard::authorize(&self.sessions, &self.policy, head, &self.cookie, &mut call);
        decision.now_or_never().expect("a decision without I/O is ready at once")
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        // What cannot be removed now is the temporary directory's to clean.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn key() -> TokenKey {
    TokenKey::new(1, &[7; 32]).expect("32 bytes are enough")
}

fn request(token: &str) -> Parts {
    let (mut head, ()) = Request::new(()).into_parts();
    let headers = &mut head.headers;
    headers.insert(header::HOST, HeaderValue::from_static("app.example.com"));
    headers.insert(header::USER_AGENT, HeaderValue::from_static("Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101"));
    headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
    let bearer = HeaderValue::try_from(format!("Bearer {token}")).expect("visible ASCII");
    headers.insert(header::AUTHORIZATION, bearer);
    head
}

fn decisions(criterion: &mut Criterion) {
    let fixture = Fixture::new();
    let token = fixture.token();
    let known = request(&token);
    let mut call = None;
    let first = guard::authorize(&fixture.sessions, &fixture.policy, &known, &fixture.cookie, &mut call);
    let first = fixture.runtime.block_on(first).expect("the session was just started");
    assert_eq!(first.source(), Some(Source::Store));
    assert_eq!(fixture.authorize(&known).map(|permit| permit.source()), Ok(Some(Source::Cache)));
    criterion.bench_function("allow: cache hit", |bencher| bencher.iter(|| fixture.authorize(black_box(&known))));

    let mut forged = token.into_bytes();
    if let Some(last) = forged.last_mut() {
        *last = if *last == b'A' { b'B' } else { b'A' };
    }
    let forged = request(&String::from_utf8(forged).expect("still ASCII"));
    assert_eq!(fixture.authorize(&forged).map(|_| ()), Err(Rejection::Refused(Refusal::Unknown)));
    criterion.bench_function("deny: forged MAC", |bencher| bencher.iter(|| fixture.authorize(black_box(&forged))));

    let garbage = request(&format!("{PREFIX}{}", "x".repeat(48)));
    assert_eq!(fixture.authorize(&garbage).map(|_| ()), Err(Rejection::Refused(Refusal::Malformed)));
    criterion.bench_function("deny: garbage", |bencher| bencher.iter(|| fixture.authorize(black_box(&garbage))));
}

fn tokens(criterion: &mut Criterion) {
    let keys = TokenKeys::new(PREFIX.to_owned(), key(), Vec::new());
    let random = SystemRandom::new();
    let id = SessionId::new(Timestamp(1_800_000_000_000), Shard::of(7), &[7; 10]);
    let secret = SessionSecret::new(&random).expect("the system has entropy");
    let mint = || keys.mint(TokenKind::Access, black_box(id), &secret, Timestamp(1_900_000_000_000), 0);
    criterion.bench_function("token: mint", |bencher| bencher.iter(mint));
    let token = mint();
    assert_eq!(keys.parse(&[TokenKind::Access], token.expose()).map(|parsed| parsed.session), Ok(id));
    // The verifier too: every request compares it.
    let parse = || keys.parse(&[TokenKind::Access], black_box(token.expose())).map(|parsed| parsed.verifier());
    criterion.bench_function("token: parse", |bencher| bencher.iter(parse));
}

fn routes(criterion: &mut Criterion) {
    let rule = |path: &str, auth| RouteRule {
        id: None,
        path: path.to_owned(),
        methods: Vec::new(),
        auth,
        allow_anonymous: true,
        require_any_role: Vec::new(),
        stream: false,
        keep_credentials: false,
        errors: Dialect::Detail,
    };
    let rules =
        [rule("/healthz", Auth::None), rule("/public/**", Auth::Optional), rule("/api/*/export", Auth::Required)];
    let surfaces = Surfaces::new(vec![
        Mount::below(SurfaceId::SessionExchange, "/auth"),
        Mount::at(SurfaceId::Webhooks, "/webhooks/clerk"),
        Mount::below(SurfaceId::ForwardAuth, "/_doorward"),
    ]);
    let table = RouteTable::new(&rules, surfaces).expect("the rules are valid");
    let path = "/api/v1/customers/4711/invoices";
    let classify = |path: &str| {
        let normal = normalise(path).expect("an ordinary path");
        matches!(table.classify(&Method::GET, &normal), Route::Guard(_))
    };
    assert!(classify(path));
    criterion.bench_function("route: normalise and classify", |bencher| bencher.iter(|| classify(black_box(path))));
}

criterion_group!(guard, decisions, tokens, routes);
criterion_main!(guard);
