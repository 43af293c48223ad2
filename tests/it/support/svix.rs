//! Signatures of webhooks, made by the official Svix library in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::json;

/// The library's version; it pins its own dependency exactly.
const VERSION: &str = "1.99.1";

/// Puts the library into `$1`, once for all test processes.
const INSTALL: &str = r#"
set -e
mkdir -p "$1"
exec 9>"$1/lock"
flock 9
[ -e "$1/complete" ] || npm install --prefix "$1" --no-audit --no-fund --ignore-scripts --loglevel=error "svix@$2" >&2
touch "$1/complete"
"#;

/// Signs a line of JSON with a line of text.
const SIGN: &str = r"
const { Webhook } = require(process.argv[1] + '/node_modules/svix');
require('readline').createInterface({ input: process.stdin }).on('line', line => {
  const { secret, id, seconds, body } = JSON.parse(line);
  console.log(new Webhook(secret).sign(id, new Date(seconds * 1000), body));
});
";

/// A running signer; it ends on drop.
pub struct Svix {
    process: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Svix {
    /// Starts the signer, and installs the library outside of the tree if no test has.
    pub fn start() -> Self {
        let place = std::env::temp_dir().join(format!("doorward-tests-svix-{VERSION}"));
        install(&place);
        let mut process = Command::new("node")
            .args(["-e", SIGN])
            .arg(&place)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("node: {error}; install it: apt-get install nodejs"));
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        Self { process, pipes: Mutex::new((input, output)) }
    }

    /// Returns the value of `svix-signature`.
    pub fn sign(&self, secret: &str, id: &str, seconds: u64, body: &str) -> String {
        let line = json!({ "secret": secret, "id": id, "seconds": seconds, "body": body });
        let mut pipes = self.pipes.lock().expect("no holder panics");
        writeln!(pipes.0, "{line}").expect("the signer reads");
        let mut signature = String::new();
        pipes.1.read_line(&mut signature).expect("the signer answers");
        assert!(signature.starts_with("v1,"), "{signature:?}");
        signature.trim_end().to_owned()
    }
}

impl Drop for Svix {
    fn drop(&mut self) {
        // It may have ended by itself; in either case wait returns.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn install(place: &PathBuf) {
    let output = Command::new("bash").args(["-c", INSTALL, "install"]).arg(place).arg(VERSION).output();
    let output = output.expect("bash is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm install svix@{VERSION}: {said}; is npm there? apt-get install npm");
}
