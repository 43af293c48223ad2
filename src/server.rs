//! The composition root: from a configuration to a running server. The only file that wires.
//!
//! Two sets of threads: a small runtime of our own carries what must outlive the proxy (admin
//! port, store connection, signals, reload), and pingora's carries the proxy port. Nothing here
//! waits for Redis or a provider: the server starts without them and becomes ready when they come.

mod directory;
mod drain;
mod exposed;
mod ext_authz;
mod listener;
mod outbox;
mod reload;
mod rotation;
mod sockets;
mod store;
mod tls;
mod traces;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use pingora::server::{RunArgs, Server};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use self::drain::{Drain, Signals};
use self::exposed::SideDoor;
use self::ext_authz::ExtAuthz;
use self::listener::pingora_server;
use self::outbox::Delivery;
use self::reload::Reload;
use self::rotation::{Holders, Rotation};
use self::store::{Store, open_store};
use self::traces::Tracing;
use crate::api::admin::{self, Health};
use crate::api::limit;
use crate::api::session::{App, router};
use crate::api::webhooks;
use crate::bootstrap::Bootstrap;
use crate::config::{Config, Loaded};
use crate::directory::Directory;
use crate::identity::Providers;
use crate::metrics::Metrics;
use crate::model::{TokenKey, TokenKeys};
use crate::proxy::direct::Direct;
use crate::proxy::exchange::RequestIds;
use crate::proxy::route::RouteTable;
use crate::proxy::series;
use crate::proxy::streams::Streams;
use crate::proxy::tally::Tallies;
use crate::proxy::upstream::Upstream;
use crate::proxy::{Gateway, Settings};
use crate::secret::random_bytes;
use crate::session::{Policy, Rebinds, Sessions, Setup};
use crate::telemetry::{Verbosity, with_causes};
use crate::time::{Clock, SystemClock};

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
/// `announce` is called once both ports are open.
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
    shared.count_panics();
    let (store, keys) = background.block_on(open_store(config, &shared))?;
    let directory = background.block_on(directory::open(config, &shared))?;
    let sessions = start_sessions(config, &store, keys, &shared);
    let rebinds = background.block_on(directory::open_rebinds(config, &directory, &sessions, &shared))?;
    let providers = Providers::new(config, &shared.clock, &shared.metrics);
    let providers = Arc::new(providers.map_err(|error| start_error("cannot set up identity providers", &error))?);
    listener::check_authorities(config)?;
    let upstream =
        Upstream::new(&config.upstream).map_err(|error| start_error("cannot set up the upstream", &error))?;
    let upstream = Arc::new(upstream);
    let certificates = config.tls.as_ref().map(tls::Certificates::load).transpose().map_err(StartError)?;

    background.block_on(serve_admin(config.admin.listen, &shared))?;
    store.spawn(&background);
    spawn_upkeep(&background, config, &sessions, &providers, &upstream, &shared);
    let delivery = Delivery::start(&background, config, &directory, &sessions, &shared)?;
    let sender = webhooks::Sender::from_config(config).map(Arc::new);
    let holders = Holders {
        sessions: sessions.clone(),
        redis: Holders::redis_of(&store),
        directory: directory.clone(),
        rebinds: rebinds.clone(),
        sender: sender.clone(),
        sink_key: delivery.api_key.clone(),
    };
    let reload = Reload {
        reread,
        verbosity,
        certificates: certificates.clone(),
        rotation: Rotation::new(holders, config, &shared),
        settings: shared.settings.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
    };
    background.spawn(reload.run(loaded.clone(), config.lifecycle.reload_interval));

    let tracing = Tracing::start(&background, config, &shared)?;
    let mut gateway = gateway(config, &sessions, (&directory, &rebinds), sender, &providers, &upstream, &shared)?;
    gateway.tracer = tracing.tracer();
    let ext_authz = ExtAuthz::start(&background, config, &gateway)?;
    let server = pingora_server(config, gateway, certificates, &shared)?;
    if let Some(ext_authz) = &ext_authz {
        ext_authz.end_with(&background, server.watch_execution_phase());
    }
    // Whoever sees a ready process may end it: from now on, that is an orderly end.
    let signals = background.block_on(async { Signals::listen() });
    let signals = signals.map_err(|error| start_error("cannot listen for signals", &error))?;
    spawn_readiness(&background, store, &sessions, &providers, &shared);
    shared.health.mark_started();
    tracing::info!(listen = %config.listen, admin = %config.admin.listen, "Serving");
    announce();
    run(server, signals, config, &background, &shared);
    if let Some(ext_authz) = ext_authz {
        ext_authz.end(&background);
    }
    delivery.end(&background);
    tracing.end(&background);
    background.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

// pingora sleeps its whole grace period however idle it is, so it does that on a thread of its
// own, and this one returns as soon as nothing is under way.
fn run(server: Server, signals: Signals, config: &Config, background: &Runtime, shared: &Shared) {
    let (ended, wait) = std::sync::mpsc::channel();
    let drain = Drain {
        signals: Arc::new(tokio::sync::Mutex::new(signals)),
        delay: config.lifecycle.drain_delay,
        streams: shared.streams.clone(),
        health: shared.health.clone(),
        metrics: shared.metrics.clone(),
        draining: shared.draining.clone(),
        exit: ended.clone(),
    };
    let idle = drain::idle(server.watch_execution_phase(), shared.streams.clone(), config.lifecycle.drain_timeout);
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
        let health = Health::new(clock.clone(), &[BACKGROUND]);
        Ok(Self {
            health: Arc::new(health.minding_exposure(exposed::ends_readiness(config))),
            clock,
            random: Arc::new(SystemRandom::new()),
            metrics: Arc::new(metrics),
            draining: Arc::new(AtomicBool::new(false)),
            streams: Streams::new(),
            settings: Arc::new(ArcSwap::from_pointee(settings(config)?)),
        })
    }

    // A panic ends one exchange and not the process: without a count nobody would notice.
    fn count_panics(&self) {
        let (panics, report) = (self.metrics.panics.clone(), std::panic::take_hook());
        std::panic::set_hook(Box::new(move |panic| {
            panics.inc();
            report(panic);
        }));
    }

    fn publish_build(&self, config_hash: &str) {
        let revision = option_env!("DOORWARD_REVISION").unwrap_or("unknown");
        self.metrics.build_info.with_label_values(&[env!("CARGO_PKG_VERSION"), revision]).set(1);
        self.metrics.config_info.with_label_values(&[config_hash]).set(1);
        self.metrics.config_last_reload_successful.set(1);
        self.metrics.config_last_reload_success_timestamp.set(self.clock.now().unix_seconds_f64());
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
        forward_auth: config.forward_auth.enabled,
        access_log_sample: config.telemetry.access_log_sample,
    })
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
    if let Some(side_door) = SideDoor::new(config, shared.health.clone(), shared.metrics.clone()) {
        background.spawn(side_door.run());
    }
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
    (directory, rebinds): (&Arc<Directory>, &Arc<Rebinds>),
    sender: Option<Arc<webhooks::Sender>>,
    providers: &Arc<Providers>,
    upstream: &Arc<Upstream>,
    shared: &Shared,
) -> Result<Gateway, StartError> {
    series::create(&shared.metrics);
    let seed = random_bytes::<8>(shared.random.as_ref()).map_err(|error| start_error("cannot start", &error))?;
    let settings = shared.settings.clone();
    let identity_headers = Box::new(move || settings.load().identity_headers);
    let bootstrap = Bootstrap::new(config, directory.clone(), identity_headers, shared.metrics.clone());
    let bootstrap = bootstrap.map_err(|error| start_error("cannot set up bootstrap", &error))?;
    let app = App {
        sessions: sessions.clone(),
        bootstrap: Arc::new(bootstrap),
        directory: directory.clone(),
        hears_of_ends: config.webhooks.clerk.is_some(),
        rebinds: rebinds.clone(),
        rebind_fields: Arc::new(config.rebind.fields.clone()),
        providers: providers.clone(),
        clock: shared.clock.clone(),
        limits: Arc::new(limit::Limits::new(&config.limits, &shared.clock, &shared.metrics)),
        metrics: shared.metrics.clone(),
        random: shared.random.clone(),
    };
    let webhooks = webhooks::App {
        sessions: sessions.clone(),
        directory: directory.clone(),
        sender,
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
        random: shared.random.clone(),
    };
    Ok(Gateway {
        settings: shared.settings.clone(),
        sessions: sessions.clone(),
        session_exchange: Arc::new(router(app)),
        webhooks: Arc::new(webhooks::router(webhooks)),
        upstream: upstream.clone(),
        direct: Direct::new(&listener::server_conf(config)),
        streams: shared.streams.clone(),
        limits: config.limits.clone(),
        draining: shared.draining.clone(),
        request_ids: Arc::new(RequestIds::new(u64::from_ne_bytes(*seed))),
        metrics: shared.metrics.clone(),
        tracer: None,
        tallies: Tallies::new(shared.metrics.clone()),
    })
}

fn start_error(what: &str, error: &dyn std::error::Error) -> StartError {
    StartError(format!("{what}: {}", with_causes(error)))
}
