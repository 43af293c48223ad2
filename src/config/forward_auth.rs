//! Answering for another proxy: whether a request may pass, without forwarding it.

use super::Address;
use super::read::{FromKeys, SectionKeys};

/// What other proxies may ask, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardAuth {
    /// Whether `/_doorward/verify` answers on the proxy port.
    pub enabled: bool,
    /// Where Envoy's `ext_authz` is served over gRPC; nowhere when absent.
    pub grpc: Option<Address>,
}

impl FromKeys for ForwardAuth {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { enabled: keys.take("enabled"), grpc: keys.take("grpc") }
    }
}

impl ForwardAuth {
    /// Returns whether other proxies may ask at all.
    pub fn is_on(&self) -> bool {
        self.enabled || self.grpc.is_some()
    }
}
