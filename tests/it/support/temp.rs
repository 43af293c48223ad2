//! Directories that are removed when their handle is dropped.

use std::path::{Path, PathBuf};

/// A new, empty directory, removed with all it holds on drop.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Makes the directory; `name` helps to recognise it.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("doorward-{name}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).expect("the temporary directory is writable");
        Self(path)
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Returns the path of `name` inside the directory.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // Nothing depends on it: a directory that stays behind is only untidy.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
