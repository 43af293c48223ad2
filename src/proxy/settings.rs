//! What a reload replaces, as one value: a request is judged by one state of it from head to end.

use super::forwarded::TrustedProxies;
use super::metrics::RouteHandles;
use super::route::{InvalidRule, RouteTable};
use crate::config::{Cookie, IdentityHeaders, Reloadable};
use crate::model::surface::Surfaces;

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
    /// Returns what a configuration asks for beside the surfaces of the start, or every route rule that is wrong.
    pub fn of(reloadable: &Reloadable, surfaces: Surfaces) -> Result<Self, Vec<InvalidRule>> {
        let Reloadable {
            routes,
            identity_headers,
            cookie,
            trusted_proxies,
            forward_auth,
            log_level: _,
            access_log_sample,
        } = reloadable;
        let routes = RouteTable::new(routes, surfaces)?;
        Ok(Self {
            route_handles: RouteHandles::new(routes.ids().count()),
            routes,
            identity_headers: *identity_headers,
            cookie: cookie.clone(),
            trusted_proxies: TrustedProxies::new(trusted_proxies.clone()),
            forward_auth: *forward_auth,
            access_log_sample: *access_log_sample,
        })
    }
}
