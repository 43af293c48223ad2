//! What a reload replaces, as one value: a request is judged by one state of it from head to end.

use ipnet::IpNet;

use super::route::RouteTable;
use crate::config::{Cookie, IdentityHeaders};

/// What a reload replaces.
#[derive(Debug)]
pub struct Settings {
    /// What a path needs.
    pub routes: RouteTable,
    /// Which identity headers go upstream.
    pub identity_headers: IdentityHeaders,
    /// The cookie that may carry a token.
    pub cookie: Cookie,
    /// Peers whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether other proxies may ask.
    pub forward_auth: bool,
    /// Which share of successful exchanges is logged.
    pub access_log_sample: f64,
}
