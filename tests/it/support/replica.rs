//! One replica of Doorward as far as sessions go, in this process: the real service over the real
//! store, without a proxy in front. It can be asked a hundred thousand times a second.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use doorward::config;
use doorward::directory::Generation;
use doorward::guests::Guests;
use doorward::metrics::Metrics;
use doorward::model::{NewSession, TokenKey, TokenKeys};
use doorward::session::{Handout, Policy, Sessions, Setup, Started};
use doorward::store::redis::RedisStore;
use doorward::store::{KEEP_ENDED, SessionStore};
use doorward::time::{Clock, SystemClock};
use serde_json::json;
use tokio::task::JoinSet;

use super::eventually;

/// The lease of these replicas: short, so that a run of seconds sees many of them lapse.
pub const LEASE: Duration = Duration::from_millis(600);

const KEY: &[u8] = b"integration-tests-only-0123456789abcdef";

/// A running replica; it ends on drop.
pub struct Replica {
    /// The service.
    pub sessions: Arc<Sessions>,
    guests: Guests,
    /// Its metrics.
    pub metrics: Arc<Metrics>,
    _tasks: JoinSet<()>,
}

impl Replica {
    /// Starts a replica on the Redis at `url` and waits until it hears of revocations.
    pub async fn live(url: &str) -> Self {
        Self::live_over(url, |store| store).await
    }

    /// As [`Replica::live`], with `layer` laid between the service and the store.
    pub async fn live_over<S: SessionStore>(url: &str, layer: impl FnOnce(Arc<RedisStore>) -> Arc<S>) -> Self {
        let config = settings(url);
        let (clock, metrics) = (Arc::new(SystemClock::new()), Arc::new(Metrics::new().expect("fresh metrics")));
        let store = RedisStore::connect(&config, KEEP_ENDED, clock.clone(), metrics.clone()).expect("a valid URL");
        let key = || TokenKey::new(1, KEY).expect("it is long enough");
        let sessions = Sessions::new(Setup {
            store: layer(store.clone()),
            keys: TokenKeys::new("dw_".to_owned(), key(), Vec::new()),
            guest_key: key(),
            policy: Policy::new(config.ttl, config.max_per_principal, "default".parse().expect("a tenant")),
            cache: config.cache,
            clock,
            random: Arc::new(SystemRandom::new()),
            metrics: metrics.clone(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(store.run());
        let upkeep = sessions.clone();
        tasks.spawn(async move { upkeep.run().await });
        let guests = Guests::new(key(), sessions.default_tenant().clone());
        let replica = Self { sessions, guests, metrics, _tasks: tasks };
        replica.becomes_current().await;
        replica
    }

    /// Waits until it would have heard of a revocation.
    pub async fn becomes_current(&self) {
        let current = async || self.sessions.revocations().is_current().then_some(());
        eventually("the replica to hear of revocations", current).await;
    }

    /// Returns the sign-in of the first guest on `device`, at this moment.
    pub fn guest(&self, device: &str) -> NewSession {
        NewSession::guest(self.guests.principal(device, Generation(0)), SystemClock::new().now())
    }

    /// Starts a session for the guest on `device`; `None` when the store does not answer.
    pub async fn try_sign_in(&self, device: &str) -> Option<Started> {
        self.sessions.start(&self.guest(device), "anonymous", Handout::OPAQUE).await.ok()
    }

    /// Starts a session for the guest on `device`.
    pub async fn sign_in(&self, device: &str) -> Started {
        self.try_sign_in(device).await.expect("the store answers")
    }
}

fn settings(url: &str) -> config::Sessions {
    let settings = json!({
        "store": url,
        "token": {"keys": [{"id": 1, "secret": std::str::from_utf8(KEY).expect("it is text")}]},
        "cache": {"capacity": 10000},
        "revocation": {"heartbeat": "150ms", "lease": "600ms"},
        "redis": {"timeout": "300ms", "connect_timeout": "500ms"},
    });
    let environment = [("DOORWARD__SESSIONS".to_owned(), settings.to_string())].into();
    config::Config::load(&[], &environment).expect("these are good settings").config.sessions
}
