//! What stands between the listener and pingora's HTTP proxy: limits per connection, and the cut.
//!
//! pingora has no deadline for a whole request head and a fixed 1 MiB limit for its size
//! (cloudflare/pingora#447), and no way to end an exchange from outside. Both are done here, by
//! wrapping each accepted stream and each exchange's future.

mod ahead;
mod h2;
pub mod session_watch;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, HttpSession};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;

use self::h2::share;
use self::session_watch::{Registration, SessionWatch, Watch};
use super::{Gateway, respond};
use crate::config::Limits;
use crate::metrics::Metrics;

/// After the session's end, how long an exchange has to answer 401 before it is dropped.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

tokio::task_local! {
    /// The watch of the exchange that the current task carries.
    static SLOT: Arc<Watch>;
}

/// Accepts connections for the proxy.
pub struct Edge {
    exchanges: Arc<Exchanges>,
    streams: Arc<SessionWatch>,
    limits: Limits,
    open: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// Runs exchanges, each so that it can be cut.
pub struct Exchanges {
    proxy: Arc<HttpProxy<Gateway>>,
    streams: Arc<SessionWatch>,
}

/// An accepted stream under limits.
#[derive(Debug)]
struct Connection {
    inner: Stream,
    registration: Registration,
    header_timeout: Duration,
    header_bytes_max: usize,
    keepalive: Duration,
    /// Set while an exchange is under way: its reads are body, not head.
    in_exchange: AtomicBool,
    header_bytes: AtomicUsize,
    header_deadline: Option<Pin<Box<Sleep>>>,
    http2: bool,
    /// What was read and not asked for yet.
    ahead: Vec<u8>,
    /// Set while what was written may still be in a buffer of ours.
    unflushed: bool,
    _open: OpenConnection,
}

#[derive(Debug)]
struct OpenConnection {
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
}

impl Edge {
    /// Returns the listener's application.
    pub fn new(proxy: HttpProxy<Gateway>, streams: Arc<SessionWatch>, limits: Limits, metrics: Arc<Metrics>) -> Self {
        let exchanges = Arc::new(Exchanges { proxy: Arc::new(proxy), streams: streams.clone() });
        Self { exchanges, streams, limits, open: Arc::new(AtomicUsize::new(0)), metrics }
    }
}

#[async_trait]
impl ServerApp for Edge {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let open = OpenConnection::new(self.open.clone(), self.metrics.downstream_connections.clone());
        if self.open.load(Ordering::SeqCst) > self.limits.max_connections {
            return None;
        }
        let connection = Box::new(Connection {
            http2: matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
            inner: stream,
            registration: self.streams.register(),
            header_timeout: self.limits.header_timeout,
            header_bytes_max: self.limits.header_bytes_max,
            keepalive: self.limits.keepalive,
            in_exchange: AtomicBool::new(false),
            header_bytes: AtomicUsize::new(0),
            header_deadline: None,
            ahead: Vec::new(),
            unflushed: false,
            _open: open,
        });
        // In a task of its own: pingora's holds the 9 KiB of a TLS handshake until it ends.
        let (exchanges, shutdown) = (self.exchanges.clone(), shutdown.clone());
        tokio::spawn(async move { exchanges.process_new(connection, &shutdown).await });
        None
    }

    async fn cleanup(&self) {
        self.exchanges.http_cleanup().await;
    }
}

#[async_trait]
impl HttpServerApp for Exchanges {
    async fn process_new_http(
        self: &Arc<Self>,
        session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let session = match session {
            ServerSession::H2(stream) => {
                self.carry_stream(stream, shutdown).await;
                return None;
            }
            other => other,
        };
        let connection = session.stream().and_then(|stream| stream.as_any().downcast_ref::<Connection>());
        // What did not come through `process_new` cannot be cut.
        let watch = connection?.registration.watch().clone();
        let exchange = SLOT.scope(watch.clone(), self.proxy.process_new_http(session, shutdown));
        let cut = async {
            watch.ended().await;
            if !watch.is_answered() {
                tokio::time::sleep(FINAL_RESPONSE_TIMEOUT).await;
            }
        };
        let outcome = tokio::select! {
            biased;
            reusable = exchange => reusable,
            () = cut => None,
        };
        ahead::next_request(outcome?, shutdown).await
    }

    fn h2_options(&self) -> Option<H2Options> {
        self.proxy.h2_options()
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        self.proxy.server_options()
    }

    async fn http_cleanup(&self) {
        self.proxy.http_cleanup().await;
    }
}

impl Exchanges {
    // Nothing that pingora waits for on an HTTP/2 stream can be made to fail. So the exchange is
    // dropped at once, whatever it waits for, and what it left unsaid is said here.
    async fn carry_stream(&self, stream: HttpSession, shutdown: &ShutdownWatch) {
        let registration = self.streams.register();
        let watch = registration.watch();
        let (handle, owner) = share(stream);
        let session = ServerSession::new_custom(Box::new(handle));
        tokio::select! {
            biased;
            _ = SLOT.scope(watch.clone(), self.proxy.process_new_http(session, shutdown)) => return,
            () = watch.ended() => {}
            () = poll_fn(|context| if owner.poll_reset(context) { Poll::Ready(()) } else { Poll::Pending }) => return,
        }
        // The exchange is gone by now, and has left its last words unless it had begun to answer.
        // Dropping a stream whose answer is not complete resets it.
        if let (Some((refusal, dialect, request_id)), Some(mut stream)) = (watch.pending_refusal(), owner.into_stream()) {
            let refuse = respond::refuse_stream(&mut stream, refusal, dialect, request_id);
            // The client may be gone already; there is nobody left to tell.
            let _ = tokio::time::timeout(FINAL_RESPONSE_TIMEOUT, refuse).await;
        }
    }
}

/// Returns the watch of the exchange that the current task carries.
pub(super) fn current_slot() -> Option<Arc<Watch>> {
    SLOT.try_with(Arc::clone).ok()
}

/// Tells the connection whether what it reads next belongs to an exchange or is a new head.
pub(super) fn mark_exchange(session: &ServerSession, in_exchange: bool) {
    let connection = session.stream().and_then(|stream| stream.as_any().downcast_ref::<Connection>());
    if let Some(connection) = connection {
        connection.in_exchange.store(in_exchange, Ordering::Relaxed);
        connection.header_bytes.store(0, Ordering::Relaxed);
    }
}

impl OpenConnection {
    fn new(open: Arc<AtomicUsize>, gauge: prometheus::IntGauge) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        gauge.inc();
        Self { open, gauge }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
        self.gauge.dec();
    }
}

impl Connection {
    // Arms no timer for the common case, a head that comes in one read.
    fn head_is_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.header_bytes.load(Ordering::Relaxed) == 0 && self.ahead.is_empty() {
            return false;
        }
        let timeout = self.header_timeout;
        let deadline = self.header_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(context).is_ready()
    }

    fn poll_flush_inner(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn head_is_too_large(&self, filled: &[u8]) -> bool {
        let before = self.header_bytes.fetch_add(filled.len(), Ordering::Relaxed);
        before + filled.len() > self.header_bytes_max
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.registration.watch().poll_ended(context) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the session ended")));
        }
        let already = buffer.filled().len();
        let in_head = !this.http2 && !this.in_exchange.load(Ordering::Relaxed);
        if !this.take_ahead(buffer) {
            let read = this.poll_read_ahead(context, buffer);
            if read.is_pending() && in_head && this.head_is_late(context) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            if read.is_pending() && !in_head && this.unflushed {
                // pingora flushes an answer of known length at its end only. Now that it waits,
                // the client must have what there is; an error shows at the next write.
                let _ = this.poll_flush_inner(context);
            }
            ready!(read)?;
        }
        if in_head && this.head_is_too_large(buffer.filled().get(already..).unwrap_or_default()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "request head too large")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_inner(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Connection {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

#[async_trait]
impl Peek for Connection {
    // pingora's own would wait for all 24 bytes of an HTTP/2 preface, however long they take.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.look_for_http2().await?;
        for (into, from) in buffer.iter_mut().zip(&self.ahead) {
            *into = *from;
        }
        Ok(true)
    }
}

impl UniqueID for Connection {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Connection {
    fn get_ssl_digest(&self) -> Option<Arc<pingora::protocols::tls::SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Connection {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }
}

impl GetProxyDigest for Connection {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        self.inner.get_proxy_digest()
    }
}

impl GetSocketDigest for Connection {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }
}
