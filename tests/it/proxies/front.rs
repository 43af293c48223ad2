//! A proxy as a child process, with a shipped example as its configuration.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::child::Ended;
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::temp::TempDir;

/// What the shipped examples call the four addresses.
const LISTEN: u16 = 8000;
const DOORWARD: u16 = 8080;
const GRPC: u16 = 9001;
const APPLICATION: u16 = 3000;

/// One kind of proxy, and what is particular about it.
#[derive(Debug)]
pub(super) struct Proxy {
    /// The program, and the line that installs it.
    pub(super) install: &'static str,
    /// Puts its configuration into a directory and returns how to start it in the foreground.
    pub(super) command: fn(&Path, Addresses) -> Command,
    /// Whether it asks over gRPC.
    pub(super) grpc: bool,
    /// Whether its example takes HTTP/2 from clients, in clear.
    pub(super) http2: bool,
    /// What the client is told.
    pub(super) tells: Tells,
}

/// How much of Doorward's answer a client sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tells {
    /// All of it.
    Everything,
    /// All of a refusal; of an outage only the status.
    Refusals,
    /// The status and what belongs to it, with a body of the proxy's own.
    Status,
}

/// Ports of 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Addresses {
    /// Where the proxy listens.
    pub(super) listen: u16,
    /// Doorward's proxy port.
    pub(super) doorward: u16,
    /// Doorward's port for gRPC.
    pub(super) grpc: u16,
    /// The application.
    pub(super) application: u16,
}

/// A running proxy, killed on drop.
pub(super) struct Front {
    // Before its directory: it writes there until it has ended.
    child: Ended,
    address: SocketAddr,
    _directory: TempDir,
}

impl Addresses {
    /// Returns an example with its addresses replaced by these.
    pub(super) fn put_into(self, example: &str) -> String {
        let ports =
            [(LISTEN, self.listen), (DOORWARD, self.doorward), (GRPC, self.grpc), (APPLICATION, self.application)];
        let mut text = example.to_owned();
        // First to what cannot be taken for one of the others.
        for (number, (from, _)) in ports.iter().enumerate() {
            for way in ["127.0.0.1:", "port_value: "] {
                text = text.replace(&format!("{way}{from}"), &format!("{way}<{number}>"));
            }
        }
        for (number, (_, to)) in ports.iter().enumerate() {
            text = text.replace(&format!("<{number}>"), &to.to_string());
        }
        assert_ne!(text, example, "the example names the addresses");
        text
    }
}

impl Front {
    /// Starts `proxy` and waits until Doorward is reached through it.
    pub(super) async fn start(proxy: &Proxy, addresses: Addresses) -> Self {
        let directory = TempDir::new("proxy");
        let mut command = (proxy.command)(directory.path(), addresses);
        let child = Ended::start("the proxy", proxy.install, command.current_dir("/"), &directory);
        let address = SocketAddr::from(([127, 0, 0, 1], addresses.listen));
        let mut front = Self { child, address, _directory: directory };
        front.wait_reachable().await;
        front
    }

    /// Returns where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns a caller of the proxy.
    pub(super) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Waits until Doorward answers through it.
    pub(super) async fn wait_reachable(&mut self) {
        let (child, client) = (&mut self.child, Client::new(self.address));
        eventually("doorward to be reached through the proxy", async || {
            child.assert_runs();
            let answer = client.get("/auth/session").try_send().await.ok()?;
            (400..500).contains(&answer.status).then_some(())
        })
        .await;
    }
}

/// Returns the path of a shipped example.
pub(super) fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples").join(name)
}

/// Returns the text of a shipped example.
pub(super) fn read(name: &str) -> String {
    std::fs::read_to_string(example(name)).unwrap_or_else(|error| panic!("deploy/examples/{name}: {error}"))
}

/// Puts `text` into a file and returns its path.
pub(super) fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).expect("the directory is writable");
    path
}
