//! Where requests are forwarded to.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use pingora::protocols::ALPN;
use pingora::upstreams::peer::{HttpPeer, PeerOptions};

use crate::config;
use crate::config::upstream::{Protocol, UpstreamUrl};

/// How often a request is tried at most. pingora counts attempts, and a request that was sent may not
/// be sent again.
pub const ATTEMPTS: usize = 2;

/// How often a host name is resolved again.
const RESOLVE_EVERY: Duration = Duration::from_secs(10);

/// The application: a peer made ready once, and kept current if its address can change.
pub struct UpstreamPeer {
    peer: ArcSwapOption<HttpPeer>,
    config: config::Upstream,
}

/// The upstream cannot be used as configured.
#[derive(Debug, thiserror::Error)]
#[error("upstream.url: {0}")]
pub struct InvalidUpstream(String);

impl UpstreamPeer {
    /// Returns the application as configured; a host name is resolved by [`run`](Self::run).
    pub fn new(config: &config::Upstream) -> Result<Self, InvalidUpstream> {
        let upstream = Self { peer: ArcSwapOption::empty(), config: config.clone() };
        match &config.url {
            None => {}
            Some(UpstreamUrl::Unix(path)) => upstream.peer.store(Some(Arc::new(unix_peer(path, config)?))),
            Some(UpstreamUrl::Tcp { host, port, tls }) => {
                if let Ok(address) = host.parse() {
                    let peer = tcp_peer(SocketAddr::new(address, *port), host, *tls, config);
                    upstream.peer.store(Some(Arc::new(peer)));
                }
            }
        }
        Ok(upstream)
    }

    /// Returns whether there is an application at all.
    pub fn exists(&self) -> bool {
        self.config.url.is_some()
    }

    /// Returns the peer to forward to; `None` while its name does not resolve.
    pub fn peer(&self) -> Option<Box<HttpPeer>> {
        self.peer.load().as_deref().cloned().map(Box::new)
    }

    /// Returns the peer if it speaks HTTP/1 and nothing else.
    pub fn http1_peer(&self) -> Option<Arc<HttpPeer>> {
        self.peer.load_full().filter(|peer| peer.options.alpn == ALPN::H1)
    }

    /// Keeps a host name resolved until the runtime ends.
    pub async fn run(&self) {
        let Some(UpstreamUrl::Tcp { host, port, tls }) = &self.config.url else { return };
        if host.parse::<std::net::IpAddr>().is_ok() {
            return;
        }
        let mut every = tokio::time::interval(RESOLVE_EVERY);
        let mut current = None;
        loop {
            every.tick().await;
            match tokio::net::lookup_host((host.as_str(), *port)).await.map(|mut found| found.next()) {
                Ok(Some(address)) if current != Some(address) => {
                    current = Some(address);
                    self.peer.store(Some(Arc::new(tcp_peer(address, host, *tls, &self.config))));
                }
                Ok(Some(_)) => {}
                // The last address that worked is a better guess than none.
                Ok(None) | Err(_) => tracing::warn!(upstream.host = %host, "UpstreamPeer host does not resolve"),
            }
        }
    }
}

fn unix_peer(path: &Path, config: &config::Upstream) -> Result<HttpPeer, InvalidUpstream> {
    let path = path.to_str().ok_or_else(|| InvalidUpstream("the socket's path is not UTF-8".to_owned()))?;
    let mut peer = HttpPeer::new_uds(path, false, String::new()).map_err(|error| InvalidUpstream(error.to_string()))?;
    set_options(&mut peer.options, config, false);
    Ok(peer)
}

fn tcp_peer(address: SocketAddr, host: &str, tls: bool, config: &config::Upstream) -> HttpPeer {
    let name = config.server_name.clone().unwrap_or_else(|| host.to_owned());
    let mut peer = HttpPeer::new(address, tls, name);
    set_options(&mut peer.options, config, tls);
    peer
}

fn set_options(options: &mut PeerOptions, config: &config::Upstream, tls: bool) {
    options.connection_timeout = Some(config.connect_timeout);
    options.total_connection_timeout = Some(config.connect_timeout);
    options.read_timeout = Some(config.read_timeout);
    options.write_timeout = Some(config.write_timeout);
    options.idle_timeout = Some(config.idle_timeout);
    options.alpn = match config.protocol {
        Protocol::Auto if tls => ALPN::H2H1,
        Protocol::Auto | Protocol::Http1 => ALPN::H1,
        Protocol::Http2 => ALPN::H2,
    };
    options.max_h2_streams = 128;
}
