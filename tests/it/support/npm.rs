//! Packages of npm, kept for the next run.

use std::path::PathBuf;
use std::process::Command;

/// Puts the package `$1` into a folder of the user's, once for all test processes, and prints the folder.
const INSTALL: &str = r#"
set -e
place="$(scripts/cache.sh)/npm-$1"
mkdir -p "$place"
exec 9>"$place/lock"
flock 9
[ -e "$place/complete" ] || npm install --prefix "$place" --no-audit --no-fund --ignore-scripts --loglevel=error "$1" >&2
touch "$place/complete"
echo "$place"
"#;

/// Returns a folder with `package`, which is `name@version`, in its `node_modules`.
pub fn installed(package: &str) -> PathBuf {
    let mut command = Command::new("bash");
    command.args(["-c", INSTALL, "install", package]).current_dir(env!("CARGO_MANIFEST_DIR"));
    let output = command.output().expect("bash is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm install {package}: {said}; is npm there? apt-get install npm");
    PathBuf::from(String::from_utf8_lossy(&output.stdout).trim_end())
}
