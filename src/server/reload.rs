//! Takes up what changes while the server runs.
//!
//! Files are read again every few seconds and on SIGHUP: Kubernetes swaps a symlink when it
//! updates a volume, which file watches on the old target never see. A new configuration is
//! checked whole before any of it is used; one that is wrong changes nothing but a metric.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::signal::unix::{SignalKind, signal};

use super::rotation::{Rotation, publish};
use super::tls::Certificates;
use super::{Reread, settings};
use crate::config::{Config, Fixed, Loaded, Parts, SecretDigests};
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

/// A configuration as it was read, with what the files beside it held then.
#[derive(Clone, Debug, PartialEq)]
struct Snapshot {
    loaded: Loaded,
    secrets: SecretDigests,
}

impl Snapshot {
    fn new(loaded: Loaded) -> Self {
        Self { secrets: loaded.config.clone().into_parts().secrets, loaded }
    }
}

impl Reload {
    /// Looks for changes until the runtime ends.
    pub(super) async fn run(mut self, started_with: Loaded, every: Duration) {
        let Ok(mut hangup) = signal(SignalKind::hangup()) else {
            tracing::error!("Cannot listen for SIGHUP");
            return;
        };
        let mut current = Snapshot::new(started_with.clone());
        let fixed = started_with.config.into_parts().fixed;
        let mut last_problem = None;
        let mut tick = tokio::time::interval(every);
        self.publish_certificate();
        loop {
            let asked = tokio::select! {
                _ = tick.tick() => false,
                _ = hangup.recv() => true,
            };
            match self.look(&fixed, &current, asked).await {
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

    async fn look(&mut self, fixed: &Fixed, current: &Snapshot, asked: bool) -> Result<Option<Snapshot>, String> {
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
            self.apply(fixed, &new)?;
        }
        if !unchanged {
            audit(&current.loaded.config, &new.loaded);
        }
        self.metrics.config_last_reload_successful.set(1);
        Ok((!unchanged).then_some(new))
    }

    // An editor that writes a file in place empties it first, and an empty overlay is a good one: what
    // differs from the configuration in force counts only when a second look sees the same.
    async fn read_settled(&self, current: &Snapshot) -> Result<Snapshot, String> {
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

    // First everything that can fail, then everything that counts. What waits for a restart is found by comparing with
    // the configuration of the start, not with the last one: it goes on waiting.
    fn apply(&mut self, started_with: &Fixed, Snapshot { loaded: new, secrets }: &Snapshot) -> Result<(), String> {
        let Parts { reloadable, fixed, .. } = new.config.clone().into_parts();
        let log_level = reloadable.log_level;
        let settings = settings(&reloadable, started_with.surfaces().mounts()).map_err(|error| error.to_string())?;
        let rotated = self.rotation.check(&new.config, secrets.clone())?;
        self.verbosity.set(log_level).map_err(|error| error.to_string())?;
        self.rotation.take_up(rotated);
        self.settings.store(Arc::new(settings));
        self.metrics.config_info.reset();
        self.metrics.config_info.with_label_values(&[&new.hash]).set(1);
        self.metrics.config_last_reload_success_timestamp.set(self.clock.now().unix_seconds_f64());
        let waiting = started_with.differing(&fixed);
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

fn read(reread: &Reread) -> Result<Snapshot, String> {
    reread().map(Snapshot::new)
}

fn audit(old: &Config, new: &Loaded) {
    Event { config_hash: Some(&new.hash), ..Action::ConfigReloaded.event() }.write();
    let keys = &new.config.sessions.token.keys;
    if old.sessions.token.keys != *keys {
        Event { keys: u64::try_from(keys.len()).ok(), ..Action::TokenKeysReloaded.event() }.write();
    }
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

    fn seen(variables: &[(&str, &str)]) -> Snapshot {
        let all = REDIS.iter().chain(variables).map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let environment: BTreeMap<String, String> = all.collect();
        let reread: Reread = Box::new(move || Config::load(&[], &environment).map_err(|problems| problems.to_string()));
        read(&reread).unwrap()
    }

    fn waiting(variables: &[(&str, &str)]) -> Vec<&'static str> {
        let (old, new) = (seen(&[]), seen(variables));
        assert!(old != new, "the change is noticed: {variables:?}");
        differing(old, new)
    }

    fn differing(old: Snapshot, new: Snapshot) -> Vec<&'static str> {
        old.loaded.config.into_parts().fixed.differing(&new.loaded.config.into_parts().fixed)
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
        assert_eq!(differing(old.clone(), new), ["telemetry.traces"]);
        assert_eq!(differing(old.clone(), old), [""; 0]);
    }

    #[test]
    fn the_prefix_of_the_embedded_stores_own_key_waits_for_a_restart_and_so_does_another_key() {
        let embedded = [("DOORWARD__SESSIONS__STORE", "sqlite:///a"), ("DOORWARD__SESSIONS__TOKEN__KEYS", "[]")];
        let prefixed = [embedded[0], embedded[1], ("DOORWARD__SESSIONS__TOKEN__PREFIX", "other_")];
        assert_eq!(differing(seen(&embedded), seen(&prefixed)), ["sessions.token"]);
        assert_eq!(differing(seen(&embedded), seen(&embedded[..1])), ["sessions.token"]);
    }

    #[test]
    fn an_address_waits_for_a_restart_also_where_only_its_password_changed() {
        assert_eq!(waiting(&[("DOORWARD__SESSIONS__STORE", "redis://app:two@r")]), ["sessions.store"]);
        assert_eq!(waiting(&[("DOORWARD__DIRECTORY__URL", "postgres://app:two@d/d")]), ["directory"]);
        assert_eq!(waiting(&[("DOORWARD__BOOTSTRAP__ALLOW_ANONYMOUS", "false")]), ["bootstrap"]);
    }
}
