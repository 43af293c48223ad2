//! Tokens, the session store, cache and revocation.

use std::path::PathBuf;
use std::time::Duration;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use super::secret_digest::SecretDigest;
use crate::secret::Secret;

/// Tokens, the session store, cache and revocation.
#[derive(Clone, Debug, PartialEq)]
pub struct Sessions {
    /// Where sessions live: `sqlite:///path`, `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`.
    pub store: StoreUrl,
    /// How long a session lives.
    pub ttl: Duration,
    /// How many sessions one principal may have; the oldest go first.
    pub max_per_principal: u32,
    /// The token's form and keys.
    pub token: Token,
    /// What validation does while the store cannot be asked.
    pub on_unavailable: OnUnavailable,
    /// With `serve_stale`: how long after the lease lapsed a known session is still let through.
    pub max_stale: Duration,
    /// The in-process cache.
    pub cache: Cache,
    /// How replicas learn of revocations.
    pub revocation: Revocation,
    /// How to reach Redis.
    pub redis: Redis,
}

impl FromKeys for Sessions {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            store: keys.take("store"),
            ttl: keys.take("ttl"),
            max_per_principal: keys.take("max_per_principal"),
            token: keys.take("token"),
            on_unavailable: keys.take("on_unavailable"),
            max_stale: keys.take("max_stale"),
            cache: keys.take("cache"),
            revocation: keys.take("revocation"),
            redis: keys.take("redis"),
        }
    }
}

/// Where sessions live.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreUrl {
    /// A `sqlite` file: one replica only.
    Sqlite(PathBuf),
    /// One Redis server.
    Redis(Secret),
    /// Redis behind Sentinel.
    Sentinel {
        /// `host:port` of the sentinels.
        nodes: Vec<String>,
        /// The monitored primary's name.
        master: String,
        /// User and password for Redis itself, and the database number.
        credentials: RedisCredentials,
        /// Whether to speak TLS to Redis itself.
        tls: bool,
    },
    /// A Redis Cluster, by its seed nodes.
    Cluster(Vec<Secret>),
}

/// Who to be at Redis.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RedisCredentials {
    /// ACL user.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<Secret>,
    /// Database number.
    pub database: i64,
}

/// The token's form and keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Token {
    /// What every token begins with. Never change it while tokens are out: they would all be refused.
    pub prefix: String,
    /// MAC keys: the first mints, all verify. Empty only with the embedded store, which makes and keeps one.
    pub keys: Vec<TokenKeySetting>,
}

impl FromKeys for Token {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { prefix: keys.take("prefix"), keys: keys.take("keys") }
    }
}

/// A MAC key.
#[derive(Clone, Debug, PartialEq)]
pub struct TokenKeySetting {
    /// What tokens name the key by, 0 to 255.
    pub id: u8,
    /// At least 32 bytes; `doorward keys generate` makes one.
    pub secret: Secret,
}

impl FromKeys for TokenKeySetting {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { id: keys.take("id"), secret: keys.take("secret") }
    }
}

/// What validation does while the store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnUnavailable {
    /// Refuse with 503.
    FailClosed,
    /// Let sessions through that this replica validated before, for at most `max_stale`.
    ServeStale,
}

impl FromTree for OnUnavailable {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("fail_closed", Self::FailClosed), ("serve_stale", Self::ServeStale)];
        place.one_of(notes, &words, Self::FailClosed)
    }
}

/// The in-process cache.
#[derive(Clone, Debug, PartialEq)]
pub struct Cache {
    /// How many sessions it holds; keep it above the number active at once.
    pub capacity: u64,
    /// How long an answer is kept before the store is asked again.
    pub max_ttl: Duration,
}

impl FromKeys for Cache {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { capacity: keys.take("capacity"), max_ttl: keys.take("max_ttl") }
    }
}

/// How replicas learn of revocations.
#[derive(Clone, Debug, PartialEq)]
pub struct Revocation {
    /// How often a replica proves to itself that messages still reach it.
    pub heartbeat: Duration,
    /// The promise: no revoked session is accepted later than this, also when the store or the network fails.
    pub lease: Duration,
    /// How many Redis replicas must confirm a revocation before it is answered; 0 for none.
    pub wait_replicas: u32,
}

impl FromKeys for Revocation {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { heartbeat: keys.take("heartbeat"), lease: keys.take("lease"), wait_replicas: keys.take("wait_replicas") }
    }
}

/// How to reach Redis.
#[derive(Clone, Debug, PartialEq)]
pub struct Redis {
    /// How long one command may take.
    pub timeout: Duration,
    /// How long a connection attempt may take.
    pub connect_timeout: Duration,
    /// What every key and channel begins with.
    pub key_prefix: String,
    /// Overrides the URL's password, so that it can come from a file.
    pub password: Option<Secret>,
    /// PEM file with the authorities to trust for TLS; the public ones when absent.
    pub ca: Option<PathBuf>,
    /// PEM file with the client certificate, for mutual TLS.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the client certificate's key.
    pub client_key: Option<PathBuf>,
}

impl FromKeys for Redis {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            timeout: keys.take("timeout"),
            connect_timeout: keys.take("connect_timeout"),
            key_prefix: keys.take("key_prefix"),
            password: keys.take("password"),
            ca: keys.take("ca"),
            client_cert: keys.take("client_cert"),
            client_key: keys.take("client_key"),
        }
    }
}

impl Token {
    /// Returns the prefix of tokens that are signed with a key which the embedded store keeps, and the configured
    /// keys: one of the two is set.
    pub(super) fn apart(self) -> (Option<String>, SecretDigest) {
        let Self { prefix, keys } = self;
        let ids: Vec<[u8; 1]> = keys.iter().map(|TokenKeySetting { id, secret: _ }| [*id]).collect();
        let parts = ids.iter().zip(&keys).flat_map(|(id, key)| [id.as_slice(), key.secret.expose().as_bytes()]);
        let prefixed = (!keys.is_empty()).then_some(prefix.as_bytes()).into_iter().chain(parts);
        let digest = SecretDigest::of("sessions.token.keys", prefixed);
        (keys.is_empty().then_some(prefix), digest)
    }
}

impl Redis {
    /// Returns what changes only with a restart, and the password, the authorities, the certificate and its key.
    pub(super) fn apart(self) -> (Self, [SecretDigest; 4]) {
        let Self { timeout, connect_timeout, key_prefix, password, ca, client_cert, client_key } = self;
        let secrets = [
            SecretDigest::of_secret("sessions.redis.password", password.as_ref()),
            SecretDigest::of_file("sessions.redis.ca", ca.as_deref()),
            SecretDigest::of_file("sessions.redis.client_cert", client_cert.as_deref()),
            SecretDigest::of_file("sessions.redis.client_key", client_key.as_deref()),
        ];
        let (password, ca, client_cert, client_key) = (None, None, None, None);
        (Self { timeout, connect_timeout, key_prefix, password, ca, client_cert, client_key }, secrets)
    }
}

impl std::str::FromStr for StoreUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (scheme, rest) = text.split_once("://").ok_or_else(expected_store)?;
        match scheme {
            "sqlite" if rest.starts_with('/') && rest.len() > 1 => Ok(Self::Sqlite(rest.into())),
            "redis" | "rediss" if !rest.is_empty() => Ok(Self::Redis(Secret::new(text.to_owned()))),
            "redis+sentinel" | "rediss+sentinel" => sentinel(scheme == "rediss+sentinel", rest),
            "redis+cluster" | "rediss+cluster" if !rest.is_empty() => Ok(cluster(scheme == "rediss+cluster", rest)),
            _ => Err(expected_store()),
        }
    }
}

impl FromTree for StoreUrl {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || Self::Sqlite(PathBuf::new()))
    }
}

// user:password@host:port,host:port/master-name/db
fn sentinel(tls: bool, rest: &str) -> Result<StoreUrl, String> {
    let (userinfo, rest) = rest.rsplit_once('@').map_or((None, rest), |(userinfo, rest)| (Some(userinfo), rest));
    let mut parts = rest.split('/');
    let nodes: Vec<String> =
        parts.next().unwrap_or_default().split(',').filter(|node| !node.is_empty()).map(str::to_owned).collect();
    let master = parts
        .next()
        .filter(|master| !master.is_empty())
        .ok_or("redis+sentinel:// needs the primary's name: redis+sentinel://host:26379/mymaster")?;
    let database = parts.next().map_or(Ok(0), str::parse).map_err(|_| "has a database that is not a number")?;
    if nodes.is_empty() {
        return Err(expected_store());
    }
    let (username, password) = userinfo.map_or((None, None), |userinfo| {
        let (user, password) = userinfo.split_once(':').unwrap_or(("", userinfo));
        ((!user.is_empty()).then(|| user.to_owned()), Some(Secret::new(password.to_owned())))
    });
    let credentials = RedisCredentials { username, password, database };
    Ok(StoreUrl::Sentinel { nodes, master: master.to_owned(), credentials, tls })
}

fn cluster(tls: bool, rest: &str) -> StoreUrl {
    let scheme = if tls { "rediss" } else { "redis" };
    let (userinfo, hosts) =
        rest.rsplit_once('@').map_or((String::new(), rest), |(user, hosts)| (format!("{user}@"), hosts));
    let node = |host: &str| Secret::new(format!("{scheme}://{userinfo}{host}"));
    StoreUrl::Cluster(hosts.trim_end_matches('/').split(',').map(node).collect())
}

fn expected_store() -> String {
    "is not a session store; write sqlite:///path, redis://host:6379, rediss://…, redis+sentinel://host:26379/name or redis+cluster://host:6379".to_owned()
}
