//! Dashboards, alerts and runbooks: what they ask for exists, and says what it should on a real day.

mod contract;
mod dashboards;
mod day;
mod files;
mod prometheus;
mod promql;
mod rules;
mod shop;

use std::path::{Path, PathBuf};
use std::process::Command;

/// Returns a path of the tree.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs promtool; returns whether it was content, and what it said.
fn promtool(arguments: &[&str], file: &Path) -> (bool, String) {
    let output = Command::new("promtool")
        .args(arguments)
        .arg(file)
        .output()
        .unwrap_or_else(|error| panic!("promtool: {error}; install it: apt-get install prometheus"));
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    (output.status.success(), said)
}
