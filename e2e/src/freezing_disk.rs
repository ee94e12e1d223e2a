//! A folder with a file system that a test can freeze, as a disk does that no
//! longer answers.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::host::run_here;

/// The size of a [`FreezingDisk`]'s file system in bytes.
const SIZE: u64 = 16 << 20;

/// A folder with a mounted ext4 file system. Dropping a `FreezingDisk` unmounts
/// the file system.
#[derive(Debug)]
pub struct FreezingDisk {
    folder: PathBuf,
    device: String,
}

impl FreezingDisk {
    /// Creates `folder`, and mounts a new file system on it.
    ///
    /// # Panics
    /// Panics if the kernel has no loop devices or no ext4.
    #[must_use]
    pub fn mount(folder: PathBuf) -> Self {
        // Both may be built into the kernel instead.
        let _ = run_here(Command::new("modprobe").args(["-qa", "loop", "ext4"]));
        fs::create_dir_all(&folder).expect("the lab's folder can be written");
        let image = folder.with_extension("image");
        let file = File::create(&image).expect("the lab's folder can be written");
        file.set_len(SIZE).expect("a sparse file");
        must(
            Command::new("mke2fs")
                .args(["-q", "-F", "-t", "ext4"])
                .arg(&image),
        );
        let device = must(
            Command::new("losetup")
                .args(["--find", "--show"])
                .arg(&image),
        );
        let device = device.trim().to_owned();
        must(
            Command::new("mount")
                .args(["-t", "ext4", &device])
                .arg(&folder),
        );
        Self { folder, device }
    }

    /// Returns the path of the folder on which the file system is mounted.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Freezes the file system. From now on, every write waits.
    ///
    /// # Panics
    /// Panics if the file system is already frozen.
    pub fn freeze(&self) {
        must(Command::new("fsfreeze").arg("--freeze").arg(&self.folder));
    }

    /// Lets all waiting writes go on.
    ///
    /// # Panics
    /// Panics if the file system is not frozen.
    pub fn thaw(&self) {
        must(Command::new("fsfreeze").arg("--unfreeze").arg(&self.folder));
    }
}

impl Drop for FreezingDisk {
    fn drop(&mut self) {
        // The file system is frozen only if the test failed.
        let _ = run_here(Command::new("fsfreeze").arg("--unfreeze").arg(&self.folder));
        must(Command::new("umount").arg("--lazy").arg(&self.folder));
        must(Command::new("losetup").args(["--detach", &self.device]));
    }
}

fn must(command: &mut Command) -> String {
    run_here(command).unwrap_or_else(|failed| panic!("{failed}"))
}
