//! Finds out when the proxy port is open.
//!
//! pingora binds in a thread of its own and tells nobody. A process that called itself ready
//! before that would be sent callers whom nothing answers.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};

use crate::api::admin::Health;
use crate::config::Address;

const ASK_AGAIN: Duration = Duration::from_millis(5);

/// Marks the process as started as soon as something accepts at `listen`.
pub(super) async fn mark_started(listen: Address, health: Arc<Health>) {
    while connect(&listen).await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    health.mark_started();
}

async fn connect(listen: &Address) -> io::Result<()> {
    match listen {
        // Port 0 is any port: there is no telling which, and nobody to be told.
        Address::Tcp(address) if address.port() == 0 => Ok(()),
        Address::Tcp(address) => TcpStream::connect(address).await.map(drop),
        Address::Unix(path) => UnixStream::connect(path).await.map(drop),
    }
}
