//! Unused connections to the application, ready for the next request.
//!
//! pingora's own pool starts a task for each connection that it takes back and asks the system for
//! its address before it gives it out again: a tenth of what a request costs. Here a thread keeps
//! the connections that it used, newest first, and one task looks after all of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use pingora::connectors::{ConnectorOptions, TransportConnector};
use pingora::protocols::Stream;
use pingora::protocols::http::v1::client::HttpSession;
use pingora::server::configuration::ServerConf;
use pingora::upstreams::peer::{HttpPeer, Peer};
use thread_local::ThreadLocal;
use tokio::io::AsyncReadExt;
use tokio::time::Instant;

/// How often unused connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// Connections to one application.
pub(super) struct Pool {
    connector: TransportConnector,
    threads: ThreadLocal<Arc<ThreadPool>>,
    capacity: usize,
}

/// One thread's connections.
#[derive(Default)]
struct ThreadPool(Mutex<IdleConnections>);

#[derive(Default)]
struct IdleConnections {
    idle: Vec<Idle>,
    /// Set while a task sweeps this pool.
    swept: bool,
}

struct Idle {
    stream: Stream,
    /// Where it leads: a host name may come to mean another address.
    peer: Arc<HttpPeer>,
    since: Instant,
}

impl Pool {
    /// Returns an empty pool that keeps as many connections a thread as `server` says.
    pub(super) fn new(server: &ServerConf) -> Self {
        let connector = TransportConnector::new(Some(ConnectorOptions::from_server_conf(server)));
        Self { connector, threads: ThreadLocal::new(), capacity: server.upstream_keepalive_pool_size }
    }

    /// Returns a connection to `peer`, and whether it was used before.
    pub(super) async fn connect(&self, peer: &Arc<HttpPeer>) -> pingora::Result<(HttpSession, bool)> {
        if let Some(stream) = self.own().take(peer) {
            return Ok((HttpSession::new_with_options(stream, peer.as_ref()), true));
        }
        // Boxed, for it is rare and large.
        let stream = Box::pin(self.connector.new_stream(peer.as_ref())).await.map_err(|mut error| {
            error.set_retry(true);
            error
        })?;
        Ok((HttpSession::new_with_options(stream, peer.as_ref()), false))
    }

    /// Takes a connection back, if its last answer lets it be used again.
    pub(super) async fn release(&self, mut upstream: HttpSession, peer: &Arc<HttpPeer>) {
        upstream.respect_keepalive();
        let Some(stream) = upstream.reuse().await else { return };
        let place = self.own();
        let idle = Idle { stream, peer: peer.clone(), since: Instant::now() };
        if place.put(idle, self.capacity) {
            tokio::spawn(place.clone().sweep());
        }
    }

    fn own(&self) -> &Arc<ThreadPool> {
        self.threads.get_or_default()
    }
}

impl ThreadPool {
    fn take(&self, peer: &Arc<HttpPeer>) -> Option<Stream> {
        let mut kept = self.lock();
        while let Some(mut idle) = kept.idle.pop() {
            if Arc::ptr_eq(&idle.peer, peer) && idle.is_open() {
                return Some(idle.stream);
            }
        }
        None
    }

    // Returns whether the caller must begin to sweep.
    fn put(&self, idle: Idle, capacity: usize) -> bool {
        let mut kept = self.lock();
        if kept.idle.len() < capacity {
            kept.idle.push(idle);
        }
        !std::mem::replace(&mut kept.swept, true)
    }

    // Ends with the last connection: a process without traffic has nothing to wake up for.
    async fn sweep(self: Arc<Self>) {
        let mut every = tokio::time::interval(SWEEP);
        loop {
            every.tick().await;
            let now = Instant::now();
            let mut kept = self.lock();
            kept.idle.retain_mut(|idle| idle.is_young(now) && idle.is_open());
            if kept.idle.is_empty() {
                kept.idle = Vec::new();
                kept.swept = false;
                return;
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, IdleConnections> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Idle {
    fn is_young(&self, now: Instant) -> bool {
        self.peer.idle_timeout().is_none_or(|timeout| now - self.since < timeout)
    }

    // An application sends nothing before it is asked: anything that can be read, an end or a
    // byte, makes the connection useless.
    fn is_open(&mut self) -> bool {
        self.stream.read(&mut [0]).now_or_never().is_none()
    }
}
