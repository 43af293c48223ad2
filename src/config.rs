//! What an operator may set. `conf/default.yaml` is embedded and holds every default.
//!
//! These types are the parsed form: what has been through here needs no second check.

pub mod bootstrap;
pub mod directory;
pub mod forward_auth;
pub mod issuer;
pub mod lifecycle;
pub mod limits;
pub mod listen;
pub mod load;
pub mod outbox;
pub mod parts;
pub mod problem;
pub mod rebind;
pub mod routes;
mod secret_digest;
pub mod sessions;
pub mod surfaces;
pub mod telemetry;
pub mod upstream;
pub mod webhooks;

mod check;
mod layers;
mod otel;
mod read;
mod redact;
mod risk;
#[cfg(test)]
pub(crate) mod tests;
mod values;

use std::collections::BTreeMap;

use ipnet::IpNet;

pub use bootstrap::Bootstrap;
pub use directory::Directory;
pub use forward_auth::ForwardAuth;
pub use issuer::Issuer;
pub use lifecycle::Lifecycle;
pub use limits::Limits;
pub use listen::{Address, Admin, Tls};
pub use load::Loaded;
pub use outbox::Outbox;
pub use parts::{Fixed, Parts, Reloadable, SecretDigests};
pub use problem::{Problem, Problems, Warning};
pub use rebind::Rebind;
pub use routes::{Auth, IdentityHeaders, RouteRule};
pub use secret_digest::SecretDigest;
pub use sessions::{OnUnavailable, Sessions};
pub use surfaces::SurfacesSection;
pub use telemetry::Telemetry;
pub use upstream::Upstream;
pub use webhooks::Webhooks;

use self::read::{FromKeys, SectionKeys};
use crate::model::TenantId;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq)]
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
    /// Who may report users and logins that ended.
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

impl FromKeys for Config {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            listen: keys.take("listen"),
            tls: keys.take("tls"),
            admin: keys.take("admin"),
            upstream: keys.take("upstream"),
            sessions: keys.take("sessions"),
            directory: keys.take("directory"),
            outbox: keys.take("outbox"),
            bootstrap: keys.take("bootstrap"),
            rebind: keys.take("rebind"),
            clerk: keys.take("clerk"),
            issuers: keys.take("issuers"),
            tenants: keys.take("tenants"),
            webhooks: keys.take("webhooks"),
            surfaces: keys.take("surfaces"),
            routes: keys.take("routes"),
            identity_headers: keys.take("identity_headers"),
            cookie: keys.take("cookie"),
            trusted_proxies: keys.take("trusted_proxies"),
            forward_auth: keys.take("forward_auth"),
            limits: keys.take("limits"),
            lifecycle: keys.take("lifecycle"),
            telemetry: keys.take("telemetry"),
        }
    }
}

/// Which tenant a session falls into.
#[derive(Clone, Debug, PartialEq)]
pub struct Tenants {
    /// The tenant of sessions whose provider names none; becomes `X-Client-ID`.
    pub default: TenantId,
}

impl FromKeys for Tenants {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { default: keys.take("default") }
    }
}

/// The cookie that may carry a token.
#[derive(Clone, Debug, PartialEq)]
pub struct Cookie {
    /// Whether the guard looks at cookies at all.
    pub enabled: bool,
    /// The cookie's exact name.
    pub name: String,
    /// Origins besides the request's own from which a cookie may authorise unsafe requests.
    pub allowed_origins: Vec<String>,
}

impl FromKeys for Cookie {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { enabled: keys.take("enabled"), name: keys.take("name"), allowed_origins: keys.take("allowed_origins") }
    }
}
