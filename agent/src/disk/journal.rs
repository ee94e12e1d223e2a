//! What is ours in this kernel, on disk: the kernel has no owner tag.
//!
//! Keys only, never weights, so that an edit of our own entry writes nothing.
//! Before a round creates anything, it writes one [`Intent`]; what the kernel
//! acknowledged is then settled as owned. If the agent died between the two,
//! the next run finds the intent, and takes as its own what has exactly the
//! intent's configuration.

mod rows;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase};

use super::database;
use crate::decide::ours::{Change, Intent, Remembered};

const FILE: &str = "journal.redb";
/// How many bytes of changes are appended before the list of what is ours is
/// written again as a whole.
const GROWTH: usize = 4 << 20;

/// The edge to the disk, small, so that tests can use a modelled disk.
pub trait Journal {
    /// Makes an intent durable before any part of it is done. Replaces the
    /// previous one.
    ///
    /// # Errors
    /// When the disk cannot take it. Then no part of it may be done.
    fn intend(&mut self, intent: &Intent) -> Result<(), JournalError>;

    /// Makes durable what the round changed, and drops its intent, in one step.
    ///
    /// # Errors
    /// When the disk cannot take it. The intent stays.
    fn settle(&mut self, changes: &[Change]) -> Result<(), JournalError>;

    /// Makes durable which cluster all this belongs to. A reboot does not
    /// change it.
    ///
    /// # Errors
    /// When the disk cannot take it.
    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError>;
}

/// No journal. Nothing new can be made, because nothing would say that it is
/// ours. Entries that are there are still edited, and what was adopted or given
/// up meanwhile is recorded once there is a journal.
#[derive(Debug)]
pub struct NoJournal(pub String);

impl Journal for NoJournal {
    fn intend(&mut self, _: &Intent) -> Result<(), JournalError> {
        Err(JournalError::Absent(self.0.clone()))
    }

    fn settle(&mut self, _: &[Change]) -> Result<(), JournalError> {
        Err(JournalError::Absent(self.0.clone()))
    }

    fn remember_cluster(&mut self, _: &str) -> Result<(), JournalError> {
        Err(JournalError::Absent(self.0.clone()))
    }
}

/// What can go wrong with the state folder.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder cannot be made or used.
    #[error(
        "cannot use the state folder {path}: {source}; make it writable for the agent, or name another one with --state-dir"
    )]
    Folder {
        /// The path of the folder.
        path: PathBuf,
        /// The error from the system.
        source: io::Error,
    },
    /// The journal could not be opened.
    #[error("{0}")]
    Absent(String),
    /// Another process holds the file.
    #[error("{path} is in use by another agent; give each agent a --state-dir of its own")]
    InUse {
        /// The path of the file.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("the journal {path} cannot be read or written: {source}")]
    Database {
        /// The path of the file.
        path: PathBuf,
        /// The error from redb.
        source: Box<redb::Error>,
    },
}

pub(crate) type OpenDatabase = Box<dyn FnMut(&Path) -> Result<Database, redb::Error> + Send>;

/// The journal in the state folder.
pub struct FileJournal {
    path: PathBuf,
    open: OpenDatabase,
    /// None after a failure: once a write has failed, redb does nothing more
    /// with a file until it is opened again.
    database: Option<Database>,
    /// How many bytes were written since what is ours was written as a whole.
    grown: usize,
}

impl FileJournal {
    /// Opens the journal in a state folder, or creates it. A file that is
    /// damaged, or from a newer build, is set aside: then entries that are
    /// wanted and in the kernel are adopted, and nothing else is touched. What
    /// was recorded before this machine last booted is forgotten, because it is
    /// no longer in the kernel.
    ///
    /// # Errors
    /// When the folder cannot be used, or another agent uses it.
    pub fn open(folder: &Path, boot_id: &str) -> Result<(Self, Remembered), JournalError> {
        fs::create_dir_all(folder).map_err(|source| JournalError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join(FILE);
        let open = |path: &Path| Ok(database::builder().create(path)?);
        match Self::open_with(&path, boot_id, Box::new(open)) {
            Err(JournalError::Database { source, .. }) if database::is_content(&source) => {
                set_aside(&path, &source.to_string())?;
                Self::open_with(&path, boot_id, Box::new(open))
            }
            other => other,
        }
    }

    pub(crate) fn open_with(
        path: &Path,
        boot_id: &str,
        mut open: OpenDatabase,
    ) -> Result<(Self, Remembered), JournalError> {
        let failed = |error| failure(path, error);
        let database = open(path).map_err(failed)?;
        let remembered = rows::open(&database, boot_id).map_err(failed)?;
        // A later transaction must be able to read the file, too.
        let read = database.begin_read();
        read.map_err(|error| failed(error.into()))?;
        let journal = Self {
            path: path.to_owned(),
            open,
            database: Some(database),
            grown: 0,
        };
        Ok((journal, remembered))
    }

    fn write(
        &mut self,
        change: impl FnOnce(&redb::WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), JournalError> {
        let write = || {
            let database = match self.database.take() {
                Some(database) => database,
                None => (self.open)(&self.path)?,
            };
            let transaction = database.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            self.database = Some(database);
            Ok(())
        };
        write().map_err(|error| failure(&self.path, error))
    }
}

fn failure(path: &Path, error: redb::Error) -> JournalError {
    let path = path.to_owned();
    match error {
        redb::Error::DatabaseAlreadyOpen => JournalError::InUse { path },
        redb::Error::Io(source) if !database::is_damage(&source) => {
            JournalError::Folder { path, source }
        }
        source => JournalError::Database {
            path,
            source: Box::new(source),
        },
    }
}

impl Journal for FileJournal {
    fn intend(&mut self, intent: &Intent) -> Result<(), JournalError> {
        self.write(|transaction| rows::replace_intent(transaction, intent))
    }

    fn settle(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let bytes = rows::encoded(changes);
        let is_long = self.grown + bytes.len() > GROWTH;
        self.write(|transaction| {
            rows::append(transaction, &bytes)?;
            if is_long {
                rows::rewrite(transaction)?;
            }
            rows::drop_intent(transaction)
        })?;
        self.grown = if is_long { 0 } else { self.grown + bytes.len() };
        Ok(())
    }

    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError> {
        self.write(|transaction| rows::put_cluster(transaction, cluster))
    }
}

fn set_aside(path: &Path, why: &str) -> Result<(), JournalError> {
    let aside = database::set_aside(path).map_err(|source| JournalError::Folder {
        path: path.to_owned(),
        source,
    })?;
    tracing::warn!(
        "the journal {} cannot be used ({why}); set aside as {}. Entries that are wanted and already in the kernel are adopted; no other entry is deleted",
        path.display(),
        aside.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
