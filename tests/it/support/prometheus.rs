//! The real Prometheus.

use std::net::SocketAddr;
use std::process::Command;

use super::child::Ended;
use super::client::Client;
use super::ports::free_port;
use super::temp::TempDir;

/// The name of its configuration in its directory.
pub const CONFIG: &str = "prometheus.yaml";

/// A running Prometheus; it ends on drop.
pub struct Prometheus {
    address: SocketAddr,
    // Before its directory: it writes there until it has ended.
    _process: Ended,
    directory: TempDir,
}

impl Prometheus {
    /// Starts one in a directory that holds [`CONFIG`], and does not wait until it listens.
    pub fn start(directory: TempDir, arguments: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={CONFIG}"))
            .arg("--storage.tsdb.path=data")
            .arg(format!("--web.listen-address={address}"))
            .args(arguments)
            .current_dir(directory.path());
        let process = Ended::start("prometheus", "apt-get install prometheus", &mut command, &directory);
        Self { address, _process: process, directory }
    }

    /// Returns its directory.
    pub fn directory(&self) -> &TempDir {
        &self.directory
    }

    /// Returns a caller of its API.
    pub fn client(&self) -> Client {
        Client::new(self.address)
    }
}
