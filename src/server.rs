//! The composition root: from a configuration to a running server. The only file that wires.
//!
//! Two sets of threads: a small runtime of our own carries what must outlive the proxy (admin
//! port, store connection, signals, reload), and pingora's carries the proxy port. Nothing here
//! waits for Redis or a provider: the server starts without them and becomes ready when they come.

mod drain;
mod reload;
mod tls;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use pingora::apps::HttpServerOptions;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::services::listening::Service;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::drain::Drain;
use self::reload::Reload;
use crate::api::admin::{self, Health};
use crate::api::limit;
use crate::api::session::{App, router};
use crate::config::sessions::StoreUrl;
use crate::config::{Address, Config, Loaded};
use crate::identity::Providers;
use crate::metrics::Metrics;
use crate::model::{TokenKey, TokenKeys};
use crate::proxy::edge::Edge;
use crate::proxy::exchange::RequestIds;
use crate::proxy::route::RouteTable;
use crate::proxy::streams::Streams;
use crate::proxy::tally::Tallies;
use crate::proxy::upstream::Upstream;
use crate::proxy::{ATTEMPTS, Gateway, Settings};
use crate::secret::random_bytes;
use crate::session::{Policy, Sessions, Setup};
use crate::store::SessionStore;
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;
use crate::telemetry::Verbosity;
use crate::time::{Clock, SystemClock};

/// Bytes read from a client at once. pingora's 64 KiB would be held by every idle connection.
const READ_BUFFER: usize = 8 * 1024;
/// Head and a small body leave in one write.
const WRITE_BUFFER: usize = 16 * 1024;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// How often readiness looks whether store and keys have answered for the first time.
const READINESS: Duration = Duration::from_millis(20);
const BACKGROUND: &str = "background";

/// Reads the configuration again, from where it was read first.
pub type Reread = Box<dyn Fn() -> Result<Loaded, String> + Send + Sync>;

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct StartError(String);

/// A store, and what it takes to keep it going.
enum Store {
    Sqlite(Arc<SqliteStore>),
    Redis(Arc<RedisStore>),
}

/// What the parts share.
struct Shared {
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom + Send + Sync>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    draining: Arc<AtomicBool>,
    streams: Arc<Streams>,
    settings: Arc<ArcSwap<Settings>>,
}

/// Serves until told to stop. Blocks; returns when everything under way has ended or run out of time.
///
/// `announce` is called once everything is set up, just before the proxy port opens.
pub fn serve(
    loaded: &Loaded,
    reread: Reread,
    verbosity: Verbosity,
    announce: &mut dyn FnMut(),
) -> Result<(), StartError> {
    let config = &loaded.config;
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(BACKGROUND)
        .enable_all()
        .build()
        .map_err(|error| start_error("cannot start threads", &error))?;
    let shared = Shared::new(config)?;
    shared.publish_build(&loaded.hash);
    let (store, keys) = background.block_on(open_store(config, &shared))?;
    let sessions = start_sessions(config, &store, keys, &shared);
    let providers = Providers::new(config, &shared.clock, &shared.metrics);
    let providers = Arc::new(providers.map_err(|error| start_error("cannot set up identity providers", &error))?);
    let upstream =
        Upstream::new(&config.upstream).map_err(|error| start_error("cannot set up the upstream", &error))?;
    let upstream = Arc::new(upstream);
    let certificates = config.tls.as_ref().map(tls::Certificates::load).transpose().map_err(StartError)?;

    background.block_on(serve_admin(config.admin.listen, &shared))?;
    store.spawn(&background);
    spawn_upkeep(&background, config, &sessions, &providers, &upstream, &shared);
    let reload = Reload {
        reread,
        verbosity,
        certificates: certificates.clone(),
        sessions: sessions.clone(),
        settings: shared.settings.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
    };
    background.spawn(reload.run(loaded.clone(), config.lifecycle.reload_interval));

    let gateway = gateway(config, &sessions, &providers, &upstream, &shared)?;
    let server = pingora_server(config, gateway, certificates, &shared)?;
    spawn_readiness(&background, store, &sessions, &providers, &shared);
    shared.health.mark_started();
    tracing::info!(listen = %config.listen, admin = %config.admin.listen, "Serving");
    announce();
    run(server, config, &background, &shared);
    background.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

// pingora sleeps its whole grace period however idle it is, so it does that on a thread of its
// own, and this one returns as soon as nothing is under way.
fn run(server: Server, config: &Config, background: &Runtime, shared: &Shared) {
    let drain = Drain {
        delay: config.lifecycle.drain_delay,
        streams: shared.streams.clone(),
        health: shared.health.clone(),
        metrics: shared.metrics.clone(),
        draining: shared.draining.clone(),
    };
    let idle = drain::idle(server.watch_execution_phase(), shared.streams.clone(), config.lifecycle.drain_timeout);
    let (ended, wait) = std::sync::mpsc::channel();
    let ended_too = ended.clone();
    background.spawn(async move {
        idle.await;
        // The receiver is gone only if the other end came first.
        let _ = ended.send(());
    });
    std::thread::spawn(move || {
        server.run(RunArgs { shutdown_signal: Box::new(drain) });
        let _ = ended_too.send(());
    });
    let _ = wait.recv();
    tracing::info!(under_way = shared.streams.exchanges(), "Stopped");
}

impl Shared {
    fn new(config: &Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Metrics::new().map_err(|error| start_error("cannot set up metrics", &error))?;
        Ok(Self {
            health: Arc::new(Health::new(clock.clone(), &[BACKGROUND])),
            clock,
            random: Arc::new(SystemRandom::new()),
            metrics: Arc::new(metrics),
            draining: Arc::new(AtomicBool::new(false)),
            streams: Streams::new(),
            settings: Arc::new(ArcSwap::from_pointee(settings(config)?)),
        })
    }

    fn publish_build(&self, config_hash: &str) {
        let revision = option_env!("DOORWARD_REVISION").unwrap_or("unknown");
        self.metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        self.metrics.config_info.with_label_values(&[config_hash]).set(1);
        self.metrics.config_last_reload_successful.set(1);
    }
}

impl Store {
    fn sessions(&self) -> Arc<dyn SessionStore> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Redis(store) => store.clone(),
        }
    }

    fn spawn(&self, background: &Runtime) {
        match self {
            Self::Sqlite(store) => background.spawn(store.clone().run()),
            Self::Redis(store) => background.spawn(store.clone().run()),
        };
    }
}

/// Returns what a reload may replace, as a configuration asks for it.
fn settings(config: &Config) -> Result<Settings, StartError> {
    let routes = RouteTable::new(&config.routes).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        StartError(format!("routes: {}", problems.join("; ")))
    })?;
    Ok(Settings {
        routes,
        identity_headers: config.identity_headers,
        cookie: config.cookie.clone(),
        trusted_proxies: config.trusted_proxies.clone(),
        access_log_sample: config.telemetry.access_log_sample,
    })
}

/// Returns the configured keys, the first minting; `None` when none are.
fn configured_keys(config: &Config) -> Result<Option<(TokenKeys, TokenKey)>, StartError> {
    let too_short = || StartError("sessions.token.keys: a key is shorter than 32 bytes".to_owned());
    let key = |key: &crate::config::sessions::TokenKey| TokenKey::new(key.id, key.secret.expose().as_bytes());
    let keys = config.sessions.token.keys.iter().map(key).collect::<Option<Vec<_>>>().ok_or_else(too_short)?;
    // Guests are named under the key with the lowest id: it is the one that stays longest.
    let oldest = config.sessions.token.keys.iter().min_by_key(|key| key.id).and_then(key);
    let mut keys = keys.into_iter();
    let (Some(minting), Some(oldest)) = (keys.next(), oldest) else { return Ok(None) };
    Ok(Some((TokenKeys::new(config.sessions.token.prefix.clone(), minting, keys.collect()), oldest)))
}

async fn open_store(config: &Config, shared: &Shared) -> Result<(Store, (TokenKeys, TokenKey)), StartError> {
    let configured = configured_keys(config)?;
    let StoreUrl::Sqlite(path) = &config.sessions.store else {
        let store = RedisStore::connect(&config.sessions, shared.clock.clone(), shared.metrics.clone());
        let store = store.map_err(|error| start_error("sessions.redis", &error))?;
        let keys =
            configured.ok_or_else(|| StartError("sessions.token.keys: several replicas need a key".to_owned()))?;
        return Ok((Store::Redis(store), keys));
    };
    let store = SqliteStore::open(path, shared.clock.clone(), shared.metrics.clone()).await;
    let store = store.map_err(|error| start_error("sessions.store", &error))?;
    let keys = match configured {
        Some(keys) => keys,
        None => kept_keys(config, &store, shared).await?,
    };
    Ok((Store::Sqlite(store), keys))
}

async fn kept_keys(config: &Config, store: &SqliteStore, shared: &Shared) -> Result<(TokenKeys, TokenKey), StartError> {
    let unreadable = |error| start_error("sessions.store", &error);
    let token = store.token_key(shared.random.as_ref()).await.map_err(unreadable)?;
    let device = store.device_key(shared.random.as_ref()).await.map_err(unreadable)?;
    let key = |material: &[u8]| TokenKey::new(1, material).expect("the store keeps keys of 32 bytes");
    Ok((TokenKeys::new(config.sessions.token.prefix.clone(), key(&*token), Vec::new()), key(&*device)))
}

fn start_sessions(
    config: &Config,
    store: &Store,
    (keys, guest_key): (TokenKeys, TokenKey),
    shared: &Shared,
) -> Arc<Sessions> {
    let mut cache = config.sessions.cache.clone();
    if let Store::Redis(store) = store {
        cache.max_ttl = store.cache_ttl_cap().map_or(cache.max_ttl, |cap| cache.max_ttl.min(cap));
    }
    Sessions::new(Setup {
        store: store.sessions(),
        keys,
        guest_key,
        policy: Policy::from_config(config),
        cache,
        clock: shared.clock.clone(),
        random: shared.random.clone(),
        metrics: shared.metrics.clone(),
    })
}

async fn serve_admin(address: SocketAddr, shared: &Shared) -> Result<(), StartError> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| start_error(&format!("admin.listen: cannot listen on {address}"), &error))?;
    let router = admin::router(shared.health.clone(), shared.metrics.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(error = %error, "Admin listener failed");
        }
    });
    Ok(())
}

fn spawn_upkeep(
    background: &Runtime,
    config: &Config,
    sessions: &Arc<Sessions>,
    providers: &Arc<Providers>,
    upstream: &Arc<Upstream>,
    shared: &Shared,
) {
    let max_stale = Policy::from_config(config).max_stale;
    background.spawn(providers.clone().run());
    let owned = upstream.clone();
    background.spawn(async move { owned.run().await });
    let owned = sessions.clone();
    background.spawn(async move { owned.run().await });
    let (streams, sessions) = (shared.streams.clone(), sessions.clone());
    let (clock, metrics) = (shared.clock.clone(), shared.metrics.clone());
    background.spawn(async move { streams.run(&sessions, max_stale, clock.as_ref(), &metrics).await });
    let health = shared.health.clone();
    background.spawn(async move {
        let mut every = tokio::time::interval(HEARTBEAT);
        loop {
            every.tick().await;
            health.beat(0);
        }
    });
}

// Latched: what has answered once stays ready, so that an outage does not empty the Service of all
// its replicas at once.
fn spawn_readiness(
    background: &Runtime,
    store: Store,
    sessions: &Arc<Sessions>,
    providers: &Arc<Providers>,
    shared: &Shared,
) {
    let (sessions, providers, health) = (sessions.clone(), providers.clone(), shared.health.clone());
    let metrics = shared.metrics.clone();
    background.spawn(async move {
        let _kept_open = store;
        let mut every = tokio::time::interval(READINESS);
        let (mut store_ready, mut keys_ready) = (false, false);
        while !(store_ready && keys_ready) {
            every.tick().await;
            if !store_ready && sessions.revocations().is_current() {
                store_ready = true;
                health.mark_store_ready();
                metrics.ready.with_label_values(&["store"]).set(1);
            }
            if !keys_ready && providers.loaded() {
                keys_ready = true;
                health.mark_keys_ready();
                metrics.ready.with_label_values(&["keys"]).set(1);
            }
        }
        std::future::pending::<()>().await;
    });
}

fn gateway(
    config: &Config,
    sessions: &Arc<Sessions>,
    providers: &Arc<Providers>,
    upstream: &Arc<Upstream>,
    shared: &Shared,
) -> Result<Gateway, StartError> {
    let seed = random_bytes::<8>(shared.random.as_ref()).map_err(|error| start_error("cannot start", &error))?;
    let app = App {
        sessions: sessions.clone(),
        providers: providers.clone(),
        limits: Arc::new(limit::Limits::new(&config.limits, &shared.clock, &shared.metrics)),
        metrics: shared.metrics.clone(),
        random: shared.random.clone(),
    };
    Ok(Gateway {
        settings: shared.settings.clone(),
        sessions: sessions.clone(),
        surfaces: Arc::new(router(app)),
        upstream: upstream.clone(),
        streams: shared.streams.clone(),
        limits: config.limits.clone(),
        draining: shared.draining.clone(),
        request_ids: RequestIds::new(u64::from_ne_bytes(*seed)),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        tallies: Tallies::new(shared.metrics.clone()),
    })
}

fn pingora_server(
    config: &Config,
    gateway: Gateway,
    certificates: Option<Arc<tls::Certificates>>,
    shared: &Shared,
) -> Result<Server, StartError> {
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let mut proxy = HttpProxy::new(gateway, server.configuration.clone());
    proxy.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2c = config.limits.h2c;
    proxy.server_options = Some(options);
    let edge = Edge::new(proxy, shared.streams.clone(), config.limits.clone(), shared.metrics.clone());
    let mut service = Service::new("edge".to_owned(), edge);
    service.add_listener(listener(config, certificates)?);
    server.add_service(service);
    Ok(server)
}

fn listener(config: &Config, certificates: Option<Arc<tls::Certificates>>) -> Result<ListenerConfig, StartError> {
    let listener = match &config.listen {
        Address::Tcp(address) => {
            // pingora panics when it cannot bind; find out first, where it can be said in words.
            probe_address(*address)?;
            ListenerConfig::tcp(address.to_string())
        }
        Address::Unix(path) => ListenerConfig::uds(unix_path(path)?),
    };
    let listener = listener.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER));
    Ok(match certificates {
        Some(certificates) => listener.tls(tls::settings(certificates).map_err(StartError)?),
        None => listener,
    })
}

fn probe_address(address: SocketAddr) -> Result<(), StartError> {
    let probe = std::net::TcpListener::bind(address);
    probe.map(drop).map_err(|error| start_error(&format!("listen: cannot listen on {address}"), &error))
}

fn unix_path(path: &Path) -> Result<String, StartError> {
    path.to_str().map(str::to_owned).ok_or_else(|| StartError("listen: the socket's path is not UTF-8".to_owned()))
}

fn server_conf(config: &Config) -> ServerConf {
    let workers = match config.limits.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    ServerConf {
        threads: workers,
        // With stealing, pingora tears some WebSockets down right after the 101 (cloudflare/pingora#946).
        work_stealing: false,
        upstream_keepalive_pool_size: config.upstream.pool_size * workers,
        max_retries: ATTEMPTS,
        ca_file: config.upstream.ca.as_ref().map(|path| path.display().to_string()),
        // A ceiling: `drain::idle` ends the wait as soon as nothing is under way.
        grace_period_seconds: Some(config.lifecycle.drain_timeout.as_secs() + 1),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}

fn start_error(what: &str, error: &dyn std::error::Error) -> StartError {
    let mut text = format!("{what}: {error}");
    let mut cause = error.source();
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    StartError(text)
}
