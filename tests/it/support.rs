//! The parts that integration tests are built from.
//!
//! Every wait here is for an event and has [`PATIENCE`] as its outer limit; none of them waits for
//! time to pass. Whatever is started is ended when its handle is dropped.

pub mod chaos;
pub mod child;
pub mod client;
pub mod collector;
pub mod database;
pub mod dice;
pub mod doorward;
pub mod h2_client;
pub mod h2_upstream;
pub mod http1;
pub mod idp;
pub mod npm;
pub mod ports;
pub mod postgres;
pub mod prometheus;
pub mod redis;
pub mod replica;
pub mod stage;
pub mod svix;
pub mod temp;
pub mod tls;
pub mod tokens;
pub mod upstream;
pub mod volume;

use std::future::Future;
use std::process::Command;
use std::time::Duration;

/// How long any wait may last before the test fails: far above what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How often a state that announces nothing is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// Returns what `future` yields; fails the test, naming `what`, when that takes longer than [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(value) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("waited {PATIENCE:?} in vain for {what}");
    };
    value
}

/// Asks `probe` again and again until it answers `Some`; fails the test as [`within`] does.
///
/// The compiler cannot prove that what awaits this is `Send`: run such waits side by side with
/// `tokio::join!`, not `tokio::spawn`.
pub async fn eventually<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let polling = async {
        let mut tick = tokio::time::interval(POLL);
        loop {
            tick.tick().await;
            if let Some(value) = probe().await {
                return value;
            }
        }
    };
    within(what, polling).await
}

/// Sends the signal called `name` (`TERM`, `STOP` …) to a process that the caller started.
pub fn signal(pid: u32, name: &str) {
    let status = Command::new("kill").arg(format!("-{name}")).arg(pid.to_string()).status().expect("kill is installed");
    assert!(status.success(), "kill -{name} {pid}: {status}");
}
