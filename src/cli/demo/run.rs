//! `doorward demo`: runs everything in one process and deletes its files at the end.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::cli::{ConfigFiles, Environment, SUCCESS, serve};
use crate::config::Config;
use crate::time::SystemClock;
use crate::{server, telemetry};

/// No log lines between the instructions, and no wait at the end, because no load balancer has to notice.
const QUIET: &str = r"
telemetry: { log_level: error, log_format: text, access_log_sample: 0 }
lifecycle: { drain_delay: 0s, drain_timeout: 1s }
";

/// Where the demo listens.
#[derive(Args, Debug)]
pub struct Listeners {
    /// Where Doorward listens.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where probes and metrics are.
    #[arg(long, default_value = "127.0.0.1:9090", value_name = "ADDRESS")]
    pub admin: SocketAddr,
}

/// A directory that is deleted when the demo ends.
struct Scratch(PathBuf);

/// Runs the demo until it is interrupted; returns the exit code.
pub fn run(listeners: &Listeners, environment: &mut Environment<'_>) -> u8 {
    match attempt(listeners, environment) {
        Ok(()) => SUCCESS,
        Err(problem) => environment.fail(&problem),
    }
}

fn attempt(listeners: &Listeners, environment: &mut Environment<'_>) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let scratch = Scratch::create().map_err(|error| text(&error))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| text(&error))?;
    let demo = runtime.block_on(super::start(Arc::new(SystemClock::new()))).map_err(|error| text(&error))?;
    let file = scratch.0.join("demo.yaml");
    std::fs::write(&file, demo.config(listeners.listen, listeners.admin, &scratch.0)).map_err(|error| text(&error))?;
    let quiet = scratch.0.join("quiet.yaml");
    std::fs::write(&quiet, QUIET).map_err(|error| text(&error))?;
    let files = ConfigFiles { files: vec![file, quiet] };
    let loaded = Config::load(&files.files, &std::collections::BTreeMap::new()).map_err(|problems| text(&problems))?;
    let verbosity = telemetry::start(&loaded.config.telemetry, Arc::new(SystemClock::new()));
    let verbosity = verbosity.map_err(|error| text(&error))?;
    let reread = serve::reread(&files, &std::collections::BTreeMap::new());
    let mut announce = || {
        // A closed pipe means that its reader wants no more; the demo goes on.
        let _ = demo.print_story(listeners.listen, environment.stdout);
    };
    let served = server::serve(&loaded, reread, verbosity, &mut announce).map_err(|error| text(&error));
    runtime.shutdown_timeout(Duration::from_millis(100));
    served
}

impl Scratch {
    fn create() -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("doorward-demo-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If this fails, the system's cleaning of its temporary directory removes it.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
