//! What the tests of the surfaces share: a core without a store to reach and without keys to verify with.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::accounts::{Resolver, SignIn, SignInSetup};
use crate::api::core::Core;
use crate::api::limit::Limits;
use crate::api::webhooks::WebhookSender;
use crate::bootstrap::BootstrapComposer;
use crate::config::{self, Config};
use crate::directory::Directory;
use crate::guests::{Guests, Rebinds};
use crate::identity::Providers;
use crate::metrics::Metrics;
use crate::model::surface::Surfaces;
use crate::model::{TokenKey, TokenKeys};
use crate::session::{Policy, Sessions, Setup};
use crate::store::KEEP_ENDED;
use crate::store::redis::RedisStore;
use crate::time::{Clock, ManualClock, Timestamp};

/// Returns where the surfaces are by default.
pub(super) fn surfaces() -> Surfaces {
    defaults().surfaces.mounts()
}

fn defaults() -> Config {
    Config::load(&[], &BTreeMap::new()).unwrap().config
}

/// Returns a core: a request that gets as far as the store is told that it is away.
pub(super) fn core() -> Arc<Core> {
    let metrics = Arc::new(Metrics::new().unwrap());
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(Timestamp(1_800_000_000_000)));
    let random = Arc::new(aws_lc_rs::rand::SystemRandom::new());
    let config = config();
    let key = TokenKey::new(1, &[7; 32]).unwrap();
    let sessions = Sessions::new(Setup {
        store: RedisStore::connect(&config.sessions, KEEP_ENDED, clock.clone(), metrics.clone()).unwrap(),
        keys: TokenKeys::new("dw_".to_owned(), key.clone(), Vec::new()),
        guest_key: key.clone(),
        policy: Policy::from_config(&config),
        cache: config.sessions.cache.clone(),
        clock: clock.clone(),
        random: random.clone(),
        metrics: metrics.clone(),
    });
    let directory = Arc::new(Directory::open(&config.directory).unwrap());
    let headers = config.identity_headers;
    let bootstrap = BootstrapComposer::new(&config, directory.clone(), Box::new(move || headers), metrics.clone());
    let guests = Arc::new(Guests::new(key, config.tenants.default.clone()));
    let (rebind_clock, rebind_metrics) = (clock.clone(), metrics.clone());
    let rebinds =
        Rebinds::new(&config, directory.clone(), sessions.clone(), guests.clone(), true, rebind_clock, rebind_metrics);
    let resolver = Arc::new(Resolver::new(&config, directory.clone(), clock.clone()));
    let sign_in = SignIn::new(SignInSetup {
        sessions: sessions.clone(),
        directory: directory.clone(),
        guests,
        resolver: resolver.clone(),
        checks_ended_logins: false,
        clock: clock.clone(),
        metrics: metrics.clone(),
    });
    Arc::new(Core {
        sign_in: Arc::new(sign_in),
        resolver,
        sessions,
        bootstrap: Arc::new(bootstrap.unwrap()),
        directory,
        rebinds: Arc::new(rebinds.unwrap()),
        rebind_fields: Arc::new(config.rebind.fields.clone()),
        providers: Arc::new(Providers::new(&defaults(), &clock, &metrics).unwrap()),
        sender: WebhookSender::from_config(&config).map(Arc::new),
        limits: Arc::new(Limits::new(&limits(), &clock, &metrics)),
        clock,
        metrics,
        random,
    })
}

fn config() -> Config {
    let environment = [
        ("DOORWARD__SESSIONS__STORE", "redis://127.0.0.1:1"),
        ("DOORWARD__DIRECTORY__URL", "postgres://app@127.0.0.1:1/none"),
        ("DOORWARD__SESSIONS__TOKEN__KEYS", "[{id: 1, secret: 0123456789abcdef0123456789abcdef}]"),
        ("DOORWARD__CLERK__ISSUER", "https://clerk.example.com"),
        ("DOORWARD__CLERK__JWKS_URL", "https://clerk.example.com/.well-known/jwks.json"),
        ("DOORWARD__WEBHOOKS__CLERK__SECRETS", "[whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=]"),
    ];
    let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Config::load(&[], &environment).unwrap().config
}

fn limits() -> config::Limits {
    let second = Duration::from_secs(1);
    config::Limits {
        workers: 0,
        max_connections: 0,
        header_timeout: second,
        header_bytes_max: 0,
        body_bytes_max: 0,
        body_read_timeout: second,
        keepalive: second,
        h2c: false,
        anonymous_per_minute: 1,
        exchange_per_minute: 1,
    }
}
