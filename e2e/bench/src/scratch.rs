//! Creates folders for the journals and tables of the benchmarks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;

/// The folder for the journals and tables of the benchmarks. The folder is in
/// the memory of the lab's kernel, so that the benchmarks do not measure the
/// speed of a disk.
const SCRATCH: &str = "/run/bench";

/// Creates a new folder in the memory of the lab's kernel.
pub(crate) fn scratch(name: &str) -> Result<PathBuf> {
    let folder = Path::new(SCRATCH).join(format!("{name}-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    Ok(folder)
}
