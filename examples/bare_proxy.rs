//! The yardstick of `bench/run`: what a request costs on pingora with nothing of Doorward in it.
//!
//! `bare_proxy LISTEN UPSTREAM`, where UPSTREAM is `host:port` or `unix:/path`. Server settings,
//! write buffer, pool, allocator and build profile are Doorward's own with `limits.workers: 1`; the
//! application has no hook but the one that names the upstream. Doorward reads ahead by itself; here
//! a read buffer of pingora's does that.

use std::process::ExitCode;

use async_trait::async_trait;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::proxy::{ProxyHttp, Session as Exchange, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::server::{RunArgs, Server};
use pingora::upstreams::peer::HttpPeer;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    peer: HttpPeer,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    async fn upstream_peer(&self, _: &mut Exchange, (): &mut ()) -> pingora::Result<Box<HttpPeer>> {
        Ok(Box::new(self.peer.clone()))
    }
}

fn main() -> ExitCode {
    // An error says that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream] = arguments.as_slice() else { return ExitCode::from(64) };
    let Some(peer) = peer(upstream) else { return ExitCode::from(64) };
    let conf = ServerConf {
        threads: 1,
        work_stealing: false,
        upstream_keepalive_pool_size: 1024,
        max_retries: 2,
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    let mut server = Server::new_with_opt_and_conf(None, conf);
    server.bootstrap();
    let mut service = http_proxy_service(&server.configuration, Bare { peer });
    service.add_listener(ListenerConfig::tcp(listen).l4_buffer(L4BufferSettings::new(8 * 1024, 4 * 1024)));
    server.add_service(service);
    server.run(RunArgs::default());
    ExitCode::SUCCESS
}

fn peer(upstream: &str) -> Option<HttpPeer> {
    match upstream.strip_prefix("unix:") {
        Some(path) => HttpPeer::new_uds(path, false, String::new()).ok(),
        None => Some(HttpPeer::new(upstream.parse::<std::net::SocketAddr>().ok()?, false, String::new())),
    }
}
