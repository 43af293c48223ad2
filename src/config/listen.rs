//! Addresses and TLS of what Doorward listens on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use super::read::{FromKeys, FromTree, Notes, SectionKeys, TreePlace};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// `host:port`, the host being an IP address.
    Tcp(SocketAddr),
    /// `unix:/path`.
    Unix(PathBuf),
}

/// The admin listener: probes and metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    /// `host:port`.
    pub listen: SocketAddr,
}

impl FromKeys for Admin {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { listen: keys.take("listen") }
    }
}

/// A certificate and its key, reread when the files change.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// PEM file with the certificate chain, leaf first.
    pub cert: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

impl FromKeys for Tls {
    fn from_keys(keys: &mut SectionKeys<'_>) -> Self {
        Self { cert: keys.take("cert"), key: keys.take("key") }
    }
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err("needs an absolute path after \"unix:\""),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| "is not an address; write e.g. \"0.0.0.0:8080\" or \"unix:/run/doorward.sock\""),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(formatter),
            Self::Unix(path) => write!(formatter, "unix:{}", path.display()),
        }
    }
}

impl FromTree for Address {
    fn from_tree(place: TreePlace<'_>, notes: &mut Notes) -> Self {
        place.parsed(notes, || Self::Tcp(SocketAddr::from(([127, 0, 0, 1], 0))))
    }
}
