//! Envoy: `ext_authz`, over HTTP and over gRPC.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::front::{Addresses, Proxy, Tells, read, write};

pub(super) const HTTP: Proxy = Proxy {
    install: INSTALL,
    command: |directory, addresses| command("envoy-http/envoy.yaml", directory, addresses),
    grpc: false,
    http2: true,
    tells: Tells::Refusals,
};

pub(super) const GRPC: Proxy = Proxy {
    install: INSTALL,
    command: |directory, addresses| command("envoy-grpc/envoy.yaml", directory, addresses),
    grpc: true,
    http2: true,
    tells: Tells::Everything,
};

/// What a gateway does that asks over gRPC and removes nothing itself.
pub(super) const GRPC_ALONE: Proxy = Proxy { command: without_removals, ..GRPC };

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

fn without_removals(directory: &Path, addresses: Addresses) -> Command {
    let example = addresses.put_into(&read("envoy-grpc/envoy.yaml")).replace("DROP_HEADER", "ALLOW");
    let mut config: Value = serde_saphyr::from_str(&example).expect("the example is YAML");
    let filters = "/static_resources/listeners/0/filter_chains/0/filters/0/typed_config/http_filters";
    let filters = config.pointer_mut(filters).and_then(Value::as_array_mut).expect("the example has filters");
    let before = filters.len();
    filters.retain(|filter| filter["name"] != "envoy.filters.http.header_mutation");
    assert_eq!(filters.len(), before - 1, "the example removes headers");
    start(&write(directory, "envoy.json", &config.to_string()))
}

fn command(example: &str, directory: &Path, addresses: Addresses) -> Command {
    let config = write(directory, "envoy.yaml", &addresses.put_into(&read(example)));
    start(&config)
}

fn start(config: &Path) -> Command {
    let mut command = Command::new(program());
    command.args(["--concurrency", "1", "--disable-hot-restart", "--log-level", "warn", "-c"]).arg(config);
    command
}
