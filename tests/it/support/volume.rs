//! A volume as the kubelet keeps one for configuration or secrets.
//!
//! The files are in a folder named by date, `..data` leads to it, and what a container sees are links
//! through `..data`. An update makes another folder, puts a new `..data` in place of the old one by
//! one rename, and then removes the old folder.

use std::os::unix::fs::symlink;
use std::path::PathBuf;

use super::temp::TempDir;

/// A mounted volume.
pub struct Volume {
    directory: TempDir,
    updates: u32,
}

impl Volume {
    /// Mounts one with these files: name and content.
    pub fn new(files: &[(&str, &str)]) -> Self {
        let mut volume = Self { directory: TempDir::new("volume"), updates: 0 };
        volume.update(files);
        volume
    }

    /// Returns where a container finds a file.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Replaces all files at once.
    pub fn update(&mut self, files: &[(&str, &str)]) {
        self.updates += 1;
        let folder = format!("..2026_11_22_10_00_00.{:010}", self.updates);
        std::fs::create_dir(self.path(&folder)).expect("the directory is writable");
        for (name, content) in files {
            std::fs::write(self.path(&folder).join(name), content).expect("the directory is writable");
        }
        let old = std::fs::read_link(self.path("..data")).ok();
        symlink(&folder, self.path("..data_tmp")).expect("the directory is writable");
        std::fs::rename(self.path("..data_tmp"), self.path("..data")).expect("a rename is one step");
        let visible = std::fs::read_dir(self.directory.path()).expect("the directory can be read");
        for entry in visible.map(|entry| entry.expect("the directory can be read").file_name()) {
            let name = entry.to_str().expect("the names are ours");
            if !name.starts_with("..") && !files.iter().any(|(file, _)| *file == name) {
                std::fs::remove_file(self.path(name)).expect("the directory is writable");
            }
        }
        for (name, _) in files {
            if self.path(name).symlink_metadata().is_err() {
                symlink(format!("..data/{name}"), self.path(name)).expect("the directory is writable");
            }
        }
        if let Some(old) = old {
            std::fs::remove_dir_all(self.directory.path().join(old)).expect("the directory is writable");
        }
    }
}
