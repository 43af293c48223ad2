//! What a reload replaces, as one value: a request is judged by one state of it from head to end.

use super::forwarded::TrustedProxies;
use super::metrics::RouteHandles;
use super::route::{InvalidRule, RouteTable};
use crate::config::{Config, Cookie, IdentityHeaders};

/// What a reload replaces.
#[derive(Debug)]
pub struct Settings {
    /// What a path needs.
    pub routes: RouteTable,
    /// Metric handles of those routes.
    pub route_handles: RouteHandles,
    /// Which identity headers go upstream.
    pub identity_headers: IdentityHeaders,
    /// The cookie that may carry a token.
    pub cookie: Cookie,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether other proxies may ask for decisions.
    pub forward_auth: bool,
    /// Which share of successful exchanges is logged, from 0 to 1.
    pub access_log_sample: f64,
}

impl Settings {
    /// Returns what `config` asks for, or every route rule that is wrong.
    pub fn from_config(config: &Config) -> Result<Self, Vec<InvalidRule>> {
        let routes = RouteTable::new(&config.routes)?;
        Ok(Self {
            route_handles: RouteHandles::new(routes.ids().count()),
            routes,
            identity_headers: config.identity_headers,
            cookie: config.cookie.clone(),
            trusted_proxies: TrustedProxies::new(config.trusted_proxies.clone()),
            forward_auth: config.forward_auth.enabled,
            access_log_sample: config.telemetry.access_log_sample,
        })
    }
}
