//! An HTTP/2 stream that pingora has on loan while it carries an exchange.
//!
//! pingora waits for a slow application without looking at anything that could be made to fail,
//! and the stream would go with the exchange when that is dropped. A lent one comes back instead,
//! so that a request whose session ended while nobody had answered it can still be refused.
//! Everything else passes through: pingora sees the stream as it is.

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
use tokio::sync::oneshot;

/// A stream on loan.
pub(super) struct Lent {
    /// Only the end of the loan takes it.
    stream: Option<HttpSession>,
    home: Option<oneshot::Sender<HttpSession>>,
}

type Messages = Box<dyn Stream<Item = Result<Bytes>> + Unpin + Send + Sync + 'static>;

/// Lends a stream; the receiver has it back as soon as the loan is dropped.
pub(super) fn lend(stream: HttpSession) -> (Lent, oneshot::Receiver<HttpSession>) {
    let (home, returned) = oneshot::channel();
    (Lent { stream: Some(stream), home: Some(home) }, returned)
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(stream), Some(home)) = (self.stream.take(), self.home.take()) {
            // A lender that is gone has no use for it: it is reset, unless it was answered.
            let _ = home.send(stream);
        }
    }
}

impl Lent {
    fn stream(&self) -> &HttpSession {
        self.stream.as_ref().expect("only drop takes it")
    }

    fn stream_mut(&mut self) -> &mut HttpSession {
        self.stream.as_mut().expect("only drop takes it")
    }
}

#[async_trait]
impl Session for Lent {
    fn req_header(&self) -> &RequestHeader {
        self.stream().req_header()
    }

    fn req_header_mut(&mut self) -> &mut RequestHeader {
        self.stream_mut().req_header_mut()
    }

    async fn read_body_bytes(&mut self) -> Result<Option<Bytes>> {
        self.stream_mut().read_body_bytes().await
    }

    async fn drain_request_body(&mut self) -> Result<()> {
        self.stream_mut().drain_request_body().await
    }

    async fn write_response_header(&mut self, head: Box<ResponseHeader>, end: bool) -> Result<()> {
        self.stream_mut().write_response_header(head, end)
    }

    async fn write_response_header_ref(&mut self, head: &ResponseHeader, end: bool) -> Result<()> {
        self.stream_mut().write_response_header_ref(head, end)
    }

    async fn write_body(&mut self, data: Bytes, end: bool) -> Result<()> {
        self.stream_mut().write_body(data, end).await
    }

    async fn write_trailers(&mut self, trailers: HeaderMap) -> Result<()> {
        self.stream_mut().write_trailers(trailers)
    }

    async fn response_duplex_vec(&mut self, tasks: Vec<HttpTask>) -> Result<bool> {
        self.stream_mut().response_duplex_vec(tasks).await
    }

    // pingora knows no timeout for reading from an HTTP/2 stream.
    fn set_read_timeout(&mut self, _: Option<Duration>) {}

    fn get_read_timeout(&self) -> Option<Duration> {
        None
    }

    fn set_write_timeout(&mut self, timeout: Option<Duration>) {
        self.stream_mut().set_write_timeout(timeout);
    }

    fn get_write_timeout(&self) -> Option<Duration> {
        self.stream().get_write_timeout()
    }

    fn set_total_drain_timeout(&mut self, timeout: Option<Duration>) {
        self.stream_mut().set_total_drain_timeout(timeout);
    }

    fn get_total_drain_timeout(&self) -> Option<Duration> {
        self.stream().get_total_drain_timeout()
    }

    fn request_summary(&self) -> String {
        self.stream().request_summary()
    }

    fn response_written(&self) -> Option<&ResponseHeader> {
        self.stream().response_written()
    }

    async fn shutdown(&mut self, _: u32, _: &str) {
        self.stream_mut().shutdown();
    }

    fn is_body_done(&mut self) -> bool {
        self.stream().is_body_done()
    }

    async fn finish(&mut self) -> Result<()> {
        self.stream_mut().finish()
    }

    fn is_body_empty(&mut self) -> bool {
        self.stream().is_body_empty()
    }

    async fn read_body_or_idle(&mut self, no_body_expected: bool) -> Result<Option<Bytes>> {
        self.stream_mut().read_body_or_idle(no_body_expected).await
    }

    fn body_bytes_sent(&self) -> usize {
        self.stream().body_bytes_sent()
    }

    fn body_bytes_read(&self) -> usize {
        self.stream().body_bytes_read()
    }

    fn digest(&self) -> Option<&Digest> {
        self.stream().digest()
    }

    fn digest_mut(&mut self) -> Option<&mut Digest> {
        self.stream_mut().digest_mut()
    }

    fn client_addr(&self) -> Option<&SocketAddr> {
        self.stream().client_addr()
    }

    fn server_addr(&self) -> Option<&SocketAddr> {
        self.stream().server_addr()
    }

    fn pseudo_raw_h1_request_header(&self) -> Bytes {
        self.stream().pseudo_raw_h1_request_header()
    }

    fn enable_retry_buffering(&mut self) {
        self.stream_mut().enable_retry_buffering();
    }

    fn retry_buffer_truncated(&self) -> bool {
        self.stream().retry_buffer_truncated()
    }

    fn get_retry_buffer(&self) -> Option<Bytes> {
        self.stream().get_retry_buffer()
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
