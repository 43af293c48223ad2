//! An accepted stream under limits: how long and how large a request's head may be, how many
//! connections there may be, and the reads that fail once the session has ended.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::ReusedHttpStream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, timeout};

use super::ahead::ReadAhead;
use super::session_watch::{Registration, Watch};
use crate::config::Limits;

/// How long a connection may say nothing at all before its first byte.
const FIRST_BYTE: Duration = Duration::from_mins(1);
/// RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// An accepted stream under limits.
#[derive(Debug)]
pub(super) struct LimitedStream {
    stream: ReadAhead,
    registration: Registration,
    header_timeout: Duration,
    header_bytes_max: usize,
    keepalive: Duration,
    /// Set while an exchange is under way: its reads are body, not head.
    in_exchange: AtomicBool,
    header_bytes: AtomicUsize,
    header_deadline: Option<Pin<Box<Sleep>>>,
    http2: bool,
    /// Set while what was written may still be in a buffer of ours.
    unflushed: bool,
    _open: OpenConnection,
}

/// Counts a connection in, and out again when it is dropped.
#[derive(Debug)]
pub(super) struct OpenConnection {
    open: Arc<AtomicUsize>,
    gauge: prometheus::IntGauge,
}

/// Returns the connection when its next request begins; nothing if none came in time, the client
/// went away, or the listener is closing.
pub(super) async fn next_request(reused: ReusedHttpStream, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
    let (stream, settings) = reused.consume();
    let mut connection = stream.into_any().downcast::<LimitedStream>().ok()?;
    connection.header_deadline = None;
    if !connection.stream.ahead().is_empty() {
        return Some(ReusedHttpStream::new(connection, settings));
    }
    let mut shutdown = shutdown.clone();
    let began = tokio::select! {
        // A request that is here already is served.
        biased;
        began = timeout(connection.keepalive, connection.begin()) => matches!(began, Ok(Ok(()))),
        _ = shutdown.wait_for(|closing| *closing) => false,
    };
    began.then(|| ReusedHttpStream::new(connection, settings))
}

/// Tells the connection whether what it reads next belongs to an exchange or is a new head.
pub(in crate::proxy) fn mark_exchange(session: &ServerSession, in_exchange: bool) {
    if let Some(connection) = LimitedStream::of(session) {
        connection.in_exchange.store(in_exchange, Ordering::Relaxed);
        connection.header_bytes.store(0, Ordering::Relaxed);
    }
}

impl OpenConnection {
    /// Counts one more among `open` and in `gauge`.
    pub(super) fn new(open: Arc<AtomicUsize>, gauge: prometheus::IntGauge) -> Self {
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

impl LimitedStream {
    /// Puts an accepted stream under `limits`.
    pub(super) fn new(stream: Stream, registration: Registration, limits: &Limits, open: OpenConnection) -> Self {
        Self {
            http2: matches!(stream.selected_alpn_proto(), Some(ALPN::H2)),
            stream: ReadAhead::new(stream),
            registration,
            header_timeout: limits.header_timeout,
            header_bytes_max: limits.header_bytes_max,
            keepalive: limits.keepalive,
            in_exchange: AtomicBool::new(false),
            header_bytes: AtomicUsize::new(0),
            header_deadline: None,
            unflushed: false,
            _open: open,
        }
    }

    /// Returns the connection of an HTTP/1 session, if it came through here.
    pub(super) fn of(session: &ServerSession) -> Option<&Self> {
        session.stream()?.as_any().downcast_ref::<Self>()
    }

    /// Returns what cuts its exchanges.
    pub(super) fn watch(&self) -> &Arc<Watch> {
        self.registration.watch()
    }

    // Decides whether this is HTTP/2 in clear. Looks no further than the first byte that no HTTP/2
    // client sends: a whole HTTP/1.0 request may be shorter than the preface, and its client would
    // wait for an answer in vain.
    async fn look_for_http2(&mut self) -> io::Result<()> {
        timeout(FIRST_BYTE.max(self.header_timeout), self.begin())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        while self.stream.ahead().len() < H2_PREFACE.len() && H2_PREFACE.starts_with(self.stream.ahead()) {
            self.begin().await?;
        }
        self.http2 = self.stream.ahead().starts_with(H2_PREFACE);
        Ok(())
    }

    // Waits for more of a head, an end of the stream being an error.
    async fn begin(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_begin(context)).await
    }

    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let more = self.stream.poll_more(context);
        if more.is_pending() && self.head_is_late(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        more
    }

    // Arms no timer for the common case, a head that comes in one read.
    fn head_is_late(&mut self, context: &mut Context<'_>) -> bool {
        if self.header_bytes.load(Ordering::Relaxed) == 0 && self.stream.ahead().is_empty() {
            return false;
        }
        let timeout = self.header_timeout;
        let deadline = self.header_deadline.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        deadline.as_mut().poll(context).is_ready()
    }

    fn poll_flush_inner(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(self.stream.inner_mut()).poll_flush(context))?;
        self.unflushed = false;
        Poll::Ready(Ok(()))
    }

    fn head_is_too_large(&self, filled: &[u8]) -> bool {
        let before = self.header_bytes.fetch_add(filled.len(), Ordering::Relaxed);
        before + filled.len() > self.header_bytes_max
    }
}

impl AsyncRead for LimitedStream {
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
        let read = this.stream.poll_read(context, buffer);
        if read.is_pending() && in_head && this.head_is_late(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        if read.is_pending() && !in_head && this.unflushed {
            // pingora flushes an answer of known length at its end only. Now that it waits, the
            // client must have what there is; an error shows at the next write.
            let _ = this.poll_flush_inner(context);
        }
        ready!(read)?;
        if in_head && this.head_is_too_large(buffer.filled().get(already..).unwrap_or_default()) {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "request head too large")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LimitedStream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(self.stream.inner_mut()).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_flush_inner(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.stream.inner_mut()).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.unflushed = true;
        Pin::new(self.stream.inner_mut()).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.inner().is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for LimitedStream {
    async fn shutdown(&mut self) {
        self.stream.inner_mut().shutdown().await;
    }
}

#[async_trait]
impl Peek for LimitedStream {
    // pingora's own would wait for all 24 bytes of an HTTP/2 preface, however long they take.
    async fn try_peek(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        self.look_for_http2().await?;
        for (into, from) in buffer.iter_mut().zip(self.stream.ahead()) {
            *into = *from;
        }
        Ok(true)
    }
}

impl UniqueID for LimitedStream {
    fn id(&self) -> UniqueIDType {
        self.stream.inner().id()
    }
}

impl Ssl for LimitedStream {
    fn get_ssl_digest(&self) -> Option<Arc<pingora::protocols::tls::SslDigest>> {
        self.stream.inner().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.inner().selected_alpn_proto()
    }
}

impl GetTimingDigest for LimitedStream {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.inner().get_timing_digest()
    }
}

impl GetProxyDigest for LimitedStream {
    fn get_proxy_digest(&self) -> Option<Arc<pingora::protocols::raw_connect::ProxyDigest>> {
        self.stream.inner().get_proxy_digest()
    }
}

impl GetSocketDigest for LimitedStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.inner().get_socket_digest()
    }
}
