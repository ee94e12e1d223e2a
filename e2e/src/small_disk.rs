//! A folder with its own small file system, which a test can fill.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::host::run_here;

/// The size of a [`SmallDisk`]'s file system in MiB.
const SIZE: usize = 4;

/// A folder with a mounted tmpfs. Dropping a `SmallDisk` unmounts the tmpfs.
#[derive(Debug)]
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Creates `folder`, and mounts a tmpfs of 4 MiB on it.
    ///
    /// # Panics
    /// Panics if the folder cannot be created or the tmpfs cannot be mounted.
    #[must_use]
    pub fn mount(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("the lab's folder can be written");
        let this = Self(folder);
        this.shell(&format!("mount -t tmpfs -o size={SIZE}m none"));
        this
    }

    /// Returns the path of the folder on which the tmpfs is mounted.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Runs a shell command with the folder's path as its last argument.
    ///
    /// # Panics
    /// Panics if the command fails.
    pub fn shell(&self, command: &str) {
        let line = format!("{command} {}", self.0.display());
        run_here(Command::new("sh").args(["-c", &line])).expect("the lab lets root do this");
    }

    /// Fills the folder's file system completely.
    ///
    /// # Panics
    /// Panics if the folder's file system is larger than expected.
    pub fn fill(&self) {
        let more_than_fits = vec![0; (SIZE + 1) << 20];
        fs::write(self.filler(), more_than_fits).expect_err("the filler is larger than the disk");
    }

    /// Frees the space that [`Self::fill`] filled.
    ///
    /// # Panics
    /// Panics if [`Self::fill`] was not called before.
    pub fn free(&self) {
        fs::remove_file(self.filler()).expect("the filler can be removed");
    }

    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        self.shell("umount -l");
    }
}
