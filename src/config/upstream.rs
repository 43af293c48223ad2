//! The application behind Doorward.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::{duration, listen::from_text};

/// The application behind Doorward.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// `http://host:port`, `https://host:port` or `unix:/path`; nothing is forwarded when absent.
    pub url: Option<Target>,
    /// Which HTTP version to speak to it.
    pub protocol: Protocol,
    /// PEM file with the authorities to trust for `https`; the system's when absent.
    pub ca: Option<PathBuf>,
    /// The name to ask for and verify with `https`; the URL's host when absent.
    pub server_name: Option<String>,
    /// How long a connection attempt may take, TLS included.
    #[serde(deserialize_with = "duration::deserialize")]
    pub connect_timeout: Duration,
    /// How long the application may be silent in the middle of an exchange.
    #[serde(deserialize_with = "duration::deserialize")]
    pub read_timeout: Duration,
    /// How long a single write to the application may block.
    #[serde(deserialize_with = "duration::deserialize")]
    pub write_timeout: Duration,
    /// How long an unused connection is kept.
    #[serde(deserialize_with = "duration::deserialize")]
    pub idle_timeout: Duration,
    /// How many unused connections are kept per worker; keep it above peak concurrency.
    pub pool_size: usize,
}

/// Where the application is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// HTTP/1.1 in clear; over TLS whatever ALPN settles on.
    Auto,
    /// HTTP/1.1 only.
    Http1,
    /// HTTP/2 only; in clear this is h2c with prior knowledge. gRPC needs it.
    Http2,
}

impl<'de> Deserialize<'de> for Target {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        from_text(input)
    }
}

impl FromStr for Target {
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
