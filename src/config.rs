//! What an operator may set. `conf/default.yaml` is embedded and holds every default.
//!
//! These types are the parsed form: whatever has been through here needs no second check.

pub mod bootstrap;
pub mod directory;
pub mod duration;
pub mod forward_auth;
pub mod issuer;
pub mod lifecycle;
pub mod limits;
pub mod listen;
pub mod load;
pub mod outbox;
pub mod problem;
pub mod rebind;
pub mod routes;
pub mod sessions;
pub mod surfaces;
pub mod telemetry;
pub mod upstream;
pub mod webhooks;

mod check;
mod layers;
mod otel;
mod redact;
mod repair;
mod risk;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeMap;

use ipnet::IpNet;
use serde::Deserialize;

pub use bootstrap::Bootstrap;
pub use directory::Directory;
pub use forward_auth::ForwardAuth;
pub use issuer::Issuer;
pub use lifecycle::Lifecycle;
pub use limits::Limits;
pub use listen::{Address, Admin, Tls};
pub use load::Loaded;
pub use outbox::Outbox;
pub use problem::{Problem, Problems, Warning};
pub use rebind::Rebind;
pub use routes::{Auth, IdentityHeaders, RouteRule};
pub use sessions::{OnUnavailable, Sessions};
pub use surfaces::SurfacesSection;
pub use telemetry::Telemetry;
pub use upstream::Upstream;
pub use webhooks::Webhooks;

use crate::model::TenantId;

/// The whole configuration.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The proxy port: `host:port` or `unix:/path`.
    pub listen: Address,
    /// TLS on the proxy port; plain HTTP when absent.
    pub tls: Option<Tls>,
    /// Probes and metrics, never on the proxy port.
    pub admin: Admin,
    /// The application behind Doorward.
    pub upstream: Upstream,
    /// Tokens, the session store, cache and revocation.
    pub sessions: Sessions,
    /// Devices, users and the outbox.
    pub directory: Directory,
    /// How the outbox is delivered.
    pub outbox: Outbox,
    /// What `GET /auth/bootstrap` is composed of.
    pub bootstrap: Bootstrap,
    /// How what a guest made becomes the user's.
    pub rebind: Rebind,
    /// The Clerk instance whose session JWTs may be exchanged.
    pub clerk: Option<Issuer>,
    /// Further issuers of the same kind, by name.
    pub issuers: BTreeMap<String, Issuer>,
    /// Which tenant a session falls into when its provider names none.
    pub tenants: Tenants,
    /// Who may tell of users and logins that ended.
    pub webhooks: Webhooks,
    /// Which families of endpoints Doorward answers itself, and where.
    pub surfaces: SurfacesSection,
    /// What a path needs; the first rule that matches decides, and no match means a session is required.
    pub routes: Vec<RouteRule>,
    /// Which identity headers go upstream beside the two that always do.
    pub identity_headers: IdentityHeaders,
    /// The cookie that may carry a token instead of `Authorization`.
    pub cookie: Cookie,
    /// Peers whose `X-Forwarded-*` and `Forwarded` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// What other proxies may ask, and where.
    pub forward_auth: ForwardAuth,
    /// Sizes, counts and deadlines.
    pub limits: Limits,
    /// Start, drain and reload.
    pub lifecycle: Lifecycle,
    /// Logs and traces.
    pub telemetry: Telemetry,
}

/// Which tenant a session falls into.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tenants {
    /// The tenant of sessions whose provider names none; becomes `X-Client-ID`.
    #[serde(deserialize_with = "listen::from_text")]
    pub default: TenantId,
}

/// The cookie that may carry a token.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cookie {
    /// Whether the guard looks at cookies at all.
    pub enabled: bool,
    /// The cookie's exact name.
    pub name: String,
    /// Origins besides the request's own from which a cookie may authorise unsafe requests.
    pub allowed_origins: Vec<String>,
}
