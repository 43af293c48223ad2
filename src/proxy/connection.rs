//! What stands between the listener and pingora's HTTP proxy: limits per connection, and the cut.
//!
//! pingora has no deadline for a whole request head and a fixed 1 MiB limit for its size
//! (cloudflare/pingora#447), and no way to end an exchange from outside. Both are done here, by
//! wrapping each accepted stream and each exchange's future.

mod ahead;
mod h2;
mod limits;
pub mod session_watch;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, HttpSession};
use pingora::proxy::HttpProxy;
use pingora::server::ShutdownWatch;

use self::h2::share;
pub(super) use self::limits::mark_exchange;
use self::limits::{LimitedStream, OpenConnection};
use self::session_watch::SessionWatch;
use super::gateway::Gateway;
use super::respond;
use crate::config::Limits;
use crate::metrics::Metrics;

/// After the session's end, how long an exchange has to answer 401 before it is dropped.
const FINAL_RESPONSE_TIMEOUT: Duration = Duration::from_millis(500);

/// Accepts connections for the proxy.
pub struct Edge {
    exchanges: Arc<Exchanges>,
    session_watch: Arc<SessionWatch>,
    limits: Limits,
    open: Arc<AtomicUsize>,
    metrics: Arc<Metrics>,
}

/// Runs exchanges, each so that it can be cut.
pub struct Exchanges {
    proxy: Arc<HttpProxy<Gateway>>,
    session_watch: Arc<SessionWatch>,
}

impl Edge {
    /// Returns the listener's application.
    pub fn new(
        proxy: HttpProxy<Gateway>,
        session_watch: Arc<SessionWatch>,
        limits: Limits,
        metrics: Arc<Metrics>,
    ) -> Self {
        let exchanges = Arc::new(Exchanges { proxy: Arc::new(proxy), session_watch: session_watch.clone() });
        Self { exchanges, session_watch, limits, open: Arc::new(AtomicUsize::new(0)), metrics }
    }
}

#[async_trait]
impl ServerApp for Edge {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let open = OpenConnection::new(self.open.clone(), self.metrics.downstream_connections.clone());
        if self.open.load(Ordering::SeqCst) > self.limits.max_connections {
            return None;
        }
        let connection = Box::new(LimitedStream::new(stream, self.session_watch.register(), &self.limits, open));
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
        // What did not come through `process_new` cannot be cut.
        let watch = LimitedStream::of(&session)?.watch().clone();
        let exchange = watch.clone().carry(self.proxy.process_new_http(session, shutdown));
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
        limits::next_request(outcome?, shutdown).await
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
    // dropped at once, even while it waits, and a refusal that it could not send is sent here.
    async fn carry_stream(&self, stream: HttpSession, shutdown: &ShutdownWatch) {
        let registration = self.session_watch.register();
        let watch = registration.watch();
        let (handle, owner) = share(stream);
        let session = ServerSession::new_custom(Box::new(handle));
        tokio::select! {
            biased;
            _ = watch.clone().carry(self.proxy.process_new_http(session, shutdown)) => return,
            () = watch.ended() => {}
            () = poll_fn(|context| if owner.poll_reset(context) { Poll::Ready(()) } else { Poll::Pending }) => return,
        }
        // The exchange is gone by now, and has stored its refusal unless it had begun to answer.
        // Dropping a stream whose answer is not complete resets it.
        if let (Some((refusal, dialect, request_id)), Some(mut stream)) = (watch.pending_refusal(), owner.into_stream())
        {
            let refuse = respond::refuse_stream(&mut stream, refusal, dialect, request_id);
            // The client may be gone already: then the refusal reaches no one, which is fine.
            let _ = tokio::time::timeout(FINAL_RESPONSE_TIMEOUT, refuse).await;
        }
    }
}
