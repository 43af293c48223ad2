//! What can be served and is probably not meant: told at start, never refused.

use std::path::Path;
use std::time::Duration;

use super::check::{all_issuers, speaks_tls};
use super::directory::DirectoryUrl;
use super::problem::{Finding, KeyPath};
use super::sessions::StoreUrl;
use super::{Config, OnUnavailable, RouteRule};
use crate::model::surface::{Reach, Surfaces};

/// How long a Cluster's answer may be kept: its publications are not ordered with its reads.
const CLUSTER_TTL_MAX: Duration = Duration::from_secs(5);
/// Networks larger than these are no proxies of one's own: 10.0.0.0/8 is the largest private one.
const WIDE_V4: u8 = 8;
const WIDE_V6: u8 = 16;
/// Kubernetes kills after this long unless told otherwise (`terminationGracePeriodSeconds`).
const GRACE_PERIOD: Duration = Duration::from_secs(30);

/// Returns what an operator should be told about a valid configuration.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut found = Vec::new();
    sessions(config, &mut found);
    directory(config, &mut found);
    issuers(config, &mut found);
    routes(&config.routes, &config.surfaces.mounts(), &mut found);
    forward_auth(config, &mut found);
    if config.outbox.alias.url.as_deref().is_some_and(goes_in_clear) {
        let message = "sends the project's key, and who is who, in clear";
        found.push(Finding::new(KeyPath::of("outbox.alias.url"), message));
    }
    let traces = &config.telemetry.traces;
    if traces.endpoint.as_deref().is_some_and(goes_in_clear) && !traces.headers.is_empty() {
        let message = "sends the collector's key in clear";
        found.push(Finding::new(KeyPath::of("telemetry.traces.endpoint"), message));
    }
    let told = config.lifecycle.termination_grace.is_some();
    if !told && config.lifecycle.drain_delay + config.lifecycle.drain_timeout > GRACE_PERIOD {
        let message = "together with drain_delay this is longer than the 30 s that Kubernetes waits by default; \
                       raise terminationGracePeriodSeconds and say so in termination_grace";
        found.push(Finding::new(KeyPath::of("lifecycle.drain_timeout"), message));
    }
    found
}

fn sessions(config: &Config, found: &mut Vec<Finding>) {
    let sessions = &config.sessions;
    if sessions.on_unavailable == OnUnavailable::ServeStale {
        let stale = humantime::format_duration(sessions.max_stale);
        let message = format!(
            "while the store is away, a session revoked elsewhere is accepted for up to {stale} beyond the lease"
        );
        found.push(Finding::new(KeyPath::of("sessions.on_unavailable"), message));
    }
    if matches!(sessions.store, StoreUrl::Cluster(_)) && sessions.cache.max_ttl > CLUSTER_TTL_MAX {
        let message = "is cut to 5s: on a Redis Cluster a lost revocation message is noticed only when a cached \
                       answer ends";
        found.push(Finding::new(KeyPath::of("sessions.cache.max_ttl"), message));
    }
    let in_memory = |path: &Path| ["/tmp", "/dev/shm", "/run"].iter().any(|place| path.starts_with(place));
    match &sessions.store {
        StoreUrl::Sqlite(path) if in_memory(path) => {
            let message = "is in a place that may be emptied at a restart, and every session with it";
            found.push(Finding::new(KeyPath::of("sessions.store"), message));
        }
        store @ (StoreUrl::Redis(_) | StoreUrl::Sentinel { .. } | StoreUrl::Cluster(_))
            if sessions.redis.password.is_some() && !speaks_tls(store) =>
        {
            let message = "sends the password and every session in clear; rediss:// encrypts";
            found.push(Finding::new(KeyPath::of("sessions.store"), message));
        }
        _ => {}
    }
    if sessions.revocation.lease < 2 * sessions.revocation.heartbeat {
        let message = "is less than two heartbeats: a single late one makes this replica refuse everybody for a moment";
        found.push(Finding::new(KeyPath::of("sessions.revocation.lease"), message));
    }
}

fn directory(config: &Config, found: &mut Vec<Finding>) {
    let shared = !matches!(config.sessions.store, StoreUrl::Sqlite(_));
    if shared && matches!(config.directory.url, DirectoryUrl::Sqlite(_)) {
        let message = "is a file of this replica alone: what one replica remembers of devices, users and deliveries, \
                       the others do not know; postgres:// serves several";
        found.push(Finding::new(KeyPath::of("directory.url"), message));
    }
}

fn issuers(config: &Config, found: &mut Vec<Finding>) {
    if config.clerk.is_none() && config.issuers.is_empty() {
        let message = "no issuer is configured: no JWT can be exchanged, only guests get sessions";
        found.push(Finding::new(KeyPath::of("clerk"), message));
    }
    for (at, issuer) in all_issuers(config) {
        if issuer.authorized_parties.is_empty() {
            let message = "is empty: a JWT that the issuer made for any other application is accepted too";
            found.push(Finding::new(at.key("authorized_parties"), message));
        }
        if issuer.jwks_url.as_deref().is_some_and(goes_in_clear) {
            let message = "fetches keys in clear: an attacker who changes them on the way can sign in as any user";
            found.push(Finding::new(at.key("jwks_url"), message));
        }
    }
}

fn routes(routes: &[RouteRule], surfaces: &Surfaces, found: &mut Vec<Finding>) {
    for (index, rule) in routes.iter().enumerate() {
        if let Some(mount) = surfaces.owner(&rule.path) {
            let place = match mount.reach {
                Reach::Exact => &mount.path,
                Reach::Below => &format!("below {}", mount.path),
            };
            let message = format!("does nothing: Doorward itself answers {place}");
            found.push(Finding::new(KeyPath::of("routes").index(index).key("path"), message));
        }
    }
    let catches_all = |rule: &RouteRule| rule.path == "/**" && rule.methods.is_empty();
    let Some(last) = routes.iter().position(catches_all) else { return };
    for (index, rule) in routes.iter().enumerate().skip(last + 1) {
        let message = format!("{} is never reached: routes[{last}] matches everything before it", rule.id_at(index));
        found.push(Finding::new(KeyPath::of("routes").index(index), message));
    }
}

fn forward_auth(config: &Config, found: &mut Vec<Finding>) {
    if !config.forward_auth.is_on() {
        if config.upstream.url.is_none() {
            let message = "is null, and forward_auth is off: there is nothing to guard";
            found.push(Finding::new(KeyPath::of("upstream.url"), message));
        }
        return;
    }
    for (index, network) in config.trusted_proxies.iter().enumerate() {
        let wide = if network.addr().is_ipv4() { WIDE_V4 } else { WIDE_V6 };
        if network.prefix_len() < wide {
            let message =
                "is very wide: every machine in it may ask whose a token is, and be believed about the request";
            found.push(Finding::new(KeyPath::of("trusted_proxies").index(index), message));
        }
    }
    for (index, rule) in config.routes.iter().enumerate().filter(|(_, rule)| rule.stream) {
        let message =
            format!("{}: a stream that another proxy forwards is not cut when its session ends", rule.id_at(index));
        found.push(Finding::new(KeyPath::of("routes").index(index).key("stream"), message));
    }
}

fn goes_in_clear(url: &str) -> bool {
    url.starts_with("http://") && !is_local(url)
}

fn is_local(url: &str) -> bool {
    let host = url.parse::<http::Uri>().ok().and_then(|uri| uri.host().map(str::to_owned)).unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Auth;
    use crate::model::Dialect;
    use crate::model::surface::{Mount, SurfaceId};

    fn warned(surfaces: &Surfaces, path: &str) -> Option<String> {
        let rule = RouteRule {
            id: None,
            path: path.to_owned(),
            methods: Vec::new(),
            auth: Auth::None,
            allow_anonymous: true,
            require_any_role: Vec::new(),
            stream: false,
            keep_credentials: false,
            errors: Dialect::Detail,
        };
        let mut found = Vec::new();
        routes(&[rule], surfaces, &mut found);
        found.pop().map(|finding| finding.message)
    }

    #[test]
    fn a_rule_for_what_doorward_answers_itself_is_warned_of_wherever_that_is() {
        let surfaces = Config::load(&[], &std::collections::BTreeMap::new()).unwrap().config.surfaces.mounts();
        for mount in surfaces.mounts() {
            let told = warned(&surfaces, &mount.path).unwrap();
            assert!(told.starts_with("does nothing: Doorward itself answers"), "{told}");
            assert!(told.ends_with(&mount.path), "{told}");
        }
        for path in ["/auth/**", "/auth/x/*", "/_doorward/**", "/webhooks/clerk"] {
            assert!(warned(&surfaces, path).is_some(), "{path}");
        }
        for path in ["/**", "/*", "/authors", "/webhooks/clerk/**", "/webhooks/*"] {
            assert_eq!(warned(&surfaces, path), None, "{path}");
        }
    }

    #[test]
    fn a_surface_that_is_added_is_warned_of_too() {
        let surfaces = Surfaces::new(vec![Mount::below(SurfaceId::Example, "/example")]);
        assert_eq!(
            warned(&surfaces, "/example/**").as_deref(),
            Some("does nothing: Doorward itself answers below /example")
        );
        assert_eq!(warned(&surfaces, "/auth/**"), None, "nothing else is known of its own");
    }
}
