//! Opens database files in the state folder, and renames a file that cannot be
//! used.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redb::Database;

/// The size of redb's cache. redb's default is 1 GiB, a thousand times the size
/// of a journal with 10,000 services.
const CACHE_BYTES: usize = 4 << 20;

/// Returns the redb settings that all files of the state folder share.
pub(crate) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Returns true if an error is about the file's content, so that a new file
/// would help.
pub(crate) fn is_content(error: &redb::Error) -> bool {
    !matches!(
        error,
        redb::Error::Io(_) | redb::Error::DatabaseAlreadyOpen | redb::Error::PreviousIo
    ) || matches!(error, redb::Error::Io(source) if is_damage(source))
}

pub(crate) fn is_damage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

/// Renames a file out of the way, and returns the new path.
///
/// # Errors
/// Returns an error if the folder cannot be written.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension("redb.unusable");
    fs::rename(path, &aside)?;
    Ok(aside)
}
