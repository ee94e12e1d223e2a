//! How a database file in the state folder is opened, and what happens to one
//! that cannot be used.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redb::Database;

/// redb's own default is 1 GiB, a thousand times the journal of 10,000 services.
const CACHE_BYTES: usize = 4 << 20;

/// The settings that every opening of a file shares.
pub(crate) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Whether an error is about the file's content, so that a new file would help.
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

/// Renames a file out of the way, and returns its new name.
///
/// # Errors
/// When the folder cannot be written.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension("redb.unusable");
    fs::rename(path, &aside)?;
    Ok(aside)
}
