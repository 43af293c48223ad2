//! Start, drain and reload.

use std::time::Duration;

use serde::Deserialize;

use super::duration;

/// Start, drain and reload.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lifecycle {
    /// After SIGTERM: how long new connections are still accepted while load balancers notice.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_delay: Duration,
    /// After that: how long exchanges under way may take to finish.
    #[serde(deserialize_with = "duration::deserialize")]
    pub drain_timeout: Duration,
    /// The pod's `terminationGracePeriodSeconds`, to be checked against the two above.
    #[serde(deserialize_with = "duration::option")]
    pub termination_grace: Option<Duration>,
    /// How often files are looked at for changes.
    #[serde(deserialize_with = "duration::deserialize")]
    pub reload_interval: Duration,
}
