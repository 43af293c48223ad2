//! How long sessions live and what happens without the store.

use std::time::Duration;

use crate::config::{Config, OnUnavailable};
use crate::model::TenantId;

const DAY: Duration = Duration::from_hours(24);
const COOKIE_IDLE: Duration = DAY.saturating_mul(7);
const COOKIE_MAX: Duration = DAY.saturating_mul(30);
const REFRESH_TTL: Duration = DAY.saturating_mul(30);
const REFRESH_GRACE: Duration = Duration::from_secs(10);
const TOUCH_EVERY: Duration = Duration::from_mins(1);

/// How long sessions live and what happens without the store.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How long an opaque token lives, and a cookie that does not slide.
    pub ttl: Duration,
    /// How long a sliding cookie may go unused.
    pub cookie_idle: Duration,
    /// How long a sliding cookie lives at most.
    pub cookie_max: Duration,
    /// How long a session may be refreshed.
    pub refresh_ttl: Duration,
    /// How long a refresh token that was just used gets the same answer again; zero for never.
    pub refresh_grace: Duration,
    /// How often at most the use of a cookie is written down.
    pub touch_every: Duration,
    /// How many sessions one principal may have.
    pub max_per_principal: u32,
    /// Whether an opaque token may outlive its nominal expiry, because some route extends it.
    pub extendable: bool,
    /// How long past the lease a session validated before is still let through; zero for never.
    pub max_stale: Duration,
    /// The tenant of sessions whose provider names none.
    pub default_tenant: TenantId,
}

impl Policy {
    /// Returns a policy in which nothing extends a session and an outage is refused at once.
    pub fn new(ttl: Duration, max_per_principal: u32, default_tenant: TenantId) -> Self {
        Self {
            ttl,
            cookie_idle: COOKIE_IDLE,
            cookie_max: COOKIE_MAX,
            refresh_ttl: REFRESH_TTL,
            refresh_grace: REFRESH_GRACE,
            touch_every: TOUCH_EVERY,
            max_per_principal,
            extendable: false,
            max_stale: Duration::ZERO,
            default_tenant,
        }
    }

    /// Returns the policy that a configuration asks for.
    pub fn from_config(config: &Config) -> Self {
        let sessions = &config.sessions;
        Self {
            extendable: config.routes.iter().any(|rule| rule.stream),
            max_stale: match sessions.on_unavailable {
                OnUnavailable::FailClosed => Duration::ZERO,
                OnUnavailable::ServeStale => sessions.max_stale,
            },
            ..Self::new(sessions.ttl, sessions.max_per_principal, config.tenants.default.clone())
        }
    }
}
