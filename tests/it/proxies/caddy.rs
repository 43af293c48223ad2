//! Caddy: `forward_auth`.

use std::path::Path;
use std::process::Command;

use super::front::{Addresses, Proxy, Tells, read, write};

pub(super) const CADDY: Proxy =
    Proxy { install: "apt-get install caddy", command, grpc: false, http2: false, tells: Tells::Everything };

/// Returns Caddy with a configuration file, keeping what it keeps in `directory`.
pub(super) fn caddy(verb: &str, directory: &Path, config: &Path) -> Command {
    let mut command = Command::new("caddy");
    command.args([verb, "--adapter", "caddyfile", "--config"]).arg(config);
    command.env("HOME", directory).env("XDG_CONFIG_HOME", directory).env("XDG_DATA_HOME", directory);
    command
}

fn command(directory: &Path, addresses: Addresses) -> Command {
    let config = write(directory, "Caddyfile", &addresses.put_into(&read("caddy/Caddyfile")));
    caddy("run", directory, &config)
}
