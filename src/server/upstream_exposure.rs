//! Whether the application can be reached past Doorward.
//!
//! The containers of a pod share a network namespace and the pod's address: an application that
//! listens on all addresses answers every caller that knows its port, with or without a session.
//! Nothing is refused for it: it is logged, counted and, with `upstream.exposed: unready`, fails `/readyz`.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::sockets::listeners;
use crate::api::admin::Health;
use crate::config::upstream::{Exposed, UpstreamUrl};
use crate::config::{Address, Config};
use crate::metrics::Metrics;

/// How often the tables are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Of this process's network namespace.
const TABLE: &str = "/proc/self/net/tcp";
/// Absent where there is no IPv6.
const TABLE_IPV6: &str = "/proc/self/net/tcp6";

/// Watches which sockets listen on the application's port.
pub(super) struct UpstreamExposure {
    port: u16,
    own: Option<SocketAddr>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// What one look at the tables showed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exposure {
    /// No socket listens on the port beyond loopback.
    Closed,
    /// Sockets do, on these addresses.
    Open(Vec<SocketAddr>),
    /// The tables cannot be read.
    Unknown(String),
}

/// Returns whether a configuration asks for readiness to depend on it.
pub(super) fn ends_readiness(config: &Config) -> bool {
    config.upstream.exposed == Exposed::Unready
        && config.upstream.url.as_ref().and_then(UpstreamUrl::loopback_port).is_some()
}

impl UpstreamExposure {
    /// Returns the watch; `None` when the application is not on loopback or `upstream.exposed` is `ignore`.
    pub(super) fn new(config: &Config, health: Arc<Health>, metrics: Arc<Metrics>) -> Option<Self> {
        let port = config.upstream.url.as_ref()?.loopback_port()?;
        let own = match &config.listen {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        (config.upstream.exposed != Exposed::Ignore).then_some(Self { port, own, health, metrics })
    }

    /// Watches until the runtime ends.
    pub(super) async fn run(self) {
        let mut every = tokio::time::interval(LOOK);
        let mut last = None;
        loop {
            every.tick().await;
            // A table is short; the system may still take its time over it.
            let read = tokio::task::spawn_blocking(read).await;
            let seen = match read {
                Ok(Ok(all)) => judge(all, self.port, self.own),
                Ok(Err(error)) => Exposure::Unknown(error.to_string()),
                Err(error) => Exposure::Unknown(error.to_string()),
            };
            if last.as_ref() != Some(&seen) {
                self.report(&seen, last.is_some());
                last = Some(seen);
            }
        }
    }

    fn report(&self, seen: &Exposure, looked_before: bool) {
        self.metrics.upstream_exposed.set(i64::from(matches!(seen, Exposure::Open(_))));
        self.health.mark_unexposed(*seen == Exposure::Closed);
        match seen {
            Exposure::Closed if looked_before => {
                tracing::info!("The application's port is not open beyond loopback");
            }
            Exposure::Closed => {}
            Exposure::Open(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    addresses = addresses.join(", "),
                    "The application can be reached without Doorward; let it listen on 127.0.0.1 only, or let a \
                     NetworkPolicy admit no client to its port"
                );
            }
            Exposure::Unknown(error) => tracing::warn!(
                error,
                "Cannot read who listens on the application's port; make /proc/self/net/tcp readable, or set \
                 upstream.exposed to ignore"
            ),
        }
    }
}

// Doorward itself may listen on the same port of another address.
fn judge(all: Vec<SocketAddr>, port: u16, own: Option<SocketAddr>) -> Exposure {
    let beyond = |address: &SocketAddr| !address.ip().is_loopback() && Some(*address) != own;
    let mut open: Vec<_> = all.into_iter().filter(|address| address.port() == port && beyond(address)).collect();
    open.sort_unstable();
    open.dedup();
    if open.is_empty() { Exposure::Closed } else { Exposure::Open(open) }
}

fn read() -> io::Result<Vec<SocketAddr>> {
    let mut all = Vec::new();
    all.extend(listeners(BufReader::new(File::open(TABLE)?))?);
    match File::open(TABLE_IPV6) {
        Ok(file) => all.extend(listeners(BufReader::new(file))?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(all: &[&str]) -> Exposure {
        let all = all.iter().map(|address| address.parse().unwrap()).collect();
        judge(all, 3000, Some("10.1.2.5:3000".parse().unwrap()))
    }

    #[test]
    fn only_the_applications_port_beyond_loopback_counts() {
        let sheltered =
            ["127.0.0.1:3000", "127.0.0.53:3000", "[::1]:3000", "0.0.0.0:8080", "[::]:9090", "10.1.2.5:3000"];
        assert_eq!(judged(&sheltered), Exposure::Closed);
        assert_eq!(judged(&[]), Exposure::Closed, "it may not have started");
        for open in ["0.0.0.0:3000", "[::]:3000", "10.1.2.6:3000", "[2001:db8::1]:3000"] {
            assert_eq!(judged(&["127.0.0.1:3000", open, open]), Exposure::Open(vec![open.parse().unwrap()]), "{open}");
        }
    }
}
