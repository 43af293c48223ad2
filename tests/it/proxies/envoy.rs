//! Envoy: `ext_authz`, over HTTP and over gRPC.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::front::{Addresses, Proxy, Tells, read, write};

pub(super) const HTTP: Proxy = Proxy {
    install: INSTALL,
    command: |directory, addresses| command("envoy-http/envoy.yaml", directory, addresses),
    grpc: false,
    tells: Tells::Refusals,
};

pub(super) const GRPC: Proxy = Proxy {
    install: INSTALL,
    command: |directory, addresses| command("envoy-grpc/envoy.yaml", directory, addresses),
    grpc: true,
    tells: Tells::Everything,
};

const INSTALL: &str = "scripts/python.sh";

/// Returns the program, which comes with the Python environment of the tests.
pub(super) fn program() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/python.sh");
    let output = Command::new(&script).output().unwrap_or_else(|error| panic!("{}: {error}", script.display()));
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{why}\nEnvoy is missing; type: apt-get install virtualenv; {INSTALL}");
    Path::new(&printed).join("bin/envoy")
}

fn command(example: &str, directory: &Path, addresses: &Addresses) -> Command {
    let config = write(directory, "envoy.yaml", &addresses.put_into(&read(example)));
    let mut command = Command::new(program());
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "-c"]).arg(config);
    command
}
