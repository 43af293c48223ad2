//! What each holder of a secret makes of a new one.

use std::sync::Arc;

use super::{Rotates, SinkKey};
use crate::api::webhooks::WebhookSender;
use crate::config::webhooks::SigningSecret;
use crate::config::{self, Config};
use crate::directory::{Directory, DirectoryCredentials};
use crate::guests::{NewHookSecret, Rebinds};
use crate::model::TokenKeys;
use crate::secret::Secret;
use crate::server::store::configured_keys;
use crate::session::Sessions;
use crate::store::redis::{NewCredentials as RedisCredentials, RedisStore};
use crate::telemetry::with_causes;

/// Not every server has every holder.
impl<H: Rotates> Rotates for Option<H> {
    type Prepared = (H, H::Prepared);

    fn check(&self, started_with: &Config, new: &Config) -> Result<Option<Self::Prepared>, String> {
        let Some(holder) = self else { return Ok(None) };
        Ok(holder.check(started_with, new)?.map(|prepared| (holder.clone(), prepared)))
    }

    fn take(self, (holder, prepared): Self::Prepared) {
        holder.take(prepared);
    }
}

/// The keys that sign tokens. The embedded store's own key stays until the restart.
impl Rotates for Arc<Sessions> {
    type Prepared = TokenKeys;

    fn check(&self, _: &Config, new: &Config) -> Result<Option<TokenKeys>, String> {
        let configured = configured_keys(new).map_err(|error| error.to_string())?;
        Ok(configured.map(|(keys, _)| keys))
    }

    fn take(self, keys: TokenKeys) {
        self.replace_keys(keys);
    }
}

/// Password, authorities and client certificate.
impl Rotates for Arc<RedisStore> {
    type Prepared = RedisCredentials;

    fn check(&self, started_with: &Config, new: &Config) -> Result<Option<RedisCredentials>, String> {
        if started_with.sessions.store != new.sessions.store {
            return Ok(None);
        }
        let credentials = self.check_credentials(&new.sessions);
        credentials.map(Some).map_err(|error| format!("sessions.redis: {}", with_causes(&error)))
    }

    fn take(self, credentials: RedisCredentials) {
        self.use_credentials(credentials);
    }
}

impl Rotates for Arc<Directory> {
    type Prepared = DirectoryCredentials;

    fn check(&self, started_with: &Config, new: &Config) -> Result<Option<DirectoryCredentials>, String> {
        let old = &started_with.directory;
        if old.url != new.directory.url {
            return Ok(None);
        }
        // Nothing but the password: without the authorities of the start it would go to any server.
        let rotated = config::Directory { password: new.directory.password.clone(), ..old.clone() };
        self.check_credentials(&rotated).map_err(|error| format!("directory: {}", with_causes(&error)))
    }

    fn take(self, credentials: DirectoryCredentials) {
        self.use_credentials(credentials);
        tokio::spawn(try_directory(self));
    }
}

impl Rotates for SinkKey {
    type Prepared = Secret;

    fn check(&self, started_with: &Config, new: &Config) -> Result<Option<Secret>, String> {
        let (old, new) = (&started_with.outbox.alias, &new.outbox.alias);
        Ok(new.api_key.clone().filter(|_| old.url == new.url))
    }

    fn take(self, key: Secret) {
        self.0.replace(key);
    }
}

/// The secret of the rebind hook, which may be at the upstream.
impl Rotates for Arc<Rebinds> {
    type Prepared = NewHookSecret;

    fn check(&self, started_with: &Config, new: &Config) -> Result<Option<NewHookSecret>, String> {
        let same_hook = started_with.rebind.hook.url == new.rebind.hook.url;
        if !same_hook || started_with.upstream.url != new.upstream.url {
            return Ok(None);
        }
        self.check_hook_secret(&new.rebind.hook).map_err(|error| error.to_string())
    }

    fn take(self, secret: NewHookSecret) {
        self.use_hook_secret(secret);
    }
}

impl Rotates for Arc<WebhookSender> {
    type Prepared = Vec<SigningSecret>;

    fn check(&self, _: &Config, new: &Config) -> Result<Option<Vec<SigningSecret>>, String> {
        Ok(new.webhooks.clerk.as_ref().map(|clerk| clerk.secrets.clone()))
    }

    fn take(self, secrets: Vec<SigningSecret>) {
        self.use_secrets(&secrets);
    }
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
