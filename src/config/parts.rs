//! A configuration taken apart by what it takes to change it while a process runs.
//!
//! A section that holds a secret says in its own file which key that is (`apart`). Here and there every key is named:
//! a new one does not compile until it has been given its place.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use super::secret_digest::SecretDigest;
use super::sessions::{Cache, Redis, Revocation, StoreUrl};
use super::telemetry::{Format, Level, Traces};
use super::{
    Address, Admin, Bootstrap, Config, Cookie, Directory, ForwardAuth, IdentityHeaders, Issuer, Lifecycle, Limits,
    OnUnavailable, Outbox, Rebind, RouteRule, Sessions, SurfacesSection, Telemetry, Tenants, Tls, Upstream, Webhooks,
};

/// A configuration by what it takes to change it.
pub struct Parts {
    /// What a running process takes up as soon as it has been read.
    pub reloadable: Reloadable,
    /// What is replaced where it is in use, after all of it was checked.
    pub secrets: SecretDigests,
    /// What changes only with a restart.
    pub fixed: Fixed,
}

/// What a running process takes up as soon as it has been read.
#[derive(Clone, Debug, PartialEq)]
pub struct Reloadable {
    /// What a path needs.
    pub routes: Vec<RouteRule>,
    /// Which identity headers go upstream.
    pub identity_headers: IdentityHeaders,
    /// The cookie that may carry a token.
    pub cookie: Cookie,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether `/_doorward/verify` answers.
    pub forward_auth: bool,
    /// The least severe level that is written.
    pub log_level: Level,
    /// Which share of successful exchanges is logged.
    pub access_log_sample: f64,
}

/// The secrets that have keys of their own, as digests: they tell whether one has changed, and nothing else.
///
/// A password inside a URL is part of the URL, which is [`Fixed`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretDigests {
    /// The MAC keys, and the prefix of the tokens that they sign.
    pub token_keys: SecretDigest,
    /// The password for Redis.
    pub redis_password: SecretDigest,
    /// What the file with the authorities for Redis holds.
    pub redis_ca: SecretDigest,
    /// What the file with the client certificate for Redis holds.
    pub redis_client_cert: SecretDigest,
    /// What the file with that certificate's key holds.
    pub redis_client_key: SecretDigest,
    /// The password for the directory's database.
    pub directory_password: SecretDigest,
    /// The key of the outbox's sink.
    pub sink_key: SecretDigest,
    /// What the rebind hook is authorised with.
    pub hook_secret: SecretDigest,
    /// What webhooks are signed with.
    pub webhook_secrets: SecretDigest,
    /// Headers for the collector of traces.
    pub collector_headers: SecretDigest,
}

/// Declares [`Fixed`]: each field with its type, and with what the log calls it.
macro_rules! fixed {
    ($($field:ident: $type:ty, $name:literal;)*) => {
        /// What changes only with a restart, without the secrets that do not.
        pub struct Fixed {
            $($field: $type,)*
        }

        impl Fixed {
            /// Returns the names of what differs from `other`.
            pub fn differing(&self, other: &Self) -> Vec<&'static str> {
                let mut names = Vec::new();
                $(if self.$field != other.$field {
                    names.push($name);
                })*
                names
            }
        }
    };
}

fixed! {
    listen: Address, "listen";
    tls: Option<Tls>, "tls";
    admin: Admin, "admin";
    ext_authz: Option<Address>, "forward_auth.grpc";
    upstream: Upstream, "upstream";
    store: (StoreUrl, Redis), "sessions.store";
    own_token_key: Option<String>, "sessions.token";
    lifetime: (Duration, u32), "sessions.ttl";
    cache: Cache, "sessions.cache";
    revocation: Revocation, "sessions.revocation";
    outage: (OnUnavailable, Duration), "sessions.on_unavailable";
    directory: Directory, "directory";
    rebind: Rebind, "rebind";
    outbox: Outbox, "outbox";
    bootstrap: Bootstrap, "bootstrap";
    clerk: Option<Issuer>, "clerk";
    issuers: BTreeMap<String, Issuer>, "issuers";
    has_streams: bool, "routes (stream)";
    tenants: Tenants, "tenants";
    webhooks: Webhooks, "webhooks";
    limits: Limits, "limits";
    lifecycle: Lifecycle, "lifecycle";
    log_format: Format, "telemetry.log_format";
    audit_file: Option<PathBuf>, "telemetry.audit_file";
    traces: Traces, "telemetry.traces";
    surfaces: SurfacesSection, "surfaces";
}

impl Fixed {
    /// Returns which surfaces there are, and where.
    pub fn surfaces(&self) -> &SurfacesSection {
        &self.surfaces
    }
}

impl Config {
    /// Takes the configuration apart. Files that belong to a secret are read: one that cannot be is like an empty one.
    // With a key a line this would be two screens.
    #[rustfmt::skip]
    pub fn into_parts(self) -> Parts {
        let Self {
            listen, tls, admin, upstream, sessions, directory, outbox, bootstrap, rebind, clerk, issuers, tenants,
            webhooks, surfaces, routes, identity_headers, cookie, trusted_proxies, forward_auth, limits, lifecycle, telemetry,
        } = self;
        let ForwardAuth { enabled: forward_auth, grpc: ext_authz } = forward_auth;
        let Telemetry { log_level, log_format, access_log_sample, audit_file, traces } = telemetry;
        let Sessions {
            store, ttl, max_per_principal, token, on_unavailable, max_stale, cache, revocation, redis,
        } = sessions;
        let (own_token_key, token_keys) = token.apart();
        let (redis, [redis_password, redis_ca, redis_client_cert, redis_client_key]) = redis.apart();
        let (directory, directory_password) = directory.apart();
        let (outbox, sink_key) = outbox.apart();
        let (rebind, hook_secret) = rebind.apart();
        let (webhooks, webhook_secrets) = webhooks.apart();
        let collector_headers = traces.secrets();
        let has_streams = routes.iter().any(|rule| rule.stream);
        Parts {
            reloadable: Reloadable {
                routes, identity_headers, cookie, trusted_proxies, forward_auth, log_level, access_log_sample,
            },
            secrets: SecretDigests {
                token_keys, redis_password, redis_ca, redis_client_cert, redis_client_key, directory_password,
                sink_key, hook_secret, webhook_secrets, collector_headers,
            },
            fixed: Fixed {
                listen, tls, admin, ext_authz, upstream, store: (store, redis), own_token_key,
                lifetime: (ttl, max_per_principal), cache, revocation, outage: (on_unavailable, max_stale),
                directory, rebind, outbox, bootstrap, clerk, issuers, has_streams, tenants, webhooks, limits,
                lifecycle, log_format, audit_file, traces, surfaces,
            },
        }
    }
}

impl SecretDigests {
    /// Returns all of them.
    // As above.
    #[rustfmt::skip]
    pub fn all(&self) -> [&SecretDigest; 10] {
        let Self {
            token_keys, redis_password, redis_ca, redis_client_cert, redis_client_key, directory_password,
            sink_key, hook_secret, webhook_secrets, collector_headers,
        } = self;
        [
            token_keys, redis_password, redis_ca, redis_client_cert, redis_client_key, directory_password,
            sink_key, hook_secret, webhook_secrets, collector_headers,
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::read::secrets_of;
    use super::*;

    #[test]
    fn every_secret_that_the_types_can_hold_has_a_digest() {
        let parts = Config::load(&[], &BTreeMap::new()).unwrap().config.into_parts();
        for place in secrets_of::<Config>() {
            let place = place.to_string();
            let covers = |key: &str| place.strip_prefix(key).is_some_and(|rest| !rest.starts_with('_'));
            assert!(parts.secrets.all().iter().any(|secret| covers(secret.key)), "{place}");
        }
    }
}
