//! How a client reaches the application: the address that requests are forwarded to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use reqwest::ClientBuilder;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Where the application listens.
#[derive(Clone, Copy, Debug)]
pub enum UpstreamAddress<'a> {
    /// On a unix socket.
    Unix(&'a Path),
    /// On a port.
    Tcp {
        /// Host name or IP address, without brackets.
        host: &'a str,
        /// Port.
        port: u16,
        /// How its certificate is checked; absent when it is asked in clear.
        tls: Option<UpstreamTls<'a>>,
    },
}

/// How the application's certificate is checked.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamTls<'a> {
    /// PEM file with the authorities to trust; the system's when absent.
    pub ca: Option<&'a Path>,
    /// The name that the certificate must have; the host's own when absent.
    pub server_name: Option<&'a str>,
}

/// Finds one host under every name: a name that is only for the certificate has no address.
struct FixedHost(Arc<str>);

impl UpstreamAddress<'_> {
    /// Returns the URL of the application's root, under the name that its certificate must have.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Unix(_) => "http://localhost".to_owned(),
            Self::Tcp { host, port, tls } => {
                let scheme = if tls.is_some() { "https" } else { "http" };
                let name = tls.and_then(|tls| tls.server_name).unwrap_or(host);
                if name.contains(':') {
                    format!("{scheme}://[{name}]:{port}")
                } else {
                    format!("{scheme}://{name}:{port}")
                }
            }
        }
    }

    /// Returns the PEM file with the authorities to trust, if there is one.
    pub(super) fn ca(&self) -> Option<&Path> {
        match self {
            Self::Unix(_) => None,
            Self::Tcp { tls, .. } => tls.and_then(|tls| tls.ca),
        }
    }

    /// Makes the client connect to this address under every name that its URL may have.
    pub(super) fn reached_by(&self, builder: ClientBuilder) -> ClientBuilder {
        match self {
            Self::Unix(socket) => builder.unix_socket(*socket),
            Self::Tcp { host, tls: Some(UpstreamTls { server_name: Some(_), .. }), .. } => {
                builder.dns_resolver(FixedHost((*host).into()))
            }
            Self::Tcp { .. } => builder,
        }
    }
}

impl Resolve for FixedHost {
    fn resolve(&self, _: Name) -> Resolving {
        let host = self.0.clone();
        Box::pin(async move {
            // The port is the URL's.
            let found: Vec<SocketAddr> = tokio::net::lookup_host((&*host, 0)).await?.collect();
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}
