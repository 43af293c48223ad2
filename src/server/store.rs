//! Opens the session store that the configuration names, and finds its keys.

use std::sync::Arc;

use tokio::runtime::Runtime;

use super::{ServeError, Shared, serve_error};
use crate::config::Config;
use crate::config::sessions::StoreUrl;
use crate::model::{TokenKey, TokenKeys};
use crate::store::redis::RedisStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{KEEP_ENDED, SessionStore};

/// A store, and what it takes to keep it going.
pub(super) enum Store {
    Sqlite(Arc<SqliteStore>),
    Redis(Arc<RedisStore>),
}

impl Store {
    pub(super) fn sessions(&self) -> Arc<dyn SessionStore> {
        match self {
            Self::Sqlite(store) => store.clone(),
            Self::Redis(store) => store.clone(),
        }
    }

    /// Returns the store that has credentials to rotate, if it is that one.
    pub(super) fn redis(&self) -> Option<Arc<RedisStore>> {
        match self {
            Self::Sqlite(_) => None,
            Self::Redis(store) => Some(store.clone()),
        }
    }

    pub(super) fn spawn(&self, background: &Runtime) {
        match self {
            Self::Sqlite(store) => background.spawn(store.clone().run()),
            Self::Redis(store) => background.spawn(store.clone().run()),
        };
    }
}

/// Returns the configured keys, the first minting; `None` when none are.
pub(super) fn configured_keys(config: &Config) -> Result<Option<(TokenKeys, TokenKey)>, ServeError> {
    let too_short = || ServeError("sessions.token.keys: a key is shorter than 32 bytes".to_owned());
    let key = |key: &crate::config::sessions::TokenKeySetting| TokenKey::new(key.id, key.secret.expose().as_bytes());
    let keys = config.sessions.token.keys.iter().map(key).collect::<Option<Vec<_>>>().ok_or_else(too_short)?;
    // Guests are named under the key with the lowest id: it is the one that stays longest.
    let oldest = config.sessions.token.keys.iter().min_by_key(|key| key.id).and_then(key);
    let mut keys = keys.into_iter();
    let (Some(minting), Some(oldest)) = (keys.next(), oldest) else { return Ok(None) };
    Ok(Some((TokenKeys::new(config.sessions.token.prefix.clone(), minting, keys.collect()), oldest)))
}

pub(super) async fn open_store(config: &Config, shared: &Shared) -> Result<(Store, (TokenKeys, TokenKey)), ServeError> {
    let configured = configured_keys(config)?;
    let StoreUrl::Sqlite(path) = &config.sessions.store else {
        let store = RedisStore::connect(&config.sessions, KEEP_ENDED, shared.clock.clone(), shared.metrics.clone());
        let store = store.map_err(|error| serve_error("sessions.redis", &error))?;
        let keys =
            configured.ok_or_else(|| ServeError("sessions.token.keys: several replicas need a key".to_owned()))?;
        return Ok((Store::Redis(store), keys));
    };
    let store = SqliteStore::open(path, KEEP_ENDED, shared.clock.clone(), shared.metrics.clone()).await;
    let store = store.map_err(|error| serve_error("sessions.store", &error))?;
    let keys = match configured {
        Some(keys) => keys,
        None => kept_keys(config, &store, shared).await?,
    };
    Ok((Store::Sqlite(store), keys))
}

async fn kept_keys(config: &Config, store: &SqliteStore, shared: &Shared) -> Result<(TokenKeys, TokenKey), ServeError> {
    let unreadable = |error| serve_error("sessions.store", &error);
    let token = store.token_key(shared.random.as_ref()).await.map_err(unreadable)?;
    let device = store.device_key(shared.random.as_ref()).await.map_err(unreadable)?;
    let key = |material: &[u8]| TokenKey::new(1, material).expect("the store keeps keys of 32 bytes");
    Ok((TokenKeys::new(config.sessions.token.prefix.clone(), key(&*token), Vec::new()), key(&*device)))
}
