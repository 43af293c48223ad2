//! A file that lines are appended to, and that may be moved away at any time.
//!
//! Each line is one write at the end of the file. Before it, the file is opened anew if another one,
//! or none, stands under its name. A line that cannot be written goes to standard error instead,
//! after the reason.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// What its owner may do, and its group may read.
const MODE: u32 = 0o640;

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    open: Mutex<File>,
}

impl LineFile {
    /// Opens a file, which is made if it is not there; its folder must be.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let open = Mutex::new(append(&path)?);
        Ok(Self { path, open })
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_in_place(&open)? {
            *open = append(&self.path)?;
        }
        open.write_all(line)
    }

    fn is_in_place(&self, open: &File) -> io::Result<bool> {
        let ours = open.metadata()?;
        match std::fs::metadata(&self.path) {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

// As `tracing-subscriber` writes: one event at a time, each as a whole.
impl Write for &LineFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.append(line) {
            Ok(()) => Ok(line.len()),
            Err(error) => {
                let mut stderr = io::stderr().lock();
                writeln!(stderr, "telemetry.audit_file: cannot write: {error}")?;
                stderr.write_all(line)?;
                Ok(line.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn append(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}
