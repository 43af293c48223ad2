//! The composition root: from a configuration to a running server. The only file that wires.
//!
//! Two sets of threads: a small runtime of our own carries what must outlive the proxy (admin
//! port, store connection, signals, reload), and pingora's carries the proxy port. Nothing here
//! waits for Redis or a provider: the server starts without them and becomes ready when they come.

mod directory;
mod drain;
mod ext_authz;
mod listener;
mod outbox;
mod reload;
mod rotation;
mod services;
mod sockets;
mod store;
mod tls;
mod traces;
mod upstream_exposure;
mod worker;

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
use self::ext_authz::ExtAuthz;
use self::listener::pingora_server;
use self::outbox::OutboxDelivery;
use self::reload::Reload;
use self::rotation::{Holders, Rotation};
use self::services::Services;
use self::store::Store;
use self::traces::Tracing;
use self::upstream_exposure::UpstreamExposure;
use crate::api::admin::{self, Health};
use crate::config::{Config, Loaded, Reloadable};
use crate::metrics::Metrics;
use crate::model::surface::Surfaces;
use crate::proxy::connection::session_watch::SessionWatch;
use crate::proxy::settings::Settings;
use crate::session::Policy;
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
pub struct ServeError(String);

/// What the parts share.
struct Shared {
    clock: Arc<dyn Clock>,
    random: Arc<dyn SecureRandom + Send + Sync>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    draining: Arc<AtomicBool>,
    streams: Arc<SessionWatch>,
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
) -> Result<(), ServeError> {
    let config = &loaded.config;
    let background = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(BACKGROUND)
        .enable_all()
        .build()
        .map_err(|error| serve_error("cannot start threads", &error))?;
    let shared = Shared::new(config)?;
    shared.publish_build(&loaded.hash);
    shared.count_panics();
    let (store, services) = background.block_on(Services::open(config, &shared))?;
    listener::check_authorities(config)?;
    let certificates = config.tls.as_ref().map(tls::Certificates::load).transpose().map_err(ServeError)?;

    background.block_on(serve_admin(config.admin.listen, &shared))?;
    store.spawn(&background);
    spawn_upkeep(&background, config, &services, &shared);
    let delivery =
        OutboxDelivery::start(background.handle(), config, &services.directory, &services.sessions, &shared)?;
    let holders = services.holders(store.redis(), delivery.api_key.clone());
    spawn_reload(&background, loaded, (reread, verbosity), certificates.clone(), holders, &shared);
    let tracing = Tracing::start(background.handle(), config, &shared)?;
    let gateway = services.gateway(config, tracing.tracer(), &shared)?;
    let ext_authz = ExtAuthz::start(background.handle(), config, &gateway)?;
    let server = pingora_server(config, gateway, certificates, &shared)?;
    ext_authz.end_with(background.handle(), server.watch_execution_phase());
    // Signal handlers are installed before readiness is reported: from then on an orchestrator may send SIGTERM.
    let signals = background.block_on(async { Signals::listen() });
    let signals = signals.map_err(|error| serve_error("cannot listen for signals", &error))?;
    spawn_readiness(&background, store, services, &shared);
    shared.health.mark_started();
    tracing::info!(listen = %config.listen, admin = %config.admin.listen, "Serving");
    announce();
    run(server, signals, config, &background, &shared);
    let questions_then_spans = async {
        ext_authz.end().await;
        tracing.end().await;
    };
    // Half a second and two in turn, next to two: `config::check` counts on less than three.
    background.block_on(async { tokio::join!(questions_then_spans, delivery.end()) });
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
    fn new(config: &Config) -> Result<Self, ServeError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let metrics = Metrics::new().map_err(|error| serve_error("cannot set up metrics", &error))?;
        let health = Health::new(clock.clone(), &[BACKGROUND]);
        Ok(Self {
            health: Arc::new(health.minding_exposure(upstream_exposure::ends_readiness(config))),
            clock,
            random: Arc::new(SystemRandom::new()),
            metrics: Arc::new(metrics),
            draining: Arc::new(AtomicBool::new(false)),
            streams: SessionWatch::new(),
            settings: Arc::new(ArcSwap::from_pointee(settings(
                &config.clone().into_parts().reloadable,
                config.surfaces.mounts(),
            )?)),
        })
    }

    // A panic ends one exchange and not the process: without a count the operator would not notice.
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

/// Returns what the proxy goes by, of what a reload may replace.
fn settings(reloadable: &Reloadable, surfaces: Surfaces) -> Result<Settings, ServeError> {
    Settings::of(reloadable, surfaces).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        ServeError(format!("routes: {}", problems.join("; ")))
    })
}

async fn serve_admin(address: SocketAddr, shared: &Shared) -> Result<(), ServeError> {
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.map_err(|error| serve_error(&format!("admin.listen: cannot listen on {address}"), &error))?;
    let router = admin::router(shared.health.clone(), shared.metrics.clone());
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(error = %error, "Admin listener failed");
        }
    });
    Ok(())
}

fn spawn_reload(
    background: &Runtime,
    loaded: &Loaded,
    (reread, verbosity): (Reread, Verbosity),
    certificates: Option<Arc<tls::Certificates>>,
    holders: Holders,
    shared: &Shared,
) {
    let reload = Reload {
        reread,
        verbosity,
        certificates,
        rotation: Rotation::new(holders, &loaded.config, shared),
        settings: shared.settings.clone(),
        clock: shared.clock.clone(),
        metrics: shared.metrics.clone(),
    };
    background.spawn(reload.run(loaded.clone(), loaded.config.lifecycle.reload_interval));
}

fn spawn_upkeep(background: &Runtime, config: &Config, services: &Services, shared: &Shared) {
    let max_stale = Policy::from_config(config).max_stale;
    background.spawn(services.providers.clone().run());
    let owned = services.upstream.clone();
    background.spawn(async move { owned.run().await });
    let owned = services.sessions.clone();
    background.spawn(async move { owned.run().await });
    if let Some(exposure) = UpstreamExposure::new(config, shared.health.clone(), shared.metrics.clone()) {
        background.spawn(exposure.run());
    }
    let (streams, sessions) = (shared.streams.clone(), services.sessions.clone());
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
fn spawn_readiness(background: &Runtime, store: Store, services: Services, shared: &Shared) {
    let (health, metrics) = (shared.health.clone(), shared.metrics.clone());
    let Services { sessions, providers, .. } = services;
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

fn serve_error(what: &str, error: &dyn std::error::Error) -> ServeError {
    ServeError(format!("{what}: {}", with_causes(error)))
}
