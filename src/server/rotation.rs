//! Secrets that change in their files while the server runs.
//!
//! What a new configuration holds is checked first, all of it; then it is put where each secret is
//! used. Connections in use go on. A secret is never sent where the old one was not: one that comes
//! together with another address waits for the restart that the address needs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use zeroize::Zeroizing;

use super::Shared;
use super::store::configured_keys;
use crate::api::webhooks::Sender;
use crate::config::sessions::StoreUrl;
use crate::config::webhooks::SigningSecret;
use crate::config::{self, Config};
use crate::directory::{Directory, NewCredentials as DirectoryCredentials};
use crate::guests::{NewHookSecret, Rebinds};
use crate::metrics::Metrics;
use crate::model::TokenKeys;
use crate::secret::{Rotating, Secret};
use crate::session::Sessions;
use crate::store::redis::{NewCredentials as RedisCredentials, RedisStore};
use crate::telemetry::with_causes;
use crate::time::Clock;

const TOKEN_KEYS: &str = "sessions.token.keys";
const REDIS: [&str; 4] =
    ["sessions.redis.password", "sessions.redis.ca", "sessions.redis.client_cert", "sessions.redis.client_key"];
const DIRECTORY: &str = "directory.password";
const SINK: &str = "outbox.alias.api_key";
const WEBHOOKS: &str = "webhooks.clerk.secrets";
const COLLECTOR: &str = "telemetry.traces.headers";
const HOOK: &str = "rebind.hook.secret";

/// The secrets of a configuration by key, as digests: they tell whether one changed, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Digests(BTreeMap<&'static str, Vec<u8>>);

/// Where secrets are in use.
pub(super) struct Holders {
    pub(super) sessions: Arc<Sessions>,
    pub(super) redis: Option<Arc<RedisStore>>,
    pub(super) directory: Arc<Directory>,
    pub(super) rebinds: Arc<Rebinds>,
    pub(super) sender: Option<Arc<Sender>>,
    pub(super) sink_key: Option<Rotating>,
}

/// Puts new secrets where they are used.
pub(super) struct Rotation {
    holders: Holders,
    started_with: Config,
    in_force: Digests,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// Secrets that were checked and are not in use yet.
pub(super) struct Checked {
    changes: Vec<Change>,
    digests: Digests,
}

/// What takes the place of the one before, without fail; and where, if not every server has that.
enum Change {
    TokenKeys(Box<TokenKeys>),
    Redis(Arc<RedisStore>, Box<RedisCredentials>),
    Directory(Box<DirectoryCredentials>),
    Sink(Rotating, Secret),
    Webhooks(Arc<Sender>, Vec<SigningSecret>),
    Hook(NewHookSecret),
}

impl Digests {
    /// Returns the digests of what `config` holds and of what the files that it names hold now.
    pub(super) fn of(config: &Config) -> Self {
        let (mut digests, redis) = (Self(BTreeMap::new()), &config.sessions.redis);
        let token = &config.sessions.token;
        if !token.keys.is_empty() {
            let keys = token.keys.iter().map(|key| [key.id.to_be_bytes().to_vec(), digest_of(key.secret.expose())]);
            let keys: Vec<u8> = keys.flatten().flatten().collect();
            digests.add(TOKEN_KEYS, [digest_of(&token.prefix), keys].concat());
        }
        // A file that cannot be read is a problem that its user tells.
        let file = |path: &Option<PathBuf>| {
            path.as_ref().map(|path| digest_of(Zeroizing::new(std::fs::read(path).unwrap_or_default()).as_slice()))
        };
        let text = |secret: &Option<Secret>| secret.as_ref().map(|secret| digest_of(secret.expose()));
        let parts = [text(&redis.password), file(&redis.ca), file(&redis.client_cert), file(&redis.client_key)];
        let single = [
            (DIRECTORY, text(&config.directory.password)),
            (SINK, text(&config.outbox.alias.api_key)),
            (HOOK, text(&config.rebind.hook.secret)),
        ];
        for (name, digest) in REDIS.into_iter().zip(parts).chain(single) {
            if let Some(digest) = digest {
                digests.add(name, digest);
            }
        }
        if let Some(clerk) = &config.webhooks.clerk {
            digests.add(WEBHOOKS, clerk.secrets.iter().flat_map(|secret| digest_of(secret.expose())).collect());
        }
        if !config.telemetry.traces.headers.is_empty() {
            let headers = config.telemetry.traces.headers.iter();
            let headers = headers.flat_map(|(name, value)| [digest_of(name), digest_of(value.expose())]);
            digests.add(COLLECTOR, headers.flatten().collect());
        }
        digests
    }

    fn add(&mut self, name: &'static str, digest: Vec<u8>) {
        self.0.insert(name, digest);
    }

    fn differs(&self, other: &Self, name: &str) -> bool {
        self.0.get(name) != other.0.get(name)
    }
}

impl Rotation {
    /// Returns the rotation of what is in use since the start.
    pub(super) fn new(holders: Holders, started_with: &Config, shared: &Shared) -> Self {
        let rotation = Self {
            holders,
            started_with: started_with.clone(),
            in_force: Digests::of(started_with),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
        };
        for name in rotation.in_force.0.keys() {
            rotation.publish(name);
        }
        rotation
    }

    /// Returns what `config` changes, or why it cannot; nothing is in use yet.
    pub(super) fn check(&self, config: &Config, digests: &Digests) -> Result<Checked, String> {
        let (old, holders) = (&self.started_with, &self.holders);
        let is_new = |name: &str| self.in_force.differs(digests, name);
        let mut changes = Vec::new();
        if is_new(TOKEN_KEYS)
            && let Some((keys, _)) = configured_keys(config).map_err(|error| error.to_string())?
        {
            changes.push(Change::TokenKeys(Box::new(keys)));
        }
        if let Some(store) = &holders.redis
            && REDIS.into_iter().any(is_new)
            && old.sessions.store == config.sessions.store
        {
            let credentials = store.check_credentials(&config.sessions);
            let credentials = credentials.map_err(|error| format!("sessions.redis: {}", with_causes(&error)))?;
            changes.push(Change::Redis(store.clone(), Box::new(credentials)));
        }
        if is_new(DIRECTORY) && old.directory.url == config.directory.url {
            // Nothing but the password: without the authorities of the start it would go to anybody.
            let rotated = config::Directory { password: config.directory.password.clone(), ..old.directory.clone() };
            let credentials = holders.directory.check_credentials(&rotated);
            let credentials = credentials.map_err(|error| format!("directory: {}", with_causes(&error)))?;
            changes.extend(credentials.map(|credentials| Change::Directory(Box::new(credentials))));
        }
        if let (Some(held), Some(key)) = (&holders.sink_key, &config.outbox.alias.api_key)
            && is_new(SINK)
            && old.outbox.alias.url == config.outbox.alias.url
        {
            changes.push(Change::Sink(held.clone(), key.clone()));
        }
        if let (Some(sender), Some(clerk)) = (&holders.sender, &config.webhooks.clerk)
            && is_new(WEBHOOKS)
        {
            changes.push(Change::Webhooks(sender.clone(), clerk.secrets.clone()));
        }
        let same_hook = old.rebind.hook.url == config.rebind.hook.url && old.upstream.url == config.upstream.url;
        if is_new(HOOK) && same_hook {
            let secret = holders.rebinds.check_hook_secret(&config.rebind.hook).map_err(|error| error.to_string())?;
            changes.extend(secret.map(Change::Hook));
        }
        Ok(Checked { changes, digests: digests.clone() })
    }

    /// Puts checked secrets to use; nothing of that can fail.
    pub(super) fn take_up(&mut self, Checked { changes, digests }: Checked) {
        for change in changes {
            let names = change.names();
            self.put(change);
            for name in names {
                if !self.in_force.differs(&digests, name) {
                    continue;
                }
                match digests.0.get(name) {
                    Some(digest) => self.in_force.0.insert(name, digest.clone()),
                    None => self.in_force.0.remove(name),
                };
                self.publish(name);
                tracing::info!(secret = *name, "Secret reloaded");
            }
        }
    }

    fn put(&self, change: Change) {
        let holders = &self.holders;
        match change {
            Change::TokenKeys(keys) => holders.sessions.replace_keys(*keys),
            Change::Redis(store, credentials) => store.use_credentials(*credentials),
            Change::Directory(credentials) => {
                holders.directory.use_credentials(*credentials);
                tokio::spawn(try_directory(holders.directory.clone()));
            }
            Change::Sink(held, key) => held.replace(key),
            Change::Webhooks(sender, secrets) => sender.use_secrets(&secrets),
            Change::Hook(secret) => holders.rebinds.use_hook_secret(secret),
        }
    }

    fn publish(&self, name: &str) {
        publish(name, self.clock.as_ref(), &self.metrics);
    }
}

impl Change {
    fn names(&self) -> &'static [&'static str] {
        match self {
            Self::TokenKeys(_) => &[TOKEN_KEYS],
            Self::Redis(..) => &REDIS,
            Self::Directory(_) => &[DIRECTORY],
            Self::Sink(..) => &[SINK],
            Self::Webhooks(..) => &[WEBHOOKS],
            Self::Hook(_) => &[HOOK],
        }
    }
}

fn digest_of(secret: impl AsRef<[u8]>) -> Vec<u8> {
    digest(&SHA256, secret.as_ref()).as_ref().to_vec()
}

/// Records that a secret was taken up now.
pub(super) fn publish(name: &str, clock: &dyn Clock, metrics: &Metrics) {
    metrics.secret_last_reload_success_timestamp.with_label_values(&[name]).set(clock.now().unix_seconds_f64());
}

/// Returns `config` without what a reload replaces here: what differs then waits for a restart.
pub(super) fn without_rotating(config: &Config) -> Config {
    let mut rest = config.clone();
    let redis = &mut rest.sessions.redis;
    (redis.password, redis.ca, redis.client_cert, redis.client_key) = (None, None, None, None);
    rest.directory.password = None;
    rest.outbox.alias.api_key = None;
    rest.rebind.hook.secret = None;
    if let Some(clerk) = &mut rest.webhooks.clerk {
        clerk.secrets.clear();
    }
    rest
}

/// Returns whether the embedded store would have to find its own keys again.
pub(super) fn gives_up_keys(old: &Config, new: &Config) -> bool {
    matches!(new.sessions.store, StoreUrl::Sqlite(_))
        && old.sessions.token.keys.is_empty() != new.sessions.token.keys.is_empty()
}

// The connections in use prove nothing: the operator learns now whether the next one will be made.
async fn try_directory(directory: Arc<Directory>) {
    match directory.try_credentials().await {
        Ok(()) => tracing::info!("The directory's database takes the rotated password"),
        Err(error) => tracing::warn!(
            error = %with_causes(&error),
            "The directory's database does not take the rotated password: connections in use go on, new ones cannot \
             be made"
        ),
    }
}
