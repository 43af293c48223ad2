//! The command line: what a person types, and which exit code a script sees.
//!
//! 0 is success, 1 is "no" or "could not", 64 (`EX_USAGE`) is a mistake in the arguments or the
//! configuration. Results go to standard output, everything else to standard error.

pub mod check;
pub mod demo;
pub mod drain;
pub mod explain;
pub mod keys;
pub mod migrate;
pub mod outbox;
pub mod probe;
pub mod serve;
pub mod sessions;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::rand::SystemRandom;
use clap::{Args, Parser, Subcommand};

use crate::config::{Config, Loaded};
use crate::time::{Clock, SystemClock};

/// Done.
pub const SUCCESS: u8 = 0;
/// The answer is no, or the command could not be carried out.
pub const FAILURE: u8 = 1;
/// The arguments or the configuration are wrong (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;

/// What the process was given.
pub struct Surroundings<'a> {
    /// Environment variables.
    pub environment: &'a BTreeMap<String, String>,
    /// Where results go.
    pub stdout: &'a mut dyn Write,
    /// Where everything else goes.
    pub stderr: &'a mut dyn Write,
}

/// Which files to read.
#[derive(Args, Debug)]
pub struct ConfigFiles {
    /// Lay this YAML file over the defaults; may be given several times, later files win.
    #[arg(long = "config", value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// A reverse-proxy authentication sidecar: lets only requests with a live session through to an
/// HTTP application, and tells it who is calling in X-User-ID and X-Client-ID.
#[derive(Debug, Parser)]
#[command(name = "doorward", version, after_help = AFTER_HELP, max_term_width = 100)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve: answer the authentication endpoints, guard everything else.
    ///
    /// SIGTERM and SIGINT drain (unready first, then the listener closes, then what is under way
    /// finishes); a second one exits at once. SIGUSR1 is the first step only. SIGHUP reads the
    /// configuration again.
    Serve(ConfigFiles),
    /// Tell the server in this container to take no more traffic, and to go on serving.
    ///
    /// For a preStop hook: readiness fails and answers end their connections from now on. SIGTERM
    /// then ends the server, and what has passed of the drain delay is not waited again.
    Drain(drain::Server),
    /// Show the whole story on this machine: no server, no configuration, nothing kept.
    ///
    /// Starts Doorward with an embedded store, in front of a built-in application that echoes what
    /// it receives and beside a built-in identity provider, and prints the lines to paste.
    Demo(demo::run::Listeners),
    /// Check a configuration and print what it amounts to.
    ///
    /// Reports everything that is wrong at once, on standard error, and exits with 64. Otherwise
    /// prints every key with its effective value, secrets replaced, and warns of risky combinations.
    Check(ConfigFiles),
    /// Say which route rule a request meets and what it then needs.
    Explain(explain::Request),
    /// List or end the sessions in the configured store.
    #[command(subcommand)]
    Sessions(sessions::Command),
    /// Bring the directory's schema up to date, for servers with directory.migrate: false.
    ///
    /// Safe beside running servers and beside itself; does nothing when there is nothing to do.
    Migrate(ConfigFiles),
    /// List what is still to be delivered after a rebind, or revive what was given up.
    #[command(subcommand)]
    Outbox(outbox::Command),
    /// Make keys.
    #[command(subcommand)]
    Keys(keys::Command),
    /// Ask a URL whether it answers 200, for health checks in images without curl.
    Probe(probe::Target),
}

const AFTER_HELP: &str = "\
Configuration: defaults, then each --config FILE, then the environment: DOORWARD__SESSIONS__TTL=15m
sets sessions.ttl. docs/configuration.md has every key.

Exit codes: 0 done, 1 no or could not, 64 wrong arguments or configuration.";

/// Runs the command that `arguments` (the program's name first) ask for; returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, surroundings: &mut Surroundings<'_>) -> u8 {
    let Arguments { command } = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) if message.use_stderr() => {
            say(surroundings.stderr, &message.render().to_string());
            return USAGE;
        }
        Err(help_or_version) => {
            say(surroundings.stdout, &help_or_version.render().to_string());
            return SUCCESS;
        }
    };
    match command {
        Command::Serve(files) => serve::run(&files, surroundings),
        Command::Drain(server) => drain::run(&server, surroundings),
        Command::Demo(listeners) => demo::run::run(&listeners, surroundings),
        Command::Check(files) => check::run(&files, surroundings),
        Command::Explain(request) => explain::run(&request, surroundings),
        Command::Sessions(command) => sessions::run(&command, &system_clock(), surroundings),
        Command::Migrate(files) => migrate::run(&files, surroundings),
        Command::Outbox(command) => outbox::run(&command, &system_clock(), surroundings),
        Command::Keys(keys::Command::Generate) => keys::generate(&SystemRandom::new(), surroundings),
        Command::Probe(target) => probe::run(&target, surroundings),
    }
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

impl Surroundings<'_> {
    /// Returns the configuration; on problems tells them all and returns the exit code.
    pub fn read(&mut self, files: &ConfigFiles) -> Result<Loaded, u8> {
        Config::load(&files.files, self.environment).map_err(|problems| {
            let count = problems.0.len();
            let plural = if count == 1 { "" } else { "s" };
            say(self.stderr, &format!("the configuration has {count} problem{plural}:\n{problems}\n"));
            USAGE
        })
    }

    /// As [`read`](Self::read), and tells what is risky: for commands that are about the configuration.
    pub fn load(&mut self, files: &ConfigFiles) -> Result<Loaded, u8> {
        let loaded = self.read(files)?;
        for warning in &loaded.warnings {
            say(self.stderr, &format!("warning: {warning}\n"));
        }
        Ok(loaded)
    }

    /// Tells why the command could not be carried out; returns the exit code.
    pub fn fail(&mut self, why: &dyn std::fmt::Display) -> u8 {
        say(self.stderr, &format!("doorward: {why}\n"));
        FAILURE
    }
}

/// Writes a text. A closed pipe is no failure: whoever closed it has read enough.
pub fn say(stream: &mut dyn Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// Runs a short command's future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
