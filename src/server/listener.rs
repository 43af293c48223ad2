//! The proxy port: pingora's server around the gateway.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use pingora::apps::HttpServerOptions;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::Server;
use pingora::server::configuration::ServerConf;
use pingora::services::listening::Service;
use tokio::net::{TcpStream, UnixStream};

use super::{Shared, StartError, start_error, tls};
use crate::config::{Address, Config};
use crate::proxy::edge::Edge;
use crate::proxy::{ATTEMPTS, Gateway};

/// Bytes read from a client at once. pingora's 64 KiB would be held by every idle connection.
const READ_BUFFER: usize = 8 * 1024;
/// Head and a small body leave in one write.
const WRITE_BUFFER: usize = 16 * 1024;

pub(super) fn pingora_server(
    config: &Config,
    gateway: Gateway,
    certificates: Option<Arc<tls::Certificates>>,
    shared: &Shared,
) -> Result<Server, StartError> {
    let mut server = Server::new_with_opt_and_conf(None, server_conf(config));
    server.bootstrap();
    let mut proxy = HttpProxy::new(gateway, server.configuration.clone());
    proxy.handle_init_modules();
    let mut options = HttpServerOptions::default();
    options.h2c = config.limits.h2c;
    proxy.server_options = Some(options);
    let mut http2 = default_h2_options();
    http2.max_header_list_size(u32::try_from(config.limits.header_bytes_max).unwrap_or(u32::MAX));
    proxy.h2_options = Some(http2);
    let edge = Edge::new(proxy, shared.streams.clone(), config.limits.clone(), shared.metrics.clone());
    let mut service = Service::new("edge".to_owned(), edge);
    service.add_listener(listener(config, certificates)?);
    server.add_service(service);
    Ok(server)
}

/// Returns whether connections to the proxy port are accepted.
pub(super) async fn is_open(address: &Address) -> bool {
    match address {
        Address::Tcp(address) => TcpStream::connect(address).await.is_ok(),
        Address::Unix(path) => UnixStream::connect(path).await.is_ok(),
    }
}

fn listener(config: &Config, certificates: Option<Arc<tls::Certificates>>) -> Result<ListenerConfig, StartError> {
    let listener = match &config.listen {
        Address::Tcp(address) => {
            // pingora panics when it cannot bind; find out first, where it can be said in words.
            probe_address(*address)?;
            ListenerConfig::tcp(address.to_string())
        }
        Address::Unix(path) => ListenerConfig::uds(unix_path(path)?),
    };
    let listener = listener.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER));
    Ok(match certificates {
        Some(certificates) => listener.tls(tls::settings(certificates).map_err(StartError)?),
        None => listener,
    })
}

fn probe_address(address: SocketAddr) -> Result<(), StartError> {
    let probe = std::net::TcpListener::bind(address);
    probe.map(drop).map_err(|error| start_error(&format!("listen: cannot listen on {address}"), &error))
}

fn unix_path(path: &Path) -> Result<String, StartError> {
    path.to_str().map(str::to_owned).ok_or_else(|| StartError("listen: the socket's path is not UTF-8".to_owned()))
}

fn server_conf(config: &Config) -> ServerConf {
    let workers = match config.limits.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    ServerConf {
        threads: workers,
        // With stealing, pingora tears some WebSockets down right after the 101 (cloudflare/pingora#946).
        work_stealing: false,
        upstream_keepalive_pool_size: config.upstream.pool_size * workers,
        max_retries: ATTEMPTS,
        ca_file: config.upstream.ca.as_ref().map(|path| path.display().to_string()),
        // A ceiling: `drain::idle` ends the wait as soon as nothing is under way.
        grace_period_seconds: Some(config.lifecycle.drain_timeout.as_secs() + 1),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}
