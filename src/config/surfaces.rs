//! Which families of endpoints Doorward answers itself, and where.

use super::read::{FromKeys, SectionKeys};
use crate::model::surface::{Mount, OWN, SurfaceId, Surfaces};

/// Where a provider's events arrive.
const WEBHOOKS: &str = "/webhooks/clerk";

/// The surfaces that can be switched and moved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurfacesSection {
    /// Tokens for proofs.
    pub session_exchange: SurfaceSection,
}

/// One surface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurfaceSection {
    /// Whether it is served; its paths are the application's otherwise.
    pub enabled: bool,
    /// The path below which everything is the surface's.
    pub prefix: String,
}

impl FromKeys for SurfacesSection {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { session_exchange: keys.take("session_exchange") }
    }
}

impl FromKeys for SurfaceSection {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { enabled: keys.take("enabled"), prefix: keys.take("prefix") }
    }
}

impl SurfacesSection {
    /// Returns every place of every surface.
    pub fn mounts(&self) -> Surfaces {
        let mut mounts = vec![Mount::below(SurfaceId::ForwardAuth, OWN), Mount::at(SurfaceId::Webhooks, WEBHOOKS)];
        if self.session_exchange.enabled {
            mounts.push(Mount::below(SurfaceId::SessionExchange, self.session_exchange.prefix.clone()));
        }
        Surfaces::new(mounts)
    }
}
