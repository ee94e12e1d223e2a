//! Opens the database files in the state folder, restricts their permissions to
//! the owner, and renames files that cannot be used.

use std::{
    fs::{self, DirBuilder, File, Permissions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use redb::{Database, DatabaseError, StorageError, backends::FileBackend};

use super::{FILE_MODE, HISTORY, SOCKET};

/// A function that opens a database file. Tests pass a function that simulates
/// a failing disk.
pub(crate) type OpenDatabase = Box<dyn FnMut(&Path) -> Result<Database, redb::Error> + Send>;

/// The size of redb's cache in bytes. The default of redb is 1 GiB, a thousand
/// times the size of a journal with 10,000 services.
const CACHE_BYTES: usize = 4 << 20;
/// The mode of the state folder.
const FOLDER_MODE: u32 = 0o700;
/// The permission bits of everybody except the owner.
const OTHERS: u32 = 0o077;

/// Returns the redb settings that all files of the state folder share.
pub(crate) fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder
        .set_cache_size(CACHE_BYTES)
        .set_check_integrity_on_open(true);
    builder
}

/// Opens or creates a database file and its folder ([`prepare`]). Only the
/// owner of a new database file can read it.
///
/// # Errors
/// Returns an error if the database file cannot be used, or if another process
/// uses it.
pub(crate) fn open(path: &Path) -> Result<Database, redb::Error> {
    if let Some(folder) = path.parent() {
        prepare(folder)?;
    }
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let file = options.mode(FILE_MODE).open(path)?;
    let is_new = file.metadata()?.len() == 0;
    let opened = builder().create_with_backend(FileBackend::new(file)?);
    if let (true, Err(DatabaseError::Storage(StorageError::Io(_)))) = (is_new, &opened) {
        // If the disk is full, the new file may be incomplete. The file is
        // removed, because a later run would treat an incomplete file as
        // damaged.
        fs::remove_file(path).unwrap_or_default();
    }
    Ok(opened?)
}

/// Creates the state folder if there is none. Removes the permissions of other
/// users from an existing folder and from the database files in it. Earlier
/// builds created database files that other users could read. If the state
/// folder also contains other files, the folder keeps its mode, because other
/// programs may need access. Returns a warning if other users can still read
/// the state folder.
///
/// # Errors
/// Returns an error if the folder cannot be created.
pub(crate) fn prepare(folder: &Path) -> io::Result<Option<String>> {
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(FOLDER_MODE).create(folder) {
        Err(error) if !folder.is_dir() => return Err(error),
        _ => {}
    }
    // The agent can use a folder even if it cannot change the folder's mode.
    Ok(restrict(folder).unwrap_or_else(|error| {
        let folder = folder.display();
        Some(format!(
            "other users may be able to read the state folder {folder}: {error}. Run `chmod -R go= {folder}`"
        ))
    }))
}

fn restrict(folder: &Path) -> io::Result<Option<String>> {
    let mut has_others_files = false;
    // The socket of an earlier run may still be there. Nobody listens on it.
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if (is_database(&name) || is_history(&name)) && entry.file_type()?.is_file() {
            restrict_one(&entry.path(), FILE_MODE)?;
        } else {
            has_others_files |= name != "lost+found" && !name.starts_with(SOCKET);
        }
    }
    if !has_others_files {
        return restrict_one(folder, FOLDER_MODE).map(|()| None);
    }
    let is_open = mode(folder)? & OTHERS != 0;
    Ok(is_open.then(|| {
        format!(
            "other users may look into the state folder {}, and the agent does not change its mode because it contains other files too; use --state-dir to name a folder that only the agent uses",
            folder.display()
        )
    }))
}

fn restrict_one(path: &Path, mode_of_owner: u32) -> io::Result<()> {
    match mode(path)? & OTHERS {
        0 => Ok(()),
        _ => fs::set_permissions(path, Permissions::from_mode(mode_of_owner)),
    }
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode())
}

/// Whether a file of the state folder is one of the agent's databases, possibly
/// renamed by [`set_aside`].
fn is_database(name: &str) -> bool {
    name.ends_with(".redb") || name.ends_with(".redb.unusable")
}

/// Whether a file of the state folder belongs to the audit trail.
fn is_history(name: &str) -> bool {
    name.starts_with(HISTORY) && name.ends_with(".jsonl")
}

/// Whether the content of a database file caused the error. If the content is
/// the cause, the agent can continue with a new file.
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

/// Renames a database file that cannot be used, and returns the new path.
///
/// # Errors
/// Returns an error if the file's folder cannot be written.
pub(crate) fn set_aside(path: &Path) -> io::Result<PathBuf> {
    let aside = path.with_extension("redb.unusable");
    fs::rename(path, &aside)?;
    Ok(aside)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn with_modes(modes: &[(&str, u32)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode) in modes {
            let path = folder.path().join(name);
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, Permissions::from_mode(*mode)).unwrap();
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        folder
    }

    fn permissions(path: &Path) -> u32 {
        mode(path).unwrap() & 0o7777
    }

    #[test]
    fn a_new_folder_and_a_new_file_are_their_owners_alone() {
        let above = tempfile::tempdir().unwrap();
        let folder = above.path().join("lib/ipvs-operator");
        assert_eq!(prepare(&folder).unwrap(), None);
        assert_eq!(permissions(&folder), FOLDER_MODE);
        let file = folder.join("journal.redb");
        open(&file).unwrap();
        assert_eq!(permissions(&file), FILE_MODE);
    }

    #[test]
    fn a_folder_of_an_earlier_build_and_all_its_files_become_their_owners_alone() {
        let names = [
            "journal.redb",
            "checkpoint.redb",
            "journal.redb.unusable",
            "checkpoint.redb.unusable",
            "history.jsonl",
            "history.4.jsonl",
        ];
        let folder = with_modes(&names.map(|name| (name, 0o644)));
        // An agent that was killed leaves its socket.
        UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        assert_eq!(prepare(folder.path()).unwrap(), None);
        assert_eq!(permissions(folder.path()), FOLDER_MODE);
        for name in names {
            assert_eq!(permissions(&folder.path().join(name)), FILE_MODE, "{name}");
        }
    }

    #[test]
    fn a_folder_that_others_use_too_keeps_its_mode_and_the_others_files_theirs() {
        let folder = with_modes(&[("journal.redb", 0o644), ("readme", 0o644)]);
        let remark = prepare(folder.path()).unwrap().expect("it is open");
        assert!(remark.contains("--state-dir"), "{remark}");
        let of = |name| permissions(&folder.path().join(name));
        assert_eq!(permissions(folder.path()), 0o755);
        assert_eq!((of("journal.redb"), of("readme")), (FILE_MODE, 0o644));
    }

    #[test]
    fn a_folder_below_a_file_is_an_error() {
        let folder = with_modes(&[("file", 0o600)]);
        let error = prepare(&folder.path().join("file")).expect_err("a file is no folder");
        assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    }
}
