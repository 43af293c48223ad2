//! The proxy port: pingora's server around the gateway.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use pingora::apps::HttpServerOptions;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::http::v2::server::default_h2_options;
use pingora::proxy::HttpProxy;
use pingora::server::configuration::ServerConf;
use pingora::server::{ListenFds, Server, ShutdownWatch};
use pingora::services::Service as Run;
use pingora::services::listening::Service;
use socket2::{Domain, Socket, Type};

use super::{ServeError, Shared, serve_error, tls};
use crate::config::{Address, Config};
use crate::proxy::connection::Edge;
use crate::proxy::forward::upstream::ATTEMPTS;
use crate::proxy::gateway::Gateway;

/// Bytes of a TLS connection read at once. pingora's 64 KiB would be held by every idle connection.
/// In clear, the edge reads ahead itself.
const TLS_READ_BUFFER: usize = 8 * 1024;
/// Head and a small body leave in one write.
const WRITE_BUFFER: usize = 4 * 1024;

/// Connections that may wait to be accepted; the system's own limit (`somaxconn`) may be lower.
const BACKLOG: i32 = 4096;

/// A service whose socket listens before pingora starts: pingora panics when it cannot bind, and
/// does not report when it could. Connections that come meanwhile wait in the socket.
struct Bound {
    service: Service<Edge>,
    socket: Option<(String, OwnedFd)>,
}

#[async_trait]
impl Run for Bound {
    async fn start_service(&mut self, fds: Option<ListenFds>, shutdown: ShutdownWatch, listeners_per_fd: usize) {
        if let (Some(fds), Some((name, socket))) = (&fds, self.socket.take()) {
            fds.lock().add(name, socket.into_raw_fd());
        }
        self.service.start_service(fds, shutdown, listeners_per_fd).await;
    }

    fn name(&self) -> &str {
        self.service.name()
    }
}

pub(super) fn pingora_server(
    config: &Config,
    gateway: Gateway,
    certificates: Option<Arc<tls::Certificates>>,
    shared: &Shared,
) -> Result<Server, ServeError> {
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
    server.add_service(Bound { service, socket: Some(bind(&config.listen)?) });
    Ok(server)
}

/// Refuses a machine without authorities to trust: pingora loads them for every connector, whether
/// the application speaks TLS or not, and panics when there are none.
pub(super) fn check_authorities(config: &Config) -> Result<(), ServeError> {
    if config.upstream.ca.is_some() {
        return Ok(());
    }
    let what = "upstream.ca is not set, and the system's authorities (SSL_CERT_FILE, SSL_CERT_DIR) cannot be loaded";
    pingora::tls::load_native_certs().map(drop).map_err(|error| serve_error(what, &error))
}

fn listener(config: &Config, certificates: Option<Arc<tls::Certificates>>) -> Result<ListenerConfig, ServeError> {
    let listener = match &config.listen {
        Address::Tcp(address) => ListenerConfig::tcp(address.to_string()),
        Address::Unix(path) => ListenerConfig::uds(unix_path(path)?),
    };
    let read_buffer = if certificates.is_some() { TLS_READ_BUFFER } else { 0 };
    let listener = listener.l4_buffer(L4BufferSettings::new(read_buffer, WRITE_BUFFER));
    Ok(match certificates {
        Some(certificates) => listener.tls(tls::settings(certificates).map_err(ServeError)?),
        None => listener,
    })
}

// Under the name that pingora looks for it.
fn bind(address: &Address) -> Result<(String, OwnedFd), ServeError> {
    let bound = match address {
        Address::Tcp(address) => bind_tcp(*address),
        Address::Unix(path) => bind_unix(path),
    };
    let socket = bound.map_err(|error| serve_error(&format!("listen: cannot listen on {address}"), &error))?;
    let name = match address {
        Address::Tcp(address) => address.to_string(),
        Address::Unix(path) => unix_path(path)?,
    };
    Ok((name, socket))
}

pub(super) fn bind_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let listener = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), None)?;
    // A restart must not wait for the last process's connections to be forgotten.
    listener.set_reuse_address(true)?;
    listener.bind(&address.into())?;
    listener.listen(BACKLOG)?;
    Ok(listener.into())
}

// A socket file outlives its process: one that no process listens on may go.
pub(super) fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    if path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()) {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener.into())
}

fn unix_path(path: &Path) -> Result<String, ServeError> {
    path.to_str().map(str::to_owned).ok_or_else(|| ServeError("listen: the socket's path is not UTF-8".to_owned()))
}

pub(super) fn server_conf(config: &Config) -> ServerConf {
    let workers = match config.limits.workers {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        workers => workers,
    };
    ServerConf {
        threads: workers,
        // With stealing, pingora tears some WebSockets down right after the 101 (cloudflare/pingora#946).
        work_stealing: false,
        // For each worker: pingora multiplies.
        upstream_keepalive_pool_size: config.upstream.pool_size,
        max_retries: ATTEMPTS,
        ca_file: config.upstream.ca.as_ref().map(|path| path.display().to_string()),
        // A ceiling: `drain::idle` ends the wait as soon as nothing is under way.
        grace_period_seconds: Some(config.lifecycle.drain_timeout.as_secs() + 1),
        graceful_shutdown_timeout_seconds: Some(1),
        ..ServerConf::default()
    }
}
