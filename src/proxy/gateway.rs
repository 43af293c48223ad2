//! The proxy's application: what the proxy port needs to answer or forward a request.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use axum::Router;

use super::forward::fast_path::FastPath;
use super::forward::upstream::UpstreamPeer;
use super::state::GatewayState;
use crate::config::Limits;

/// The proxy's application.
pub struct Gateway {
    /// What it shares with the ext_authz port.
    pub state: Arc<GatewayState>,
    /// The endpoints of every surface, answered here.
    pub surfaces: Arc<Router>,
    /// Where requests are forwarded to.
    pub upstream: Arc<UpstreamPeer>,
    /// The fast path there.
    pub fast_path: FastPath,
    /// Sizes, counts and deadlines.
    pub limits: Limits,
    /// Set while the process drains: every response then ends its connection.
    pub draining: Arc<AtomicBool>,
}
