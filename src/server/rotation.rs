//! Secrets that change in their files while the server runs.
//!
//! What a new configuration holds is checked first, all of it; then it is put where each secret is
//! used. Connections in use go on. A secret is never sent where the old one was not: one that comes
//! together with another address waits for the restart that the address needs.
//!
//! To add a secret: its section gives it a place in [`SecretDigests`], its holder implements [`Rotates`], and the
//! list in [`Rotation::check`] joins the two. Without the first or the last it does not compile.

mod holders;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Shared;
use crate::api::webhooks::WebhookSender;
use crate::config::{Config, SecretDigest, SecretDigests};
use crate::directory::Directory;
use crate::guests::Rebinds;
use crate::metrics::Metrics;
use crate::secret::Rotating;
use crate::session::Sessions;
use crate::store::redis::RedisStore;
use crate::time::Clock;

/// A part of a running server that uses secrets and can go on with others.
trait Rotates: Clone + Send + 'static {
    /// What was checked, and takes the place of what is in use.
    type Prepared: Send + 'static;

    /// Returns what `new` has instead of what is in use; `None` where it is not used, or not before a restart because
    /// its address is another than the one that the server `started_with`. An error names the key.
    fn check(&self, started_with: &Config, new: &Config) -> Result<Option<Self::Prepared>, String>;

    /// Puts to use what was checked. This cannot fail.
    fn take(self, prepared: Self::Prepared);
}

/// Where secrets are in use.
pub(super) struct Holders {
    pub(super) sessions: Arc<Sessions>,
    pub(super) redis: Option<Arc<RedisStore>>,
    pub(super) directory: Arc<Directory>,
    pub(super) rebinds: Arc<Rebinds>,
    pub(super) sender: Option<Arc<WebhookSender>>,
    pub(super) sink_key: Option<SinkKey>,
}

/// The key of the outbox's sink.
#[derive(Clone)]
pub(super) struct SinkKey(pub(super) Rotating);

/// Puts new secrets where they are used.
pub(super) struct Rotation {
    holders: Holders,
    started_with: Config,
    in_force: InForce,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
}

/// The digests of the secrets that are in use, by key.
type InForce = BTreeMap<&'static str, Vec<u8>>;

/// Secrets that were checked and are not in use yet.
pub(super) struct Checked(Vec<Replacement>);

/// What one holder takes up.
struct Replacement {
    secrets: Vec<SecretDigest>,
    take: Box<dyn FnOnce() + Send>,
}

/// One pass over the holders.
struct SecretCheck<'a> {
    started_with: &'a Config,
    in_force: &'a InForce,
    new: &'a Config,
    replacements: Vec<Replacement>,
}

impl Rotation {
    /// Returns the rotation of what is in use since the start.
    pub(super) fn new(holders: Holders, started_with: &Config, shared: &Shared) -> Self {
        let secrets = started_with.clone().into_parts().secrets;
        let in_force = secrets.all().into_iter().filter_map(|secret| Some((secret.key, secret.digest.clone()?)));
        let rotation = Self {
            holders,
            started_with: started_with.clone(),
            in_force: in_force.collect(),
            clock: shared.clock.clone(),
            metrics: shared.metrics.clone(),
        };
        for key in rotation.in_force.keys() {
            publish(key, rotation.clock.as_ref(), &rotation.metrics);
        }
        rotation
    }

    /// Returns what `new` changes, or why it cannot; nothing is in use yet. `secrets` are the digests of what was
    /// read together with `new`.
    pub(super) fn check(&self, new: &Config, secrets: SecretDigests) -> Result<Checked, String> {
        let Holders { sessions, redis, directory, rebinds, sender, sink_key: sink } = &self.holders;
        let SecretDigests {
            token_keys,
            redis_password,
            redis_ca,
            redis_client_cert,
            redis_client_key,
            directory_password,
            sink_key,
            hook_secret,
            webhook_secrets,
            // Changes only with a restart: `Fixed` holds it.
            collector_headers: _,
        } = secrets;
        let (started_with, in_force) = (&self.started_with, &self.in_force);
        let mut check = SecretCheck { started_with, in_force, new, replacements: Vec::new() };
        check.holder(sessions, [token_keys])?;
        check.holder(redis, [redis_password, redis_ca, redis_client_cert, redis_client_key])?;
        check.holder(directory, [directory_password])?;
        check.holder(sink, [sink_key])?;
        check.holder(rebinds, [hook_secret])?;
        check.holder(sender, [webhook_secrets])?;
        Ok(Checked(check.replacements))
    }

    /// Puts checked secrets to use; nothing of that can fail.
    pub(super) fn take_up(&mut self, Checked(replacements): Checked) {
        for Replacement { secrets, take } in replacements {
            take();
            for SecretDigest { key, digest } in secrets {
                match digest {
                    Some(digest) => self.in_force.insert(key, digest),
                    None => self.in_force.remove(key),
                };
                publish(key, self.clock.as_ref(), &self.metrics);
                tracing::info!(secret = key, "Secret reloaded");
            }
        }
    }
}

impl SecretCheck<'_> {
    fn holder<H: Rotates>(
        &mut self,
        holder: &H,
        secrets: impl IntoIterator<Item = SecretDigest>,
    ) -> Result<(), String> {
        let changed = |secret: &SecretDigest| self.in_force.get(secret.key) != secret.digest.as_ref();
        let secrets: Vec<SecretDigest> = secrets.into_iter().filter(changed).collect();
        if secrets.is_empty() {
            return Ok(());
        }
        if let Some(prepared) = holder.check(self.started_with, self.new)? {
            let holder = holder.clone();
            self.replacements.push(Replacement { secrets, take: Box::new(move || holder.take(prepared)) });
        }
        Ok(())
    }
}

/// Records that a secret was taken up now.
pub(super) fn publish(key: &str, clock: &dyn Clock, metrics: &Metrics) {
    metrics.secret_last_reload_success_timestamp.with_label_values(&[key]).set(clock.now().unix_seconds_f64());
}
