//! Reading ahead of pingora: what a connection does until a request begins.
//!
//! pingora's part of an exchange is some 20 KiB from before its first byte, and a read buffer of
//! its streams is held for as long as the connection lives. Most connections of most servers are
//! idle. So a connection waits here between requests, with pingora's part gone, and reads through
//! the stack: it holds a buffer only while there is something in it.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pingora::apps::ReusedHttpStream;
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::timeout;

use super::Connection;

/// Bytes read from a client at once, when whoever reads asks for fewer.
const PIECE: usize = 8 * 1024;
/// How long a connection may say nothing at all before its first byte.
const FIRST_BYTE: Duration = Duration::from_mins(1);
/// RFC 9113 §3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Returns the connection when its next request begins; nothing if none came in time, the client
/// went away, or the listener is closing.
pub(super) async fn next_request(reused: ReusedHttpStream, shutdown: &ShutdownWatch) -> Option<ReusedHttpStream> {
    let (stream, settings) = reused.consume();
    let mut connection = stream.into_any().downcast::<Connection>().ok()?;
    connection.header_deadline = None;
    if !connection.ahead.is_empty() {
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

impl Connection {
    /// Decides whether this is HTTP/2 in clear. Looks no further than the first byte that no
    /// HTTP/2 client sends: a whole HTTP/1.0 request may be shorter than the preface, and its
    /// client would wait for an answer in vain.
    pub(super) async fn look_for_http2(&mut self) -> io::Result<()> {
        timeout(FIRST_BYTE.max(self.header_timeout), self.begin())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        while self.ahead.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&self.ahead) {
            self.begin().await?;
        }
        self.http2 = self.ahead.starts_with(H2_PREFACE);
        Ok(())
    }

    /// Reads as the stream below would, but with as few calls to the system as one with a buffer.
    pub(super) fn poll_read_ahead(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() >= PIECE {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        let mut piece = [const { MaybeUninit::uninit() }; PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut piece))?;
        let (wanted, rest) = piece.filled().split_at(piece.filled().len().min(buffer.remaining()));
        buffer.put_slice(wanted);
        self.ahead.extend_from_slice(rest);
        Poll::Ready(Ok(()))
    }

    /// Puts what was read ahead into `buffer`; returns false if there is nothing.
    pub(super) fn take_ahead(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        if self.ahead.is_empty() {
            return false;
        }
        let length = self.ahead.len().min(buffer.remaining());
        buffer.put_slice(self.ahead.get(..length).unwrap_or_default());
        self.ahead.drain(..length);
        if self.ahead.is_empty() {
            self.ahead = Vec::new();
        }
        true
    }

    // Waits for more of a head, an end of the stream being an error.
    async fn begin(&mut self) -> io::Result<()> {
        poll_fn(|context| self.poll_begin(context)).await
    }

    fn poll_begin(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.ahead.len();
        let read = self.poll_read_ahead(context, &mut ReadBuf::new(&mut []));
        if read.is_pending() && self.head_is_late(context) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(read)?;
        let ended = self.ahead.len() == before;
        Poll::Ready(if ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    }
}
