//! An HTTP/2 stream that pingora and the connection share while pingora carries an exchange on it.
//!
//! pingora waits for a slow application without looking at anything that could be made to fail,
//! and the stream would go with the exchange when that is dropped. A shared one stays, so that a
//! request whose session ended before it was answered can still be refused. All else passes
//! through: pingora sees the stream as it is. It does not look at the stream, though, while it
//! waits to pass a piece of the body on; until then its owner watches for a reset.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Context;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::Stream;
use http::HeaderMap;
use pingora::Result;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::protocols::Digest;
use pingora::protocols::http::HttpTask;
use pingora::protocols::http::custom::CustomMessageWrite;
use pingora::protocols::http::custom::server::Session;
use pingora::protocols::http::v2::server::HttpSession;
use pingora::protocols::l4::socket::SocketAddr;
use tokio::sync::{Mutex, MutexGuard};

/// What pingora has of a shared stream: what it looks at without waiting, and the rest by way of a lock.
pub(super) struct H2Handle {
    shared: Arc<Mutex<SharedStream>>,
    head: RequestHeader,
    written: Option<ResponseHeader>,
    digest: Option<Digest>,
}

/// What the owner has of it.
pub(super) struct H2Owner(Arc<Mutex<SharedStream>>);

struct SharedStream {
    stream: HttpSession,
    /// Set while pingora has a piece of the body that it may not have passed on yet.
    unwatched: bool,
}

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// Shares a stream between pingora and its owner.
pub(super) fn share(stream: HttpSession) -> (H2Handle, H2Owner) {
    let (head, digest) = (stream.req_header().clone(), stream.digest().cloned());
    let shared = Arc::new(Mutex::new(SharedStream { stream, unwatched: false }));
    (H2Handle { shared: shared.clone(), head, written: None, digest }, H2Owner(shared))
}

impl H2Owner {
    /// Returns whether the client has reset the stream where pingora would not see it, and arranges
    /// to be woken when it does. To be asked while pingora waits.
    pub(super) fn poll_reset(&self, context: &mut Context<'_>) -> bool {
        // A stream that is in use is looked at by its user.
        let Ok(mut shared) = self.0.try_lock() else { return false };
        shared.unwatched && Pin::new(&mut shared.stream.idle()).poll(context).is_ready()
    }

    /// Takes the stream back; `None` while pingora has it still.
    pub(super) fn into_stream(self) -> Option<HttpSession> {
        Some(Arc::into_inner(self.0)?.into_inner().stream)
    }
}

impl H2Handle {
    fn stream(&self) -> MutexGuard<'_, SharedStream> {
        self.shared.try_lock().expect("the owner looks at it only while pingora does nothing")
    }

    fn note_written(&mut self) {
        if self.written.is_none() {
            let written = self.stream().stream.response_written().cloned();
            self.written = written;
        }
    }
}

#[async_trait]
impl Session for H2Handle {
    fn req_header(&self) -> &RequestHeader {
        &self.head
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        &mut self.head
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.shared.lock().await.stream.read_body_bytes().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.shared.lock().await.stream.drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.stream().stream.write_response_header(head, end)?;
        self.note_written();
        Ok(())
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.stream().stream.write_response_header_ref(head, end)?;
        self.note_written();
        Ok(())
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.shared.lock().await.stream.write_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.stream().stream.write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        let done = self.shared.lock().await.stream.response_duplex_vec(tasks).await;
        self.note_written();
        done
    }

    // pingora knows no timeout for reading from an HTTP/2 stream.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.stream().stream.set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.stream().stream.get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.stream().stream.set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.stream().stream.get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.stream().stream.request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.written.as_ref()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.stream().stream.shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.stream().stream.is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.stream().stream.finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.stream().stream.is_body_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        let mut shared = self.shared.lock().await;
        shared.unwatched = false;
        let read = shared.stream.read_body_or_idle(no_body_expected).await;
        shared.unwatched = matches!(read, Ok(Some(_)));
        read
    }

    fn body_bytes_sent(&self) -> usize {
        self.stream().stream.body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.stream().stream.body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.digest.as_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.digest.as_ref()?.socket_digest.as_ref()?.peer_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.digest.as_ref()?.socket_digest.as_ref()?.local_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.stream().stream.pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.stream().stream.enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.stream().stream.retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.stream().stream.get_retry_buffer()
    }

    // HTTP/2 has no messages beside request and response.
    async fn finish_custom(&mut self) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_reader(&mut self) -> Option<Messages> {
        None
    }

    fn restore_custom_message_reader(&mut self, _: Messages) -> Result<()> {
        Ok(())
    }

    fn take_custom_message_writer(&mut self) -> Option<Box<dyn CustomMessageWrite>> {
        None
    }

    fn restore_custom_message_writer(&mut self, _: Box<dyn CustomMessageWrite>) -> Result<()> {
        Ok(())
    }
}
