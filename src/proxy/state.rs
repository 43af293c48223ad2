//! What every decision needs, whether it is asked for on the proxy port or on the `ext_authz` port.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::connection::session_watch::SessionWatch;
use super::metrics::MetricHandles;
use super::settings::Settings;
use crate::session::Sessions;
use crate::telemetry::id_sequence::IdSequence;
use crate::telemetry::traces::Tracer;

/// What every exchange uses and none owns.
pub struct GatewayState {
    /// What a reload replaces.
    pub settings: Arc<ArcSwap<Settings>>,
    /// The sessions service.
    pub sessions: Arc<Sessions>,
    /// Cuts exchanges whose session ends.
    pub session_watch: Arc<SessionWatch>,
    /// Where the ids of exchanges come from.
    pub request_ids: IdSequence,
    /// Handles of the metrics that every exchange touches.
    pub handles: MetricHandles,
    /// What records exchanges, if they are traced at all.
    pub tracer: Option<Arc<Tracer>>,
}
