//! The application behind Doorward.

use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};
use crate::outgoing::{UpstreamAddress, UpstreamTls, Versions};

/// The application behind Doorward.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// `http://host:port`, `https://host:port` or `unix:/path`; nothing is forwarded when absent.
    pub url: Option<UpstreamUrl>,
    /// Which HTTP version to speak to it.
    pub protocol: Protocol,
    /// PEM file with the authorities to trust for `https`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// The name to ask for and verify with `https`; the URL's host when absent.
    pub server_name: Option<String>,
    /// How long a connection attempt may take, TLS included.
    pub connect_timeout: Duration,
    /// How long the application may be silent in the middle of an exchange.
    pub read_timeout: Duration,
    /// How long a single write to the application may block.
    pub write_timeout: Duration,
    /// How long an unused connection is kept.
    pub idle_timeout: Duration,
    /// What follows when the application also listens beyond loopback.
    pub exposed: Exposed,
    /// How many unused connections are kept per worker; keep it above peak concurrency.
    pub pool_size: usize,
}

impl FromKeys for Upstream {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self {
            url: keys.take("url"),
            protocol: keys.take("protocol"),
            ca: keys.take("ca"),
            server_name: keys.take("server_name"),
            connect_timeout: keys.take("connect_timeout"),
            read_timeout: keys.take("read_timeout"),
            write_timeout: keys.take("write_timeout"),
            idle_timeout: keys.take("idle_timeout"),
            exposed: keys.take("exposed"),
            pool_size: keys.take("pool_size"),
        }
    }
}

/// Where the application is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UpstreamUrl {
    /// A TCP address, resolved when a connection is made.
    Tcp {
        /// Host name or IP address (without brackets).
        host: String,
        /// Port.
        port: u16,
        /// Whether to speak TLS.
        tls: bool,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// Which HTTP version to speak to the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1 in clear; over TLS what ALPN settles on.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in clear this is h2c with prior knowledge. gRPC needs it.
    Http2,
}

impl FromTree for Protocol {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("auto", Self::Auto), ("http1", Self::Http1), ("http2", Self::Http2)];
        place.one_of(notes, &words, Self::Auto)
    }
}

/// What follows when the application can be reached without Doorward.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposed {
    /// A line in the log and a metric.
    Warn,
    /// As `Warn`, and `/readyz` fails, also while the check cannot be made.
    Unready,
    /// Nothing: the check is not made.
    Ignore,
}

impl FromTree for Exposed {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        let words = [("warn", Self::Warn), ("unready", Self::Unready), ("ignore", Self::Ignore)];
        place.one_of(notes, &words, Self::Warn)
    }
}

impl Upstream {
    /// Returns where Doorward's own requests to the application go; none without `url`.
    pub fn address(&self) -> Option<UpstreamAddress<'_>> {
        Some(match self.url.as_ref()? {
            UpstreamUrl::Unix(path) => UpstreamAddress::Unix(path),
            UpstreamUrl::Tcp { host, port, tls } => {
                let names = UpstreamTls { ca: self.ca.as_deref(), server_name: self.server_name.as_deref() };
                UpstreamAddress::Tcp { host, port: *port, tls: tls.then_some(names) }
            }
        })
    }

    /// Returns which versions of HTTP those requests speak: the same as forwarded ones.
    pub fn versions(&self) -> Versions {
        match self.protocol {
            Protocol::Auto => Versions::Negotiated,
            Protocol::Http1 => Versions::Http1,
            Protocol::Http2 => Versions::Http2,
        }
    }
}

impl UpstreamUrl {
    /// Returns the port if the application is asked on loopback by TCP.
    pub fn loopback_port(&self) -> Option<u16> {
        let Self::Tcp { host, port, .. } = self else { return None };
        let is_loopback = host == "localhost" || host.parse().is_ok_and(|host: IpAddr| host.is_loopback());
        is_loopback.then_some(*port)
    }
}

impl FromTree for UpstreamUrl {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || Self::Unix(PathBuf::new()))
    }
}

impl FromStr for UpstreamUrl {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "is not an upstream; write e.g. \"http://127.0.0.1:3000\" or \"unix:/run/app.sock\"";
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(EXPECTED) };
        }
        let uri: http::Uri = text.parse().map_err(|_| EXPECTED)?;
        let tls = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(EXPECTED),
        };
        let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or(EXPECTED)?;
        if uri.path_and_query().is_some_and(|path| path != "/") {
            return Err("must not have a path: requests are forwarded under the path they came with");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        Ok(Self::Tcp { host, port: authority.port_u16().unwrap_or(if tls { 443 } else { 80 }), tls })
    }
}
