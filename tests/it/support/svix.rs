//! Signatures of webhooks, made by the official Svix library in a process of its own.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::json;

use super::npm::installed;

/// The library; it pins its own dependency exactly.
const PACKAGE: &str = "svix@1.99.1";

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
        let mut process = Command::new("node")
            .args(["-e", SIGN])
            .arg(installed(PACKAGE))
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
