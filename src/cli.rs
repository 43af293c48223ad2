//! The command line: arguments, output and exit codes.
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
pub struct Environment<'a> {
    /// Environment variables.
    pub variables: &'a BTreeMap<String, String>,
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
    /// Signal the server in this container to become unready, and to keep serving.
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
    Sessions(sessions::SessionsCommand),
    /// Bring the directory's schema up to date, for servers with directory.migrate: false.
    ///
    /// Safe beside running servers and beside itself; does nothing when there is nothing to do.
    Migrate(ConfigFiles),
    /// List what is still to be delivered after a rebind, or revive what was given up.
    #[command(subcommand)]
    Outbox(outbox::OutboxCommand),
    /// Make keys.
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// Check that a URL answers 200, for health checks in images without curl.
    Probe(probe::ProbeTarget),
}

const AFTER_HELP: &str = "\
Configuration: defaults, then each --config FILE, then the environment: DOORWARD__SESSIONS__TTL=15m
sets sessions.ttl. docs/configuration.md has every key.

Exit codes: 0 done, 1 no or could not, 64 wrong arguments or configuration.";

/// Runs the command that `arguments` (the program's name first) ask for; returns the exit code.
pub fn run(arguments: impl IntoIterator<Item = OsString>, environment: &mut Environment<'_>) -> u8 {
    let Arguments { command } = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(message) if message.use_stderr() => {
            print(environment.stderr, &message.render().to_string());
            return USAGE;
        }
        Err(help_or_version) => {
            print(environment.stdout, &help_or_version.render().to_string());
            return SUCCESS;
        }
    };
    match command {
        Command::Serve(files) => serve::run(&files, environment),
        Command::Drain(server) => drain::run(&server, environment),
        Command::Demo(listeners) => demo::run::run(&listeners, environment),
        Command::Check(files) => check::run(&files, environment),
        Command::Explain(request) => explain::run(&request, environment),
        Command::Sessions(command) => sessions::run(&command, &system_clock(), environment),
        Command::Migrate(files) => migrate::run(&files, environment),
        Command::Outbox(command) => outbox::run(&command, &system_clock(), environment),
        Command::Keys(keys::KeysCommand::Generate) => keys::generate(&SystemRandom::new(), environment),
        Command::Probe(target) => probe::run(&target, environment),
    }
}

fn system_clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock::new())
}

impl Environment<'_> {
    /// Returns the configuration; if it has problems, prints all of them and returns the exit code.
    pub fn read(&mut self, files: &ConfigFiles) -> Result<Loaded, u8> {
        Config::load(&files.files, self.variables).map_err(|problems| {
            let count = problems.0.len();
            let plural = if count == 1 { "" } else { "s" };
            print(self.stderr, &format!("the configuration has {count} problem{plural}:\n{problems}\n"));
            USAGE
        })
    }

    /// As [`read`](Self::read), and prints warnings of risky combinations: for `serve` and `check`.
    pub fn load(&mut self, files: &ConfigFiles) -> Result<Loaded, u8> {
        let loaded = self.read(files)?;
        for warning in &loaded.warnings {
            print(self.stderr, &format!("warning: {warning}\n"));
        }
        Ok(loaded)
    }

    /// Prints why the command could not be carried out; returns the exit code.
    pub fn fail(&mut self, why: &dyn std::fmt::Display) -> u8 {
        print(self.stderr, &format!("doorward: {why}\n"));
        FAILURE
    }
}

/// Writes a text. A closed pipe is not an error: its reader wants no more (`doorward check | head`).
pub fn print(stream: &mut dyn Write, text: &str) {
    let _ = stream.write_all(text.as_bytes()).and_then(|()| stream.flush());
}

/// Runs a short command's future to its end on this thread.
pub fn block_on<T>(future: impl Future<Output = T>) -> std::io::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(future))
}
