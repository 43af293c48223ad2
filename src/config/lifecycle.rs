//! Start, drain and reload.

use std::time::Duration;

use super::read::{FromKeys, SectionKeys};

/// Start, drain and reload.
#[derive(Clone, Debug, PartialEq)]
pub struct Lifecycle {
    /// After SIGTERM: how long new connections are still accepted while load balancers notice.
    pub drain_delay: Duration,
    /// After that: how long exchanges under way may take to finish.
    pub drain_timeout: Duration,
    /// The pod's `terminationGracePeriodSeconds`, to be checked against the two above.
    pub termination_grace: Option<Duration>,
    /// How often files are looked at for changes.
    pub reload_interval: Duration,
}

impl FromKeys for Lifecycle {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            drain_delay: keys.take("drain_delay"),
            drain_timeout: keys.take("drain_timeout"),
            termination_grace: keys.take("termination_grace"),
            reload_interval: keys.take("reload_interval"),
        }
    }
}
