//! How to reach Redis: one server, the primary that Sentinel names, or a cluster.
//!
//! Refuses at start what no Redis could make right: URLs and certificate files that do
//! not parse, TLS without verification. Whether Redis answers is found out later. Connections are
//! plain: they never reconnect by themselves and never make a request wait for one.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, Pipeline,
    ProtocolVersion, PushInfo, RedisFuture, RedisResult, TlsCertificates, TlsMode, Value,
};
use tokio::sync::Mutex;

use crate::config;
use crate::config::sessions::{RedisCredentials, StoreUrl};
use crate::secret::Secret;

/// Requests that may wait in a connection's queue; the in-flight cap is below it.
const QUEUE: usize = 1024;
/// After it the kernel gives up on a peer that acknowledges nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(2);

/// Sentinels are asked with the crate's own deadline of a second each.
const PATIENCE_MIN: Duration = Duration::from_secs(1);

/// Why Redis cannot be used as configured. Never holds a URL: it may have a password.
#[derive(Debug, thiserror::Error)]
pub enum RedisConfigError {
    /// The store is not Redis.
    #[error("sessions.store is not a Redis URL")]
    NotRedis,
    /// The URL, the user or the cluster's nodes do not parse.
    #[error("sessions.store: {0}")]
    Url(String),
    /// Certificates are set for a connection in clear.
    #[error("sessions.redis.ca and client_cert need a rediss:// URL")]
    NotTls,
    /// A client certificate without its key, or the other way round.
    #[error("sessions.redis.client_cert and client_key go together")]
    HalfCertificate,
    /// A file is not what it should be.
    #[error("sessions.redis.ca, client_cert or client_key is no PEM file of its kind")]
    NotPem,
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    File(String, std::io::Error),
}

/// Where to connect.
pub(super) enum Target {
    /// One server.
    Single(Client),
    /// The primary that Sentinel names.
    Sentinel { client: Mutex<SentinelClient>, sentinels: u32, credentials: RedisCredentials },
    /// A cluster: data goes to the owners of slots, revocations are received from any node.
    Cluster { data: ClusterClient, nodes: Vec<Client>, next: AtomicUsize },
}

/// A connection that commands can be sent on.
#[derive(Clone)]
pub(super) enum Connection {
    /// To one server.
    Single(MultiplexedConnection),
    /// To the owners of slots.
    Cluster(ClusterConnection),
}

/// What one attempt to connect made.
pub(super) struct Opened {
    /// Receives pushes; nothing is subscribed yet.
    pub(super) subscription: MultiplexedConnection,
    /// Carries reads: the same connection, except in a cluster.
    pub(super) read: Connection,
    /// Carries writes and scripts.
    pub(super) write: Connection,
}

/// How long connecting and answers may take.
#[derive(Clone, Copy)]
pub(super) struct RedisDeadlines {
    /// To connect to one server.
    pub(super) connect: Duration,
    /// For the slowest single answer.
    pub(super) answer: Duration,
}

impl Target {
    /// Returns the target that the configuration names.
    pub(super) fn new(config: &config::Sessions, deadlines: RedisDeadlines) -> Result<Self, RedisConfigError> {
        let certificates = certificates(&config.redis)?;
        let password = config.redis.password.as_ref();
        match &config.store {
            StoreUrl::Sqlite(_) => Err(RedisConfigError::NotRedis),
            StoreUrl::Redis(url) => single(url, password, certificates.as_ref()).map(Self::Single),
            StoreUrl::Sentinel { nodes, master, credentials, tls } => {
                let password = password.or(credentials.password.as_ref()).cloned();
                let credentials = RedisCredentials { password, ..credentials.clone() };
                let client = sentinel(nodes, master, &credentials, (*tls, certificates))?;
                let sentinels = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
                Ok(Self::Sentinel { client: Mutex::new(client), sentinels, credentials })
            }
            StoreUrl::Cluster(nodes) => cluster(nodes, password, certificates, deadlines),
        }
    }

    /// Returns whether the target is a cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster { .. })
    }

    /// Returns the command that says who we are on a connection that is open already; `None` when
    /// there is no password, and for a cluster, whose connections are not ours to name.
    pub(super) fn authentication(&self) -> Option<Cmd> {
        let (username, password) = match self {
            Self::Single(client) => {
                let settings = client.get_connection_info().redis_settings();
                (settings.username().map(str::to_owned), settings.password().map(str::to_owned))
            }
            Self::Sentinel { credentials, .. } => {
                let password = credentials.password.as_ref().map(|password| password.expose().to_owned());
                (credentials.username.clone(), password)
            }
            Self::Cluster { .. } => return None,
        };
        let mut command = redis::cmd("AUTH");
        if let Some(username) = username {
            command.arg(username);
        }
        command.arg(password?);
        Some(command)
    }

    /// Returns how long one attempt to connect may take.
    pub(super) fn patience(&self, deadlines: RedisDeadlines) -> Duration {
        let servers = match self {
            Self::Single(_) => 1,
            Self::Sentinel { sentinels, .. } => 1 + sentinels,
            Self::Cluster { nodes, .. } => u32::try_from(nodes.len()).unwrap_or(u32::MAX),
        };
        deadlines.connect.max(PATIENCE_MIN).saturating_mul(2).saturating_mul(servers)
    }

    /// Connects; `push` is called from the driver of the subscribed connection.
    pub(super) async fn open(
        &self,
        deadlines: RedisDeadlines,
        push: impl Fn(PushInfo) + Send + Sync + 'static,
    ) -> RedisResult<Opened> {
        let plain = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(deadlines.connect))
            .set_response_timeout(Some(deadlines.answer))
            .set_pipeline_buffer_size(QUEUE);
        let pushing = plain.clone().set_push_sender(move |info: PushInfo| {
            push(info);
            Ok::<(), ()>(())
        });
        match self {
            Self::Single(client) => open_single(client, &pushing, &plain).await,
            Self::Sentinel { client, .. } => {
                let client = client.lock().await.async_get_client().await?;
                open_single(&client, &pushing, &plain).await
            }
            Self::Cluster { data, nodes, next } => {
                let node = next.fetch_add(1, Ordering::Relaxed) % nodes.len().max(1);
                let node = nodes.get(node).ok_or((redis::ErrorKind::InvalidClientConfig, "no node"))?;
                let subscription = node.get_multiplexed_async_connection_with_config(&pushing).await?;
                let data = Connection::Cluster(data.get_async_connection().await?);
                Ok(Opened { subscription, read: data.clone(), write: data })
            }
        }
    }
}

impl ConnectionLike for Connection {
    fn req_packed_command<'a>(&'a mut self, command: &'a Cmd) -> RedisFuture<'a, Value> {
        match self {
            Self::Single(connection) => connection.req_packed_command(command),
            Self::Cluster(connection) => connection.req_packed_command(command),
        }
    }

    fn req_packed_commands<'a>(
        &'a mut self,
        pipeline: &'a Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisFuture<'a, Vec<Value>> {
        match self {
            Self::Single(connection) => connection.req_packed_commands(pipeline, offset, count),
            Self::Cluster(connection) => connection.req_packed_commands(pipeline, offset, count),
        }
    }

    fn get_db(&self) -> i64 {
        match self {
            Self::Single(connection) => connection.get_db(),
            Self::Cluster(connection) => connection.get_db(),
        }
    }
}

async fn open_single(
    client: &Client,
    pushing: &AsyncConnectionConfig,
    plain: &AsyncConnectionConfig,
) -> RedisResult<Opened> {
    let subscription = client.get_multiplexed_async_connection_with_config(pushing).await?;
    let write = Connection::Single(client.get_multiplexed_async_connection_with_config(plain).await?);
    Ok(Opened { read: Connection::Single(subscription.clone()), subscription, write })
}

fn single(
    url: &Secret,
    password: Option<&Secret>,
    certificates: Option<&TlsCertificates>,
) -> Result<Client, RedisConfigError> {
    let info = connection_info(url, password)?;
    let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
    match certificates {
        None => Client::open(info).map_err(|error| url_error(&error)),
        Some(certificates) if tls => {
            Client::build_with_tls(info, certificates.clone()).map_err(|_| RedisConfigError::NotPem)
        }
        Some(_) => Err(RedisConfigError::NotTls),
    }
}

fn connection_info(url: &Secret, password: Option<&Secret>) -> Result<ConnectionInfo, RedisConfigError> {
    let info = url.expose().into_connection_info().map_err(|error| url_error(&error))?;
    if matches!(info.addr(), ConnectionAddr::TcpTls { insecure: true, .. }) {
        return Err(RedisConfigError::Url("#insecure is not offered; set sessions.redis.ca".to_owned()));
    }
    let settings = info
        .redis_settings()
        .clone()
        .set_protocol(ProtocolVersion::RESP3)
        .set_lib_name(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"));
    let settings = match password {
        Some(password) => settings.set_password(password.expose()),
        None => settings,
    };
    Ok(info.set_redis_settings(settings).set_tcp_settings(tcp_settings()))
}

fn sentinel(
    nodes: &[String],
    master: &str,
    credentials: &RedisCredentials,
    (tls, certificates): (bool, Option<TlsCertificates>),
) -> Result<SentinelClient, RedisConfigError> {
    if !tls && certificates.is_some() {
        return Err(RedisConfigError::NotTls);
    }
    let nodes = nodes.iter().map(|node| node_address(node)).collect::<Result<Vec<_>, _>>()?;
    let mut builder = SentinelClientBuilder::new(nodes, master, SentinelServerType::Master)
        .map_err(|error| url_error(&error))?
        .set_client_to_redis_protocol(ProtocolVersion::RESP3)
        .set_client_to_redis_db(credentials.database)
        .set_client_to_redis_tcp_settings(tcp_settings())
        .set_client_to_sentinel_tcp_settings(tcp_settings());
    if let Some(username) = &credentials.username {
        builder = builder.set_client_to_redis_username(username);
    }
    if let Some(password) = &credentials.password {
        builder = builder.set_client_to_redis_password(password.expose());
    }
    if tls {
        builder = builder.set_client_to_redis_tls_mode(TlsMode::Secure);
    }
    if let Some(certificates) = certificates {
        builder = builder.set_client_to_redis_certificates(certificates);
    }
    builder.build().map_err(|error| url_error(&error))
}

fn cluster(
    urls: &[Secret],
    password: Option<&Secret>,
    certificates: Option<TlsCertificates>,
    deadlines: RedisDeadlines,
) -> Result<Target, RedisConfigError> {
    let nodes = urls.iter().map(|url| single(url, password, certificates.as_ref())).collect::<Result<Vec<_>, _>>()?;
    let infos: Vec<ConnectionInfo> = nodes.iter().map(|node| node.get_connection_info().clone()).collect();
    // A client of its own retries for minutes by default; here the caller's deadline rules.
    let mut builder = ClusterClientBuilder::new(infos)
        .use_protocol(ProtocolVersion::RESP3)
        .retries(2)
        .min_retry_wait(10)
        .max_retry_wait(50)
        .connection_timeout(deadlines.connect)
        .response_timeout(deadlines.answer)
        .tcp_settings(tcp_settings());
    if let Some(certificates) = certificates {
        builder = builder.certs(certificates);
    }
    let data = builder.build().map_err(|error| url_error(&error))?;
    Ok(Target::Cluster { data, nodes, next: AtomicUsize::new(0) })
}

fn node_address(node: &str) -> Result<ConnectionAddr, RedisConfigError> {
    let bad = || RedisConfigError::Url("a sentinel is not host:port".to_owned());
    let (host, port) = node.rsplit_once(':').ok_or_else(bad)?;
    let port = port.parse().map_err(|_| bad())?;
    Ok(ConnectionAddr::Tcp(host.trim_matches(['[', ']']).to_owned(), port))
}

fn tcp_settings() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_user_timeout(USER_TIMEOUT)
        .set_keepalive(redis::io::tcp::socket2::TcpKeepalive::new().with_time(Duration::from_secs(10)))
}

fn certificates(redis: &config::sessions::Redis) -> Result<Option<TlsCertificates>, RedisConfigError> {
    let client_tls = match (&redis.client_cert, &redis.client_key) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig { client_cert: read(cert)?, client_key: read(key)? }),
        (None, None) => None,
        _ => return Err(RedisConfigError::HalfCertificate),
    };
    let root_cert = redis.ca.as_deref().map(read).transpose()?;
    let any = client_tls.is_some() || root_cert.is_some();
    Ok(any.then_some(TlsCertificates { client_tls, root_cert }))
}

fn read(path: &Path) -> Result<Vec<u8>, RedisConfigError> {
    std::fs::read(path).map_err(|error| RedisConfigError::File(path.display().to_string(), error))
}

// The category only: the error's own text may quote the URL, and with it the password.
fn url_error(error: &redis::RedisError) -> RedisConfigError {
    RedisConfigError::Url(format!("not usable ({})", error.category()))
}
