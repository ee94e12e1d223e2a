//! Folders for what is measured.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// The folder for journals and tables: memory of the guest, so that no disk's
/// own speed is measured.
const SCRATCH: &str = "/run/bench";

/// A folder in the guest's memory that did not exist before.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let folder = Path::new(SCRATCH).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
