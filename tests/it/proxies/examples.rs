//! The shipped files as they are: their own programs accept them.

use std::path::Path;
use std::process::Command;

use super::front::{example, write};
use super::{caddy, envoy, nginx};
use crate::support::temp::TempDir;

#[test]
fn nginx_accepts_its_example() {
    let directory = TempDir::new("nginx");
    let main = write(directory.path(), "nginx.conf", &nginx::around(directory.path(), &example("nginx/doorward.conf")));
    accepted(nginx::nginx(directory.path(), &main).arg("-t"));
}

#[test]
fn caddy_accepts_its_example() {
    let directory = TempDir::new("caddy");
    accepted(&mut caddy::caddy("validate", directory.path(), &example("caddy/Caddyfile")));
}

#[test]
fn haproxy_accepts_its_example() {
    accepted(Command::new("haproxy").arg("-c").arg("-f").arg(example("haproxy/haproxy.cfg")));
}

#[test]
fn envoy_accepts_its_examples() {
    for file in ["envoy-http/envoy.yaml", "envoy-grpc/envoy.yaml"] {
        accepted(Command::new(envoy::program()).args(["--mode", "validate", "-c"]).arg(example(file)));
    }
}

fn accepted(command: &mut Command) {
    let output = command.current_dir(Path::new("/")).output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{said}", output.status);
}
