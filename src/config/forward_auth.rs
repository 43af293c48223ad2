//! Answering for another proxy: whether a request may pass, without forwarding it.

use serde::Deserialize;

use super::Address;

/// What other proxies may ask, and where.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForwardAuth {
    /// Whether `/_doorward/verify` answers on the proxy port.
    pub enabled: bool,
    /// Where Envoy's `ext_authz` is served over gRPC; nowhere when absent.
    pub grpc: Option<Address>,
}

impl ForwardAuth {
    /// Returns whether other proxies may ask at all.
    pub fn is_on(&self) -> bool {
        self.enabled || self.grpc.is_some()
    }
}
