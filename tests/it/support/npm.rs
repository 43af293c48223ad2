//! Packages of npm, kept for the next run.
//!
//! Their code is run: they lie in a folder of the user's, never in one that anybody could have made.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Puts the package `$2` into `$1`, once for all test processes.
const INSTALL: &str = r#"
set -e
mkdir -p "$1"
exec 9>"$1/lock"
flock 9
[ -e "$1/complete" ] || npm install --prefix "$1" --no-audit --no-fund --ignore-scripts --loglevel=error "$2" >&2
touch "$1/complete"
"#;

/// Returns a folder with `package`, which is `name@version`, in its `node_modules`.
pub fn installed(package: &str) -> PathBuf {
    let place = cache().join(format!("npm-{package}"));
    let output = Command::new("bash").args(["-c", INSTALL, "install"]).arg(&place).arg(package).output();
    let output = output.expect("bash is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm install {package}: {said}; is npm there? apt-get install npm");
    place
}

// As scripts/python.sh.
fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).filter(|value: &OsString| !value.is_empty()).map(PathBuf::from);
    let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
    let in_the_tree = || Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cache");
    caches.map_or_else(in_the_tree, |caches| caches.join("doorward"))
}
