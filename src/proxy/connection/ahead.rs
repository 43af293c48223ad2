//! Reading ahead of pingora: what a connection does until a request begins.
//!
//! pingora's part of an exchange is some 20 KiB from before its first byte, and a read buffer of
//! its streams is held for as long as the connection lives. Most connections of most servers are
//! idle. So a connection waits here between requests, with pingora's part gone, and reads through
//! the stack: it holds a buffer only while there is something in it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pingora::protocols::Stream;
use tokio::io::{AsyncRead, ReadBuf};

/// Bytes read from a client at once, when fewer are asked for.
const PIECE: usize = 8 * 1024;

/// A stream, and what was read from it and not asked for yet.
#[derive(Debug)]
pub(super) struct ReadAhead {
    inner: Stream,
    ahead: Vec<u8>,
}

impl ReadAhead {
    /// Returns the stream with nothing read.
    pub(super) fn new(inner: Stream) -> Self {
        Self { inner, ahead: Vec::new() }
    }

    /// Returns what was read and not asked for yet.
    pub(super) fn ahead(&self) -> &[u8] {
        &self.ahead
    }

    /// Returns the stream below.
    pub(super) fn inner(&self) -> &Stream {
        &self.inner
    }

    /// Returns the stream below: for writing, since reading from it would overtake what was read.
    pub(super) fn inner_mut(&mut self) -> &mut Stream {
        &mut self.inner
    }

    /// Reads as the stream below would, but with as few calls to the system as one with a buffer.
    pub(super) fn poll_read(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.take(buffer) {
            return Poll::Ready(Ok(()));
        }
        if buffer.remaining() >= PIECE {
            return Pin::new(&mut self.inner).poll_read(context, buffer);
        }
        self.poll_piece(context, buffer)
    }

    /// Reads more, to be asked for later. An end of the stream is an error.
    pub(super) fn poll_more(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.ahead.len();
        ready!(self.poll_piece(context, &mut ReadBuf::new(&mut [])))?;
        let ended = self.ahead.len() == before;
        Poll::Ready(if ended { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) })
    }

    fn poll_piece(&mut self, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut piece = [const { MaybeUninit::uninit() }; PIECE];
        let mut piece = ReadBuf::uninit(&mut piece);
        ready!(Pin::new(&mut self.inner).poll_read(context, &mut piece))?;
        let (wanted, rest) = piece.filled().split_at(piece.filled().len().min(buffer.remaining()));
        buffer.put_slice(wanted);
        self.ahead.extend_from_slice(rest);
        Poll::Ready(Ok(()))
    }

    // Puts what was read ahead into `buffer`; returns false if there is nothing.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
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
}
