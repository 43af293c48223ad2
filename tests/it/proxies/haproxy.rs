//! HAProxy: an action in Lua.

use std::path::Path;
use std::process::Command;

use super::front::{Addresses, Proxy, Tells, read, write};

pub(super) const HAPROXY: Proxy =
    Proxy { install: "apt-get install haproxy", command, grpc: false, http2: true, tells: Tells::Everything };

fn command(directory: &Path, addresses: Addresses) -> Command {
    write(directory, "doorward.lua", &read("haproxy/doorward.lua"));
    let config = write(directory, "haproxy.cfg", &addresses.put_into(&read("haproxy/haproxy.cfg")));
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(config);
    command
}
