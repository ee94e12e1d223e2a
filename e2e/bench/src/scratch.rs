//! Folders for the journals and tables of the measurements.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// The folder for journals and tables. It is in the guest's memory, so that the
/// speed of a disk is not measured.
const SCRATCH: &str = "/run/bench";

/// Makes a new folder in the guest's memory.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let folder = Path::new(SCRATCH).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
