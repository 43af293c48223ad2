//! What answers callers: opened in order, and put together behind the proxy port.

use std::sync::Arc;

use super::rotation::{Holders, SinkKey};
use super::store::{Store, open_store};
use super::{ServeError, Shared, directory, listener, serve_error};
use crate::accounts::{Resolver, SignIn, SignInSetup};
use crate::api::core::Core;
use crate::api::limit;
use crate::api::{mount, webhooks};
use crate::bootstrap::BootstrapComposer;
use crate::config::Config;
use crate::directory::Directory;
use crate::guests::{Guests, Rebinds};
use crate::identity::Providers;
use crate::model::{TokenKey, TokenKeys};
use crate::proxy::forward::fast_path::FastPath;
use crate::proxy::forward::upstream::UpstreamPeer;
use crate::proxy::gateway::Gateway;
use crate::proxy::metrics::{MetricHandles, create_series};
use crate::proxy::state::GatewayState;
use crate::secret::{Rotating, random_bytes};
use crate::session::{Policy, Sessions, Setup};
use crate::store::redis::RedisStore;
use crate::telemetry::id_sequence::IdSequence;
use crate::telemetry::traces::Tracer;

/// The services of a running server.
pub(super) struct Services {
    pub(super) sessions: Arc<Sessions>,
    pub(super) directory: Arc<Directory>,
    pub(super) providers: Arc<Providers>,
    pub(super) upstream: Arc<UpstreamPeer>,
    guests: Arc<Guests>,
    rebinds: Arc<Rebinds>,
    sender: Option<Arc<webhooks::WebhookSender>>,
}

impl Services {
    /// Opens what the configuration names, and the store below it.
    pub(super) async fn open(config: &Config, shared: &Shared) -> Result<(Store, Self), ServeError> {
        let (store, keys) = open_store(config, shared).await?;
        let directory = directory::open(config, shared).await?;
        let guests = Arc::new(Guests::new(keys.1.clone(), config.tenants.default.clone()));
        let sessions = start_sessions(config, &store, keys, shared);
        let rebinds = directory::open_rebinds(config, &directory, &sessions, &guests, shared).await?;
        let providers = Providers::new(config, &shared.clock, &shared.metrics);
        let providers = providers.map_err(|error| serve_error("cannot set up identity providers", &error))?;
        let upstream = UpstreamPeer::new(&config.upstream);
        let upstream = upstream.map_err(|error| serve_error("cannot set up the upstream", &error))?;
        let services = Self {
            sessions,
            directory,
            providers: Arc::new(providers),
            upstream: Arc::new(upstream),
            guests,
            rebinds,
            sender: webhooks::WebhookSender::from_config(config).map(Arc::new),
        };
        Ok((store, services))
    }

    /// Returns where secrets are in use.
    pub(super) fn holders(&self, redis: Option<Arc<RedisStore>>, sink_key: Option<Rotating>) -> Holders {
        Holders {
            sessions: self.sessions.clone(),
            redis,
            directory: self.directory.clone(),
            rebinds: self.rebinds.clone(),
            sender: self.sender.clone(),
            sink_key: sink_key.map(SinkKey),
        }
    }

    /// Returns what stands behind the proxy port.
    pub(super) fn gateway(
        &self,
        config: &Config,
        tracer: Option<Arc<Tracer>>,
        shared: &Shared,
    ) -> Result<Gateway, ServeError> {
        create_series(&shared.metrics);
        let seed = random_bytes::<8>(shared.random.as_ref()).map_err(|error| serve_error("cannot start", &error))?;
        let settings = shared.settings.clone();
        let identity_headers = Box::new(move || settings.load().identity_headers);
        let bootstrap =
            BootstrapComposer::new(config, self.directory.clone(), identity_headers, shared.metrics.clone());
        let bootstrap = bootstrap.map_err(|error| serve_error("cannot set up bootstrap", &error))?;
        let resolver = Arc::new(Resolver::new(config, self.directory.clone(), shared.clock.clone()));
        let sign_in = SignIn::new(SignInSetup {
            sessions: self.sessions.clone(),
            directory: self.directory.clone(),
            guests: self.guests.clone(),
            resolver: resolver.clone(),
            checks_ended_logins: config.webhooks.clerk.is_some(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
        });
        let core = Arc::new(Core {
            sign_in: Arc::new(sign_in),
            sessions: self.sessions.clone(),
            bootstrap: Arc::new(bootstrap),
            rebinds: self.rebinds.clone(),
            rebind_fields: Arc::new(config.rebind.fields.clone()),
            providers: self.providers.clone(),
            resolver,
            directory: self.directory.clone(),
            sender: self.sender.clone(),
            limits: Arc::new(limit::Limits::new(&config.limits, &shared.clock, &shared.metrics)),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
            random: shared.random.clone(),
        });
        Ok(Gateway {
            state: Arc::new(GatewayState {
                settings: shared.settings.clone(),
                sessions: self.sessions.clone(),
                session_watch: shared.streams.clone(),
                request_ids: IdSequence::new(u64::from_ne_bytes(*seed)),
                handles: MetricHandles::new(shared.metrics.clone()),
                tracer,
            }),
            surfaces: Arc::new(mount::router(&core, &config.surfaces.mounts())),
            upstream: self.upstream.clone(),
            fast_path: FastPath::new(&listener::server_conf(config)),
            limits: config.limits.clone(),
            draining: shared.draining.clone(),
        })
    }
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
