//! Takes up what changes while the server runs.
//!
//! Files are read again every few seconds and on SIGHUP: Kubernetes swaps a symlink when it
//! updates a volume, which file watches on the old target never see. A new configuration is
//! checked whole before any of it is used; one that is wrong changes nothing but a metric.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use tokio::signal::unix::{SignalKind, signal};

use super::store::configured_keys;
use super::tls::Certificates;
use super::{Reread, settings};
use crate::config::sessions::TokenKey;
use crate::config::{Config, Loaded};
use crate::metrics::Metrics;
use crate::proxy::Settings;
use crate::session::Sessions;
use crate::telemetry::Verbosity;
use crate::telemetry::audit::{Action, Event};
use crate::time::Clock;

/// How long a file must stay as it is before it is believed.
const SETTLE: Duration = Duration::from_millis(50);

/// What a reload reaches.
pub(super) struct Reload {
    pub(super) reread: Reread,
    pub(super) verbosity: Verbosity,
    pub(super) certificates: Option<Arc<Certificates>>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

impl Reload {
    /// Looks for changes until the runtime ends.
    pub(super) async fn run(self, started_with: Loaded, every: Duration) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("Cannot listen for SIGHUP");
            return;
        };
        let mut current = started_with.clone();
        let mut last_problem = None;
        let mut tick = tokio::time::interval(every);
        self.publish_certificate();
        loop {
            let asked = tokio::select! {
                _ = tick.tick() => false,
                _ = hangup.recv() => true,
            };
            match self.look(&started_with.config, &current, asked).await {
                Ok(Some(taken)) => (current, last_problem) = (taken, None),
                Ok(None) => last_problem = None,
                Err(problem) if last_problem.as_ref() == Some(&problem) && !asked => {}
                Err(problem) => {
                    self.metrics.config_last_reload_successful.set(0);
                    tracing::error!(problem = %problem, "Configuration not reloaded; the old one stays in force");
                    Event { config_hash: Some(&current.hash), ..Action::ConfigRefused.event() }.write();
                    last_problem = Some(problem);
                }
            }
        }
    }

    async fn look(&self, started_with: &Config, current: &Loaded, asked: bool) -> Result<Option<Loaded>, String> {
        if let Some(certificates) = &self.certificates
            && certificates.reload()?
        {
            self.publish_certificate();
            tracing::info!("Certificate reloaded");
            Action::CertificateReloaded.event().write();
        }
        let new = self.read_settled(current).await?;
        let unchanged = fingerprint(&new) == fingerprint(current);
        if !unchanged || asked {
            self.apply(started_with, &new)?;
        }
        if !unchanged {
            audit(&current.config, &new);
        }
        self.metrics.config_last_reload_successful.set(1);
        Ok((!unchanged).then_some(new))
    }

    // Whoever writes a file in place empties it first, and an empty overlay is a good one: what
    // differs from the configuration in force counts only when a second look sees the same.
    async fn read_settled(&self, current: &Loaded) -> Result<Loaded, String> {
        let mut read = (self.reread)();
        let mut seen = looks(&read);
        if seen == Ok(fingerprint(current)) {
            return read;
        }
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = (self.reread)();
            let now = looks(&again);
            if now == seen {
                return read;
            }
            (read, seen) = (again, now);
        }
    }

    fn apply(&self, started_with: &Config, new: &Loaded) -> Result<(), String> {
        let settings = settings(&new.config).map_err(|error| error.to_string())?;
        let keys = configured_keys(&new.config).map_err(|error| error.to_string())?;
        if let Some((keys, _)) = keys {
            self.sessions.replace_keys(keys);
        }
        self.settings.store(Arc::new(settings));
        self.verbosity.set(new.config.telemetry.log_level).map_err(|error| error.to_string())?;
        self.metrics.config_info.reset();
        self.metrics.config_info.with_label_values(&[&new.hash]).set(1);
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        self.metrics.config_last_reload_success_timestamp.set(self.clock.now().unix_seconds() as f64);
        let waiting = needs_restart(started_with, &new.config);
        if waiting.is_empty() {
            tracing::info!(config.hash = %new.hash, "Configuration reloaded");
        } else {
            tracing::warn!(config.hash = %new.hash, sections = %waiting.join(", "), "Configuration reloaded; some sections change only with a restart");
        }
        Ok(())
    }

    fn publish_certificate(&self) {
        let Some(not_after) = self.certificates.as_ref().and_then(|certificates| certificates.not_after()) else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 fit")]
        self.metrics.tls_certificate_not_after_timestamp.with_label_values(&["listener"]).set(not_after as f64);
    }
}

fn audit(old: &Config, new: &Loaded) {
    Event { config_hash: Some(&new.hash), ..Action::ConfigReloaded.event() }.write();
    let keys = |config: &Config| config.sessions.token.keys.clone();
    let same = |(a, b): (&TokenKey, &TokenKey)| a.id == b.id && a.secret == b.secret;
    let (before, after) = (keys(old), keys(&new.config));
    if before.len() != after.len() || !before.iter().zip(&after).all(same) {
        Event { keys: u64::try_from(after.len()).ok(), ..Action::TokenKeysReloaded.event() }.write();
    }
}

fn looks(read: &Result<Loaded, String>) -> Result<Vec<u8>, String> {
    read.as_ref().map(fingerprint).map_err(Clone::clone)
}

// The configuration's own hash leaves secrets out; a rotated key must be noticed all the same.
fn fingerprint(loaded: &Loaded) -> Vec<u8> {
    let keys = loaded.config.sessions.token.keys.iter();
    let secrets = keys.flat_map(|key| [&[key.id], key.secret.expose().as_bytes()].concat());
    let single = password(&loaded.config).bytes().chain(sink_key(&loaded.config).bytes());
    let headers = collector_headers(&loaded.config);
    let all = loaded
        .effective
        .bytes()
        .chain(secrets)
        .chain(single)
        .chain(webhook_secrets(&loaded.config))
        .chain(headers.bytes());
    digest(&SHA256, &all.collect::<Vec<_>>()).as_ref().to_vec()
}

fn password(config: &Config) -> &str {
    config.sessions.redis.password.as_ref().map_or("", |secret| secret.expose())
}

fn sink_key(config: &Config) -> &str {
    config.outbox.alias.api_key.as_ref().map_or("", |secret| secret.expose())
}

fn collector_headers(config: &Config) -> String {
    config.telemetry.traces.headers.values().flat_map(|value| [value.expose(), "\n"]).collect()
}

fn webhook_secrets(config: &Config) -> Vec<u8> {
    let secrets = config.webhooks.clerk.iter().flat_map(|clerk| &clerk.secrets);
    secrets.flat_map(|secret| secret.expose().iter().copied()).collect()
}

// Against the configuration of the start, not the last one: what waits for a restart goes on waiting.
fn needs_restart(started_with: &Config, new: &Config) -> Vec<&'static str> {
    let shown = |config: &Config| {
        let mut sessions = String::new();
        // `Debug` never fails on a `String`, and shows no secret.
        let _ = write!(sessions, "{:?}{:?}", config.sessions.store, config.sessions.redis);
        [
            ("listen", format!("{:?}", config.listen)),
            ("tls", format!("{:?}", config.tls)),
            ("admin", format!("{:?}", config.admin)),
            ("upstream", format!("{:?}", config.upstream)),
            ("sessions.store", sessions),
            // Compared only: `Debug` would show every password alike.
            ("sessions.redis.password", password(config).to_owned()),
            ("sessions.ttl", format!("{:?}{:?}", config.sessions.ttl, config.sessions.max_per_principal)),
            ("sessions.cache", format!("{:?}", config.sessions.cache)),
            ("sessions.revocation", format!("{:?}", config.sessions.revocation)),
            ("sessions.on_unavailable", format!("{:?}{:?}", config.sessions.on_unavailable, config.sessions.max_stale)),
            ("outbox", format!("{:?}{}", config.outbox, sink_key(config))),
            ("clerk", format!("{:?}", config.clerk)),
            ("issuers", format!("{:?}", config.issuers)),
            ("routes (stream)", format!("{:?}", config.routes.iter().any(|rule| rule.stream))),
            ("tenants", format!("{:?}", config.tenants)),
            // The secrets, too, are compared only.
            ("webhooks", format!("{:?}{:?}", config.webhooks, webhook_secrets(config))),
            ("limits", format!("{:?}", config.limits)),
            ("lifecycle", format!("{:?}", config.lifecycle)),
            ("telemetry.log_format", format!("{:?}", config.telemetry.log_format)),
            ("telemetry.audit_file", format!("{:?}", config.telemetry.audit_file)),
            ("telemetry.traces", format!("{:?}{}", config.telemetry.traces, collector_headers(config))),
        ]
    };
    let changed = shown(started_with).into_iter().zip(shown(new)).filter(|((_, old), (_, new))| old != new);
    changed.map(|((section, _), _)| section).collect()
}
