//! A child process that ends with its handle.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use super::temp::TempDir;

/// A process that is killed on drop; a test that fails shows what it wrote.
pub struct Ended {
    name: &'static str,
    child: Child,
    outputs: [PathBuf; 2],
}

impl Ended {
    /// Starts `command`, called `name` in messages, with its output in files of `directory`, which
    /// has to outlive it; fails the test, naming what to `install`, when there is no such program.
    pub fn start(name: &'static str, install: &str, command: &mut Command, directory: &TempDir) -> Self {
        let outputs = ["stdout", "stderr"].map(|output| directory.join(output));
        let [stdout, stderr] = outputs.each_ref().map(|path| File::create(path).expect("the directory is writable"));
        let child = command.stdin(Stdio::null()).stdout(stdout).stderr(stderr).spawn();
        let child = child.unwrap_or_else(|error| panic!("{command:?}: {error}; install it: {install}"));
        Self { name, child, outputs }
    }

    /// Returns the process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how it ended; `None` while it runs.
    pub fn status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Fails the test, with what it wrote, when it has ended.
    pub fn assert_runs(&mut self) {
        if let Some(status) = self.status() {
            panic!("{} ended: {status}\n{}", self.name, self.logs());
        }
    }

    /// Returns all that it has written to standard output and standard error.
    pub fn logs(&self) -> String {
        let read = |path| std::fs::read(path).unwrap_or_default();
        self.outputs.iter().map(|path| String::from_utf8_lossy(&read(path)).into_owned()).collect()
    }
}

impl Drop for Ended {
    #[expect(clippy::print_stderr, reason = "the test harness shows it beside the failure, and only then")]
    fn drop(&mut self) {
        // It may have ended by itself; in either case wait returns.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {}'s logs ---\n{}--- end ---", self.name, self.logs());
        }
    }
}
