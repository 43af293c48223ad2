//! Takes up what changes while the server runs.
//!
//! Files are read again every few seconds and on SIGHUP: Kubernetes swaps a symlink when it
//! updates a volume, which file watches on the old target never see. A new configuration is
//! checked whole before any of it is used; one that is wrong changes nothing but a metric.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};

use super::rotation::{Digests, Rotation, gives_up_keys, publish, without_rotating};
use super::tls::Certificates;
use super::{Reread, settings};
use crate::config::sessions::TokenKey;
use crate::config::{Config, Loaded};
use crate::metrics::Metrics;
use crate::proxy::settings::Settings;
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
    pub(super) rotation: Rotation,
    pub(super) settings: Arc<ArcSwap<Settings>>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) metrics: Arc<Metrics>,
}

/// A configuration as it was read. Its own hash leaves secrets out; a rotated one must be noticed
/// all the same.
#[derive(Clone)]
struct Seen {
    loaded: Loaded,
    secrets: Digests,
}

impl PartialEq for Seen {
    fn eq(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.loaded.config, &other.loaded.config);
        self.loaded.effective == other.loaded.effective
            && self.secrets == other.secrets
            && ours.sessions.store == theirs.sessions.store
            && ours.directory.url == theirs.directory.url
    }
}

impl Reload {
    /// Looks for changes until the runtime ends.
    pub(super) async fn run(mut self, started_with: Loaded, every: Duration) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("Cannot listen for SIGHUP");
            return;
        };
        let mut current = Seen { secrets: Digests::of(&started_with.config), loaded: started_with.clone() };
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
                    Event { config_hash: Some(&current.loaded.hash), ..Action::ConfigRefused.event() }.write();
                    last_problem = Some(problem);
                }
            }
        }
    }

    async fn look(&mut self, started_with: &Config, current: &Seen, asked: bool) -> Result<Option<Seen>, String> {
        if let Some(certificates) = &self.certificates
            && certificates.reload()?
        {
            self.publish_certificate();
            tracing::info!("Certificate reloaded");
            Action::CertificateReloaded.event().write();
        }
        let new = self.read_settled(current).await?;
        let unchanged = new == *current;
        if !unchanged || asked {
            self.apply(started_with, &new)?;
        }
        if !unchanged {
            audit(&current.loaded.config, &new.loaded);
        }
        self.metrics.config_last_reload_successful.set(1);
        Ok((!unchanged).then_some(new))
    }

    // Whoever writes a file in place empties it first, and an empty overlay is a good one: what
    // differs from the configuration in force counts only when a second look sees the same.
    async fn read_settled(&self, current: &Seen) -> Result<Seen, String> {
        let mut seen = read(&self.reread);
        if seen.as_ref() == Ok(current) {
            return seen;
        }
        loop {
            tokio::time::sleep(SETTLE).await;
            let again = read(&self.reread);
            if again == seen {
                return seen;
            }
            seen = again;
        }
    }

    // First everything that can fail, then everything that counts.
    fn apply(&mut self, started_with: &Config, Seen { loaded: new, secrets }: &Seen) -> Result<(), String> {
        let settings = settings(&new.config).map_err(|error| error.to_string())?;
        let rotated = self.rotation.check(&new.config, secrets)?;
        self.verbosity.set(new.config.telemetry.log_level).map_err(|error| error.to_string())?;
        self.rotation.take_up(rotated);
        self.settings.store(Arc::new(settings));
        self.metrics.config_info.reset();
        self.metrics.config_info.with_label_values(&[&new.hash]).set(1);
        self.metrics.config_last_reload_success_timestamp.set(self.clock.now().unix_seconds_f64());
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
        publish("tls.key", self.clock.as_ref(), &self.metrics);
        let end = self.metrics.tls_certificate_not_after_timestamp.with_label_values(&["listener"]);
        end.set(not_after.unix_seconds_f64());
    }
}

fn read(reread: &Reread) -> Result<Seen, String> {
    let loaded = reread()?;
    Ok(Seen { secrets: Digests::of(&loaded.config), loaded })
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

// Against the configuration of the start, not the last one: what waits for a restart goes on waiting.
fn needs_restart(started_with: &Config, new: &Config) -> Vec<&'static str> {
    let shown = |config: &Config| {
        // What is left of the secrets is inside URLs and among the collector's headers. `Debug` hides it:
        // `hidden` compares that.
        let config = without_rotating(config);
        [
            ("listen", format!("{:?}", config.listen)),
            ("tls", format!("{:?}", config.tls)),
            ("admin", format!("{:?}", config.admin)),
            ("forward_auth.grpc", format!("{:?}", config.forward_auth.grpc)),
            ("upstream", format!("{:?}", config.upstream)),
            ("sessions.store", format!("{:?}{:?}", config.sessions.store, config.sessions.redis)),
            ("sessions.ttl", format!("{:?}{:?}", config.sessions.ttl, config.sessions.max_per_principal)),
            ("sessions.cache", format!("{:?}", config.sessions.cache)),
            ("sessions.revocation", format!("{:?}", config.sessions.revocation)),
            ("sessions.on_unavailable", format!("{:?}{:?}", config.sessions.on_unavailable, config.sessions.max_stale)),
            ("directory", format!("{:?}", config.directory)),
            ("rebind", format!("{:?}", config.rebind)),
            ("outbox", format!("{:?}", config.outbox)),
            ("bootstrap", format!("{:?}", config.bootstrap)),
            ("clerk", format!("{:?}", config.clerk)),
            ("issuers", format!("{:?}", config.issuers)),
            ("routes (stream)", format!("{:?}", config.routes.iter().any(|rule| rule.stream))),
            ("tenants", format!("{:?}", config.tenants)),
            ("webhooks", format!("{:?}", config.webhooks)),
            ("limits", format!("{:?}", config.limits)),
            ("lifecycle", format!("{:?}", config.lifecycle)),
            ("telemetry.log_format", format!("{:?}", config.telemetry.log_format)),
            ("telemetry.audit_file", format!("{:?}", config.telemetry.audit_file)),
            ("telemetry.traces", format!("{:?}", config.telemetry.traces)),
        ]
    };
    let hidden = |section: &str| match section {
        "sessions.store" => started_with.sessions.store != new.sessions.store || gives_up_keys(started_with, new),
        "directory" => started_with.directory.url != new.directory.url,
        "telemetry.traces" => started_with.telemetry.traces.headers != new.telemetry.traces.headers,
        _ => false,
    };
    let sections = shown(started_with).into_iter().zip(shown(new));
    let changed = sections.filter(|((section, old), (_, new))| old != new || hidden(section));
    changed.map(|((section, _), _)| section).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const REDIS: [(&str, &str); 3] = [
        ("DOORWARD__SESSIONS__STORE", "redis://app:one@r"),
        ("DOORWARD__DIRECTORY__URL", "postgres://app:one@d/d"),
        ("DOORWARD__SESSIONS__TOKEN__KEYS", "[{ id: 1, secret: integration-tests-only-0123456789abcdef }]"),
    ];

    fn seen(variables: &[(&str, &str)]) -> Seen {
        let all = REDIS.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: BTreeMap<String, String> = all.collect();
        let reread: Reread = Box::new(move || Config::load(&[], &environment).map_err(|problems| problems.to_string()));
        read(&reread).unwrap()
    }

    fn waiting(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let (old, new) = (seen(&[]), seen(variables));
        assert!(old != new, "the change is noticed: {variables:?}");
        needs_restart(&old.loaded.config, &new.loaded.config)
    }

    #[test]
    fn a_rotated_secret_waits_for_nothing() {
        let keys = "[{ id: 2, secret: integration-tests-only-fedcba9876543210 }]";
        for variables in [
            [("DOORWARD__SESSIONS__REDIS__PASSWORD", "two")],
            [("DOORWARD__DIRECTORY__PASSWORD", "two")],
            [("DOORWARD__SESSIONS__TOKEN__KEYS", keys)],
            [("DOORWARD__OUTBOX__ALIAS__API_KEY", "two")],
            [("DOORWARD__REBIND__HOOK__SECRET", "two")],
        ] {
            assert_eq!(waiting(&variables), [""; 0], "{variables:?}");
        }
    }

    #[test]
    fn a_header_of_the_collector_waits_for_a_restart_also_where_only_its_value_changed() {
        const HEADERS: &str = "DOORWARD__TELEMETRY__TRACES__HEADERS";
        let (old, new) = (seen(&[(HEADERS, "{ x-key: one }")]), seen(&[(HEADERS, "{ x-key: two }")]));
        assert!(old != new, "the change is noticed");
        assert_eq!(needs_restart(&old.loaded.config, &new.loaded.config), ["telemetry.traces"]);
        assert_eq!(needs_restart(&old.loaded.config, &old.loaded.config), [""; 0]);
    }

    #[test]
    fn an_address_waits_for_a_restart_also_where_only_its_password_changed() {
        assert_eq!(waiting(&[("DOORWARD__SESSIONS__STORE", "redis://app:two@r")]), ["sessions.store"]);
        assert_eq!(waiting(&[("DOORWARD__DIRECTORY__URL", "postgres://app:two@d/d")]), ["directory"]);
        assert_eq!(waiting(&[("DOORWARD__BOOTSTRAP__ALLOW_ANONYMOUS", "false")]), ["bootstrap"]);
    }
}
