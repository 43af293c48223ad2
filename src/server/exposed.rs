//! Whether the application can be reached past Doorward.
//!
//! The containers of a pod share a network namespace and the pod's address: an application that
//! listens on all addresses answers whoever knows its port, session or none. Nothing is refused for
//! it; it is told, counted and, where asked for, ends readiness.

use std::fs::File;
use std::io::{self, BufReader};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::sockets::listeners;
use crate::api::admin::Health;
use crate::config::upstream::{Exposed, Target};
use crate::config::{Address, Config};
use crate::metrics::Metrics;

/// How often the tables are looked at.
const LOOK: Duration = Duration::from_secs(2);
/// Of this process's network namespace.
const TABLE: &str = "/proc/self/net/tcp";
/// Absent where there is no IPv6.
const TABLE_IPV6: &str = "/proc/self/net/tcp6";

/// Looks at who listens on the application's port.
pub(super) struct SideDoor {
    port: u16,
    own: Option<SocketAddr>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
}

/// What one look showed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Seen {
    /// Nobody listens on the port beyond loopback.
    Closed,
    /// Somebody does, on these addresses.
    Open(Vec<SocketAddr>),
    /// Nobody can know.
    Unknown(String),
}

/// Returns whether a configuration asks for readiness to depend on it.
pub(super) fn ends_readiness(config: &Config) -> bool {
    config.upstream.exposed == Exposed::Unready
        && config.upstream.url.as_ref().and_then(Target::loopback_port).is_some()
}

impl SideDoor {
    /// Returns what looks, if there is something to look at.
    pub(super) fn new(config: &Config, health: Arc<Health>, metrics: Arc<Metrics>) -> Option<Self> {
        let port = config.upstream.url.as_ref()?.loopback_port()?;
        let own = match &config.listen {
            Address::Tcp(address) => Some(*address),
            Address::Unix(_) => None,
        };
        (config.upstream.exposed != Exposed::Ignore).then_some(Self { port, own, health, metrics })
    }

    /// Looks until the runtime ends.
    pub(super) async fn run(self) {
        let mut every = tokio::time::interval(LOOK);
        let mut last = None;
        loop {
            every.tick().await;
            // A table is short; the system may still take its time over it.
            let read = tokio::task::spawn_blocking(read).await;
            let seen = match read {
                Ok(Ok(all)) => judge(all, self.port, self.own),
                Ok(Err(error)) => Seen::Unknown(error.to_string()),
                Err(error) => Seen::Unknown(error.to_string()),
            };
            if last.as_ref() != Some(&seen) {
                self.report(&seen, last.is_some());
                last = Some(seen);
            }
        }
    }

    fn report(&self, seen: &Seen, looked_before: bool) {
        self.metrics.upstream_exposed.set(i64::from(matches!(seen, Seen::Open(_))));
        self.health.mark_unexposed(*seen == Seen::Closed);
        match seen {
            Seen::Closed if looked_before => tracing::info!("Nobody listens on the application's port beyond loopback"),
            Seen::Closed => {}
            Seen::Open(addresses) => {
                let addresses: Vec<_> = addresses.iter().map(ToString::to_string).collect();
                tracing::warn!(
                    addresses = addresses.join(", "),
                    "The application can be reached without Doorward; let it listen on 127.0.0.1 only, or let a \
                     NetworkPolicy admit nobody to its port"
                );
            }
            Seen::Unknown(error) => tracing::warn!(
                error,
                "Cannot read who listens on the application's port; make /proc/self/net/tcp readable, or set \
                 upstream.exposed to ignore"
            ),
        }
    }
}

// Doorward itself may listen on the same port of another address.
fn judge(all: Vec<SocketAddr>, port: u16, own: Option<SocketAddr>) -> Seen {
    let beyond = |address: &SocketAddr| !address.ip().is_loopback() && Some(*address) != own;
    let mut open: Vec<_> = all.into_iter().filter(|address| address.port() == port && beyond(address)).collect();
    open.sort_unstable();
    open.dedup();
    if open.is_empty() { Seen::Closed } else { Seen::Open(open) }
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

    fn judged(all: &[&str]) -> Seen {
        let all = all.iter().map(|address| address.parse().unwrap()).collect();
        judge(all, 3000, Some("10.1.2.5:3000".parse().unwrap()))
    }

    #[test]
    fn only_the_applications_port_beyond_loopback_counts() {
        let sheltered =
            ["127.0.0.1:3000", "127.0.0.53:3000", "[::1]:3000", "0.0.0.0:8080", "[::]:9090", "10.1.2.5:3000"];
        assert_eq!(judged(&sheltered), Seen::Closed);
        assert_eq!(judged(&[]), Seen::Closed, "it may not have started");
        for open in ["0.0.0.0:3000", "[::]:3000", "10.1.2.6:3000", "[2001:db8::1]:3000"] {
            assert_eq!(judged(&["127.0.0.1:3000", open, open]), Seen::Open(vec![open.parse().unwrap()]), "{open}");
        }
    }
}
