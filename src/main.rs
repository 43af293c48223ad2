//! The `doorward` binary: the only place that reads the process's arguments and environment.

use std::collections::BTreeMap;
use std::process::ExitCode;

use doorward::cli::{self, Environment};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // The one crypto provider of the process (docs/adr/0006). An error says that it was installed before.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let variables = variables();
    let mut environment = Environment {
        variables: &variables,
        // Not locked: log lines come from other threads.
        stdout: &mut std::io::stdout(),
        stderr: &mut std::io::stderr(),
    };
    ExitCode::from(cli::run(std::env::args_os(), &mut environment))
}

// Lossy: invalid UTF-8 in a DOORWARD__ variable then fails that key's check, and other variables are not read.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the environment")]
fn variables() -> BTreeMap<String, String> {
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    std::env::vars_os().map(|(name, value)| (text(name), text(value))).collect()
}
