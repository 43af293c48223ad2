//! Tokens, the session store, cache and revocation.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de::Error};

use super::{duration, listen::from_text};
use crate::secret::Secret;

/// Tokens, the session store, cache and revocation.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Where sessions live: `sqlite:///path`, `redis://`, `rediss://`, `redis+sentinel://` or `redis+cluster://`.
    #[serde(deserialize_with = "from_text")]
    pub store: StoreUrl,
    /// How long a session lives.
    #[serde(deserialize_with = "duration::deserialize")]
    pub ttl: Duration,
    /// How many sessions one principal may have; the oldest go first.
    pub max_per_principal: u32,
    /// The token's form and keys.
    pub token: Token,
    /// What validation does while the store cannot be asked.
    pub on_unavailable: OnUnavailable,
    /// With `serve_stale`: how long after the lease lapsed a known session is still let through.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_stale: Duration,
    /// The in-process cache.
    pub cache: Cache,
    /// How replicas hear of revocations.
    pub revocation: Revocation,
    /// How to reach Redis.
    pub redis: Redis,
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Token {
    /// What every token begins with. Never change it while tokens are out: they would all be refused.
    pub prefix: String,
    /// MAC keys: the first mints, all verify. Empty only with the embedded store, which makes and keeps one.
    pub keys: Vec<TokenKey>,
}

/// A MAC key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenKey {
    /// What tokens name the key by, 0 to 255.
    pub id: u8,
    /// At least 32 bytes; `doorward keys generate` makes one.
    #[serde(deserialize_with = "secret")]
    pub secret: Secret,
}

/// What validation does while the store cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnUnavailable {
    /// Refuse with 503.
    FailClosed,
    /// Let sessions through that this replica validated before, for at most `max_stale`.
    ServeStale,
}

/// The in-process cache.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// How many sessions it holds; keep it above the number active at once.
    pub capacity: u64,
    /// How long an answer is kept before the store is asked again.
    #[serde(deserialize_with = "duration::deserialize")]
    pub max_ttl: Duration,
    /// How long the answer "no such session" is kept.
    #[serde(deserialize_with = "duration::deserialize")]
    pub negative_ttl: Duration,
}

/// How replicas hear of revocations.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Revocation {
    /// How often a replica proves to itself that it still hears.
    #[serde(deserialize_with = "duration::deserialize")]
    pub heartbeat: Duration,
    /// The promise: no revoked session is accepted later than this, whatever fails.
    #[serde(deserialize_with = "duration::deserialize")]
    pub lease: Duration,
    /// How far back revocations are re-applied after a reconnect.
    #[serde(deserialize_with = "duration::deserialize")]
    pub reapply_window: Duration,
    /// How many Redis replicas must confirm a revocation before it is answered; 0 for none.
    pub wait_replicas: u32,
}

/// How to reach Redis.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redis {
    /// How long one command may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub timeout: Duration,
    /// How long a connection attempt may take.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// What every key and channel begins with.
    pub key_prefix: String,
    /// Overrides the URL's password, so that it can come from a file.
    #[serde(deserialize_with = "secret_option")]
    pub password: Option<Secret>,
    /// PEM file with the authorities to trust for TLS; the public ones when absent.
    pub ca: Option<PathBuf>,
    /// PEM file with the client certificate, for mutual TLS.
    pub client_cert: Option<PathBuf>,
    /// PEM file with the client certificate's key.
    pub client_key: Option<PathBuf>,
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

/// Reads a secret given as text or as `{file: path}`; the file's last line break is not part of it.
pub fn secret<'de, D: Deserializer<'de>>(input: D) -> Result<Secret, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, deny_unknown_fields)]
    enum Written {
        Inline(String),
        File { file: PathBuf },
    }
    let text = match Written::deserialize(input)
        .map_err(|_| D::Error::custom("is not a secret; write text or {file: /path}"))?
    {
        Written::Inline(text) => text,
        Written::File { file } => std::fs::read_to_string(&file)
            .map_err(|error| D::Error::custom(format!("cannot read {}: {error}", file.display())))?
            .trim_end_matches(['\r', '\n'])
            .to_owned(),
    };
    if text.is_empty() { Err(D::Error::custom("is empty")) } else { Ok(Secret::new(text)) }
}

/// As [`secret`], where it may be absent.
pub fn secret_option<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Secret>, D::Error> {
    #[derive(Deserialize)]
    struct Wrapped(#[serde(deserialize_with = "secret")] Secret);
    Ok(Option::<Wrapped>::deserialize(input)?.map(|Wrapped(secret)| secret))
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
