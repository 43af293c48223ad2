//! Rules about listeners, the application, cookies, proxies in front, limits and life cycle.

use std::net::IpAddr;
use std::time::Duration;

use super::{duration_in, file_exists, is_token, web_host};
use crate::config::problem::{Finding, KeyPath};
use crate::config::upstream::UpstreamUrl;
use crate::config::{Address, Config, Cookie, Lifecycle, Limits, Upstream};

const MILLISECOND: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_hours(1);
/// What an exit takes at most after the drain: connections of `ext_authz` and then the last spans, and
/// deliveries of the outbox meanwhile (`server::serve`).
const EXIT: Duration = Duration::from_secs(3);

pub(super) fn check(config: &Config, found: &mut Vec<Finding>) {
    listeners(config, found);
    upstream(&config.upstream, &config.listen, found);
    cookie(&config.cookie, found);
    limits(&config.limits, found);
    lifecycle(&config.lifecycle, found);
    for (index, network) in config.trusted_proxies.iter().enumerate() {
        if network.prefix_len() == 0 {
            let key = KeyPath::of("trusted_proxies").index(index);
            found.push(Finding::new(key, "trusts every peer; name the networks of your proxies"));
        }
    }
}

fn listeners(config: &Config, found: &mut Vec<Finding>) {
    let admin = config.admin.listen;
    if let Address::Tcp(proxy) = config.listen
        && proxy.port() == admin.port()
        && admin.port() != 0
    {
        let finding = Finding::new(KeyPath::of("admin.listen"), "must have another port than listen");
        found.push(finding.resting_on("listen"));
    }
    if let Some(tls) = &config.tls {
        file_exists(KeyPath::of("tls.cert"), Some(&tls.cert), found);
        file_exists(KeyPath::of("tls.key"), Some(&tls.key), found);
    }
}

fn upstream(upstream: &Upstream, listen: &Address, found: &mut Vec<Finding>) {
    let speaks_tls = matches!(upstream.url, Some(UpstreamUrl::Tcp { tls: true, .. }));
    let options = [("upstream.ca", upstream.ca.is_some()), ("upstream.server_name", upstream.server_name.is_some())];
    for (key, _) in options.iter().filter(|(_, set)| *set && !speaks_tls) {
        let finding = Finding::new(KeyPath::of(key), "needs an upstream.url that begins with https://");
        found.push(finding.resting_on("upstream.url"));
    }
    file_exists(KeyPath::of("upstream.ca"), upstream.ca.as_deref(), found);
    if let Some(UpstreamUrl::Tcp { host, port, .. }) = &upstream.url {
        if host.is_empty() {
            found.push(Finding::new(KeyPath::of("upstream.url"), "has no host"));
        }
        if is_ourselves(listen, host, *port) {
            let finding = Finding::new(KeyPath::of("upstream.url"), "is where Doorward itself listens");
            found.push(finding.resting_on("listen"));
        }
    }
    for (key, value) in [
        ("upstream.connect_timeout", upstream.connect_timeout),
        ("upstream.read_timeout", upstream.read_timeout),
        ("upstream.write_timeout", upstream.write_timeout),
        ("upstream.idle_timeout", upstream.idle_timeout),
    ] {
        duration_in(key, value, MILLISECOND..=24 * HOUR, found);
    }
}

fn is_ourselves(listen: &Address, host: &str, port: u16) -> bool {
    let Address::Tcp(own) = listen else { return false };
    let host: Option<IpAddr> = if host == "localhost" { Some([127, 0, 0, 1].into()) } else { host.parse().ok() };
    let same_host = |host: IpAddr| host == own.ip() || (own.ip().is_unspecified() && host.is_loopback());
    own.port() == port && host.is_some_and(same_host)
}

fn cookie(cookie: &Cookie, found: &mut Vec<Finding>) {
    if !is_token(&cookie.name) {
        let expected = "must be a cookie name: letters, digits and !#$%&'*+-.^_`|~";
        found.push(Finding::new(KeyPath::of("cookie.name"), expected));
    }
    for (index, origin) in cookie.allowed_origins.iter().enumerate() {
        let after_scheme = origin.split_once("://").map_or("", |(_, rest)| rest);
        if web_host(origin).is_none() || after_scheme.contains(['/', '?', '#']) {
            let key = KeyPath::of("cookie.allowed_origins").index(index);
            found.push(Finding::new(key, "must be an origin, e.g. \"https://app.example.com\""));
        }
    }
}

fn limits(limits: &Limits, found: &mut Vec<Finding>) {
    if limits.max_connections == 0 {
        found.push(Finding::new(KeyPath::of("limits.max_connections"), "must be at least 1"));
    }
    if limits.workers > 1024 {
        found.push(Finding::new(KeyPath::of("limits.workers"), "must be at most 1024"));
    }
    if !(1024..=1_048_576).contains(&limits.header_bytes_max) {
        found.push(Finding::new(KeyPath::of("limits.header_bytes_max"), "must be from 1024 to 1048576"));
    }
    for (key, value) in [
        ("limits.header_timeout", limits.header_timeout),
        ("limits.body_read_timeout", limits.body_read_timeout),
        ("limits.keepalive", limits.keepalive),
    ] {
        duration_in(key, value, MILLISECOND..=24 * HOUR, found);
    }
}

fn lifecycle(lifecycle: &Lifecycle, found: &mut Vec<Finding>) {
    duration_in("lifecycle.drain_delay", lifecycle.drain_delay, Duration::ZERO..=HOUR, found);
    duration_in("lifecycle.drain_timeout", lifecycle.drain_timeout, Duration::ZERO..=HOUR, found);
    if let Some(grace) = lifecycle.termination_grace
        && lifecycle.drain_delay + lifecycle.drain_timeout + EXIT >= grace
    {
        let message = "must be longer than drain_delay, drain_timeout and 3s together, or the process is killed \
                       before it has drained";
        let finding = Finding::new(KeyPath::of("lifecycle.termination_grace"), message);
        found.push(finding.resting_on("lifecycle.drain_delay").resting_on("lifecycle.drain_timeout"));
    }
    duration_in("lifecycle.reload_interval", lifecycle.reload_interval, 10 * MILLISECOND..=HOUR, found);
}
