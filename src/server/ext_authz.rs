//! The port where Envoy asks, on the background runtime.
//!
//! It listens before the server is ready, and is closed when the proxy port is: what is under way
//! is finished, and Envoy is told to ask elsewhere (GOAWAY).

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::{Stream, stream};
use pingora::server::ExecutionPhase;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, UnixListener};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::listener::{bind_tcp, bind_unix};
use super::worker::Worker;
use super::{ServeError, drain, serve_error};
use crate::config::{Address, Config};
use crate::proxy::forward_auth::grpc::{ExtAuthzService, PeerFilter};
use crate::proxy::forwarded::Peer;
use crate::proxy::gateway::Gateway;

/// Checks under way on one connection; Envoy opens another one beyond.
const CHECKS_MAX: u32 = 1024;
/// How often a silent peer is pinged, and how long its answer may take.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long connections may take to close once nothing is under way.
const FINISH: Duration = Duration::from_millis(500);
/// How long to wait after a connection could not be accepted, for want of file descriptors mostly.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// The port, if there is one.
pub(super) struct ExtAuthz(Option<Worker>);

enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Socket for S {}

/// An accepted connection, which counts toward `limits.max_connections` of this port until it is dropped.
struct ExtAuthzConnection {
    socket: Box<dyn Socket>,
    peer: Peer,
    _permit: OwnedSemaphorePermit,
}

impl ExtAuthz {
    /// Opens the port, if there is to be one.
    pub(super) fn start(background: &Handle, config: &Config, gateway: &Gateway) -> Result<Self, ServeError> {
        let Some(address) = &config.forward_auth.grpc else { return Ok(Self(None)) };
        let _inside = background.enter();
        let listener = Listener::bind(address);
        let listener =
            listener.map_err(|error| serve_error(&format!("forward_auth.grpc: cannot listen on {address}"), &error))?;
        let permits = Arc::new(Semaphore::new(config.limits.max_connections.min(Semaphore::MAX_PERMITS)));
        let mut server = Server::builder()
            .max_concurrent_streams(CHECKS_MAX)
            .http2_max_header_list_size(u32::try_from(config.limits.header_bytes_max).unwrap_or(u32::MAX))
            .http2_keepalive_interval(Some(PING_EVERY))
            .http2_keepalive_timeout(Some(PING_TIMEOUT));
        let server = server.add_service(ExtAuthzService::server(gateway.state.clone()));
        let incoming = connections(listener, permits, PeerFilter::new(gateway.state.clone()));
        let worker = Worker::start(background, FINISH, |mut stopped| async move {
            let told_to_stop = async move {
                // The sender is gone only with the server.
                let _ = stopped.wait_for(|stop| *stop).await;
            };
            if let Err(error) = server.serve_with_incoming_shutdown(incoming, told_to_stop).await {
                tracing::error!(error = %error, "Listener for ext_authz failed");
            }
        });
        tracing::info!(listen = %address, "Serving ext_authz");
        Ok(Self(Some(worker)))
    }

    /// Ends the port as soon as the proxy port is closed.
    pub(super) fn end_with(&self, background: &Handle, phases: broadcast::Receiver<ExecutionPhase>) {
        let Some(stop) = self.0.as_ref().map(Worker::stopper) else { return };
        background.spawn(async move {
            drain::listener_closed(phases).await;
            stop.send_replace(true);
        });
    }

    /// Lets connections close, within bounds.
    pub(super) async fn end(self) {
        if let Some(worker) = self.0 {
            // A peer that keeps its connection open was sent GOAWAY.
            worker.end().await;
        }
    }
}

impl Listener {
    fn bind(address: &Address) -> io::Result<Self> {
        Ok(match address {
            Address::Tcp(address) => Self::Tcp(TcpListener::from_std(bind_tcp(*address)?.into())?),
            Address::Unix(path) => Self::Unix(UnixListener::from_std(bind_unix(path)?.into())?),
        })
    }

    async fn accept(&self) -> io::Result<(Box<dyn Socket>, Peer)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                socket.set_nodelay(true)?;
                let peer: IpAddr = peer.ip().to_canonical();
                Ok((Box::new(socket), Peer::Address(peer)))
            }
            Self::Unix(listener) => Ok((Box::new(listener.accept().await?.0), Peer::Socket)),
        }
    }
}

fn connections(
    listener: Listener,
    permits: Arc<Semaphore>,
    filter: PeerFilter,
) -> impl Stream<Item = io::Result<ExtAuthzConnection>> {
    stream::unfold((listener, permits, filter), |(listener, permits, filter)| async move {
        loop {
            match listener.accept().await {
                // Untrusted peers are dropped before they take a permit, so that idle ones cannot exhaust the limit.
                Ok((_, peer)) if !filter.admits(peer) => {}
                Ok((socket, peer)) => {
                    // The semaphore is never closed.
                    let permit = permits.clone().acquire_owned().await.ok()?;
                    return Some((
                        Ok(ExtAuthzConnection { socket, peer, _permit: permit }),
                        (listener, permits, filter),
                    ));
                }
                Err(error) => {
                    tracing::warn!(error = %error, "Cannot accept a connection for ext_authz");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    })
}

impl Connected for ExtAuthzConnection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer
    }
}

impl AsyncRead for ExtAuthzConnection {
    fn poll_read(mut self: Pin<&mut Self>, task: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_read(task, into)
    }
}

impl AsyncWrite for ExtAuthzConnection {
    fn poll_write(mut self: Pin<&mut Self>, task: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.socket).poll_write(task, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_flush(task)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, task: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.socket).poll_shutdown(task)
    }
}
