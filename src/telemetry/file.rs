//! A file that lines are appended to, and that log rotation may move away at any time.
//!
//! Each line is one write at the end of the file. Before each write, the file is opened again if its
//! path names another file or none. Where a regular file was at the start, a link or a pipe that has
//! replaced it is not written to. A line that cannot be written goes to standard error, after the reason.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use nix::fcntl::OFlag;

/// The owner may read and write, the group may read.
const MODE: u32 = 0o640;

/// A file that lines are appended to.
#[derive(Debug)]
pub(super) struct LineFile {
    path: PathBuf,
    /// Whether the path named a regular file at the start, and not a link or a device.
    is_file: bool,
    open: Mutex<File>,
}

impl LineFile {
    /// Opens a file and creates it if it does not exist; its folder must exist.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        let open = Mutex::new(to_append().open(&path)?);
        let is_file = path.symlink_metadata()?.is_file();
        Ok(Self { path, is_file, open })
    }

    fn append(&self, line: &[u8]) -> io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.is_in_place(&open)? {
            *open = self.open_anew()?;
        }
        open.write_all(line)
    }

    fn is_in_place(&self, open: &File) -> io::Result<bool> {
        let ours = open.metadata()?;
        match if self.is_file { self.path.symlink_metadata() } else { self.path.metadata() } {
            Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    // Other users may write into the folder, and opening a pipe without O_NONBLOCK waits for a reader.
    fn open_anew(&self) -> io::Result<File> {
        if !self.is_file {
            return to_append().open(&self.path);
        }
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let file = to_append().custom_flags(flags.bits()).open(&self.path)?;
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no file any longer")) }
    }
}

// `tracing-subscriber` writes each event in one call, so one call is one line.
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

fn to_append() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true).mode(MODE);
    options
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::TestDirectory;

    #[test]
    fn a_link_or_pipe_that_replaces_the_file_is_not_written_to() {
        let directory = TestDirectory::new();
        let (path, other) = (directory.path().join("audit.log"), directory.path().join("keys"));
        std::fs::write(&other, "").unwrap();
        let file = LineFile::open(path.clone()).unwrap();
        file.append(b"first\n").unwrap();
        std::fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        assert!(file.append(b"lost\n").is_err());
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "");
        std::fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(file.append(b"lost\n").is_err(), "and opening it does not wait for a reader");
        std::fs::remove_file(&path).unwrap();
        file.append(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "second\n");
    }

    #[test]
    fn a_link_that_was_there_from_the_start_is_followed() {
        let directory = TestDirectory::new();
        let (path, target) = (directory.path().join("audit.log"), directory.path().join("elsewhere"));
        std::os::unix::fs::symlink(&target, &path).unwrap();
        let file = LineFile::open(path).unwrap();
        file.append(b"first\n").unwrap();
        std::fs::rename(&target, directory.path().join("rotated")).unwrap();
        file.append(b"second\n").unwrap();
        assert_eq!(std::fs::read_to_string(&target).unwrap(), "second\n");
    }
}
