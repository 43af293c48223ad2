//! `doorward drain`: signals the server in the same container to become unready and keep serving.
//!
//! For a pod's preStop hook. The signal is SIGUSR1, which only the same user in the same process
//! namespace can send: there is no port and no socket that could be reached from outside of the
//! container. SIGUSR1 ends a process that does not handle it, so only processes that do receive it.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Environment, SUCCESS};

const PROCESSES: &str = "/proc";

/// Which server.
#[derive(Args, Debug)]
pub struct Server {
    /// The server's process; the only one of this container when left out.
    #[arg(long, value_name = "PID")]
    pid: Option<u32>,
}

/// Why no server was signalled.
#[derive(Debug, thiserror::Error)]
enum SignalError {
    #[error("cannot read {PROCESSES}: {0}")]
    Processes(#[from] io::Error),
    #[error("no server is running here")]
    NoneRunning,
    #[error("several servers are running here: {0}; choose one with --pid")]
    Several(String),
    #[error("process {0} is no server that can be told to drain")]
    NoServer(u32),
    #[error("cannot signal process {0}: {1}")]
    Signal(u32, nix::Error),
}

/// Signals the server; returns the exit code, 0 also when it is draining already.
pub fn run(server: &Server, environment: &mut Environment<'_>) -> u8 {
    let signalled = find(Path::new(PROCESSES), server.pid, std::process::id()).and_then(signal);
    match signalled {
        Ok(()) => SUCCESS,
        Err(error) => environment.fail(&error),
    }
}

fn signal(pid: u32) -> Result<(), SignalError> {
    let target = i32::try_from(pid).map_err(|_| SignalError::NoServer(pid))?;
    kill(Pid::from_raw(target), Signal::SIGUSR1).map_err(|error| SignalError::Signal(pid, error))
}

fn find(processes: &Path, wanted: Option<u32>, own: u32) -> Result<u32, SignalError> {
    if let Some(pid) = wanted {
        return if waits_for_it(processes, pid) { Ok(pid) } else { Err(SignalError::NoServer(pid)) };
    }
    let ours = program(processes, own).ok_or(SignalError::NoneRunning)?;
    let pids = fs::read_dir(processes)?.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let is_server =
        |pid: &u32| *pid != own && program(processes, *pid).as_ref() == Some(&ours) && waits_for_it(processes, *pid);
    let mut found: Vec<u32> = pids.filter(is_server).collect();
    found.sort_unstable();
    match found.as_slice() {
        [] => Err(SignalError::NoneRunning),
        [pid] => Ok(*pid),
        _ => Err(SignalError::Several(found.iter().map(u32::to_string).collect::<Vec<_>>().join(", "))),
    }
}

// Compares device and inode, because containers of a pod that share a process namespace have equal paths.
fn program(processes: &Path, pid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(processes.join(pid.to_string()).join("exe")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

// proc(5): `SigCgt` has a bit for each signal that is handled, counted from 1.
fn waits_for_it(processes: &Path, pid: u32) -> bool {
    let status = fs::read_to_string(processes.join(pid.to_string()).join("status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or_default();
    caught >> (Signal::SIGUSR1 as u64 - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAITING: &str = "Name:\tdoorward\nSigIgn:\t0000000000001000\nSigCgt:\t0000000100014a02\n";
    const DEAF: &str = "Name:\tdoorward\nSigIgn:\t0000000000001200\nSigCgt:\t0000000100014802\n";

    struct Proc(std::path::PathBuf);

    impl Proc {
        fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("doorward-drain-{name}-{}", std::process::id()));
            fs::create_dir_all(&directory).unwrap();
            Self(directory)
        }

        fn process(&self, pid: u32, program: &str, status: &str) {
            let directory = self.0.join(pid.to_string());
            fs::create_dir_all(&directory).unwrap();
            fs::write(self.0.join(program), "").unwrap();
            std::os::unix::fs::symlink(self.0.join(program), directory.join("exe")).unwrap();
            fs::write(directory.join("status"), status).unwrap();
        }

        fn find(&self, wanted: Option<u32>) -> Result<u32, String> {
            find(&self.0, wanted, 40).map_err(|error| error.to_string())
        }
    }

    impl Drop for Proc {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn the_only_server_of_the_same_program_is_found() {
        let proc = Proc::new("only");
        proc.process(40, "doorward", DEAF);
        assert_eq!(proc.find(None), Err("no server is running here".to_owned()));
        proc.process(1, "pause", WAITING);
        proc.process(30, "doorward", DEAF);
        assert_eq!(proc.find(None), Err("no server is running here".to_owned()));
        proc.process(7, "doorward", WAITING);
        assert_eq!(proc.find(None), Ok(7));
        proc.process(8, "doorward", WAITING);
        assert_eq!(proc.find(None), Err("several servers are running here: 7, 8; choose one with --pid".to_owned()));
        assert_eq!(proc.find(Some(8)), Ok(8));
    }

    #[test]
    fn a_process_that_the_signal_would_end_does_not_get_it() {
        let proc = Proc::new("deaf");
        proc.process(7, "doorward", DEAF);
        let refused = |pid| Err(format!("process {pid} is no server that can be told to drain"));
        assert_eq!(proc.find(Some(7)), refused(7));
        assert_eq!(proc.find(Some(9)), refused(9));
    }
}
