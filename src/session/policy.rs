//! How long sessions live and what happens without the store.

use std::time::Duration;

use crate::config::{Config, OnUnavailable};
use crate::model::TenantId;

/// How long sessions live and what happens without the store.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long a session lives.
    pub ttl: Duration,
    /// How many sessions one principal may have.
    pub max_per_principal: u32,
    /// Whether a record may outlive its token's nominal expiry, because some route extends it.
    pub extendable: bool,
    /// How long past the lease a session validated before is still let through; zero for never.
    pub max_stale: Duration,
    /// The tenant of sessions whose provider names none.
    pub default_tenant: TenantId,
}

impl Policy {
    /// Returns the policy that a configuration asks for.
    pub fn from_config(config: &Config) -> Self {
        Self {
            ttl: config.sessions.ttl,
            max_per_principal: config.sessions.max_per_principal,
            extendable: config.routes.iter().any(|rule| rule.stream),
            max_stale: match config.sessions.on_unavailable {
                OnUnavailable::FailClosed => Duration::ZERO,
                OnUnavailable::ServeStale => config.sessions.max_stale,
            },
            default_tenant: config.tenants.default.clone(),
        }
    }
}
