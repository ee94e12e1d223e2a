//! The journal: the list on disk of the kernel entries that are ours. The
//! kernel itself does not record an entry's owner.
//!
//! The journal contains only the keys of our entries, so an edit of an entry's
//! configuration writes nothing to the journal. Before a round creates entries,
//! it writes one [`Intent`]. After the kernel has acknowledged the entries, the
//! round settles: it records the entries as ours in the journal. If the agent
//! dies before the round settles, the next run finds the intent. The next run
//! takes over the entries that match the intent's configuration exactly.

mod rows;

use std::{
    collections::BTreeSet,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use redb::{Database, ReadableDatabase};

use self::rows::Lasting;
use super::database::{self, OpenDatabase};
use crate::decide::{
    departures::Record,
    ours::{Change, Intent, Remembered},
    refusals::Refused,
};

const FILE: &str = "journal.redb";
/// When the appended changes exceed this number of bytes, the journal is
/// rewritten as one list.
const GROWTH: usize = 4 << 20;

/// The agent's interface to the journal on disk. The interface is small, so
/// that tests can replace the disk by a model.
pub trait Journal {
    /// Writes an intent durably to the journal, in place of the previous
    /// intent.
    ///
    /// # Errors
    /// Returns an error if the intent cannot be written. After an error, the
    /// round must not create any entry of the intent.
    fn intend(&mut self, intent: &Intent) -> Result<(), JournalError>;

    /// Writes a round's changes of ownership durably and removes the round's
    /// intent, in one transaction.
    ///
    /// # Errors
    /// Returns an error if the changes cannot be written. After an error, the
    /// intent of the round stays in the journal. After
    /// [`JournalError::Replaced`], the journal is empty, and the caller must
    /// settle all our entries again.
    fn settle(&mut self, changes: &[Change]) -> Result<(), JournalError>;

    /// Stores the id of the cluster that the entries belong to. The cluster's
    /// id stays in the journal after a reboot.
    ///
    /// # Errors
    /// Returns an error if the id cannot be written.
    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError>;

    /// Stores the addresses that this director took over because the other
    /// directors no longer renew their Leases. Each call replaces the addresses
    /// of the previous call. A reboot removes the addresses from the journal.
    ///
    /// # Errors
    /// Returns an error if the addresses cannot be written. After an error, the
    /// agent must not take over any address.
    fn remember_taken_over(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), JournalError>;

    /// Stores the refused entries. Each call replaces the entries of the
    /// previous call. The refused entries stay in the journal after a reboot.
    ///
    /// # Errors
    /// Returns an error if the entries cannot be written.
    fn remember_refused(&mut self, refused: &Refused) -> Result<(), JournalError>;

    /// Stores when drains began. Each call replaces the drains of the previous
    /// call. A reboot removes the drains from the journal.
    ///
    /// # Errors
    /// Returns an error if the drains cannot be written.
    fn remember_drains(&mut self, record: &Record) -> Result<(), JournalError>;
}

/// The substitute for the journal while the state folder cannot be used.
/// Without a real journal, the agent creates no entries, because it could not
/// record them as ours. Without a real journal, the agent still edits existing
/// entries. Once the state folder can be used, the agent records the entries
/// that it adopted or gave up in the meantime.
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

    fn remember_taken_over(&mut self, _: &BTreeSet<IpAddr>) -> Result<(), JournalError> {
        Err(JournalError::Absent(self.0.clone()))
    }

    fn remember_refused(&mut self, _: &Refused) -> Result<(), JournalError> {
        Err(JournalError::Absent(self.0.clone()))
    }

    fn remember_drains(&mut self, _: &Record) -> Result<(), JournalError> {
        Err(JournalError::Absent(self.0.clone()))
    }
}

/// The errors of the journal and its state folder.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The state folder cannot be created or used.
    #[error(
        "cannot use the state folder {path}: {source}; free space in it, make it writable for the agent, or name another one with --state-dir"
    )]
    Folder {
        /// The path of the state folder.
        path: PathBuf,
        /// The operating system's error for the state folder.
        source: io::Error,
    },
    /// The journal could not be opened; the text is the reason.
    #[error("{0}")]
    Absent(String),
    /// Another process has the journal's file open.
    #[error("{path} is in use by another agent; give each agent a --state-dir of its own")]
    InUse {
        /// The path of the journal's file.
        path: PathBuf,
    },
    /// Another file replaced the journal's file while the agent ran. All our
    /// entries must be settled again, because the new file does not contain
    /// them.
    #[error("the journal {path} was replaced: writing everything again")]
    Replaced {
        /// The path of the journal's file.
        path: PathBuf,
    },
    /// The journal's file cannot be read or written.
    #[error("the journal {path} cannot be read or written: {source}")]
    Database {
        /// The path of the journal's file.
        path: PathBuf,
        /// The error that redb returned for the journal's file.
        source: Box<redb::Error>,
    },
}

/// The journal in the state folder.
pub struct FileJournal {
    path: PathBuf,
    boot_id: String,
    /// The records that outlive a boot. If the journal's file is replaced while
    /// the agent runs, the new file gets these records.
    lasting: Lasting,
    open: OpenDatabase,
    /// The open journal file, or `None` after a failed write. After a failed
    /// write, the file must be opened again before redb can use it.
    database: Option<Database>,
    /// The number of bytes appended since the journal was last rewritten as one
    /// list.
    grown: usize,
}

impl FileJournal {
    /// Opens or creates the journal in a state folder. A journal file that is
    /// damaged or from a newer build is renamed. With a new journal, the agent
    /// adopts wanted entries that it finds in the kernel, and does not change
    /// other entries. Records from before the machine's last boot are dropped,
    /// because a boot empties the kernel's table. The refused entries, the
    /// cluster's id, and the list of services that were ours outlive a boot.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be used or if another agent uses
    /// it.
    pub fn open(folder: &Path, boot_id: &str) -> Result<(Self, Remembered), JournalError> {
        let remark = database::prepare(folder).map_err(|source| JournalError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join(FILE);
        let opened = match Self::open_with(&path, boot_id, Box::new(database::open)) {
            Err(JournalError::Database { source, .. }) if database::is_content(&source) => {
                let then = "The agent adopts wanted entries that are already in the kernel; no other entry is deleted";
                set_aside(&path, &source.to_string(), then)?;
                Self::open_with(&path, boot_id, Box::new(database::open))
            }
            other => other,
        }?;
        // If the journal cannot be opened, the agent tries again and again. The
        // warning about the folder is therefore logged only after the journal
        // has been opened.
        if let Some(remark) = remark {
            tracing::warn!("{remark}");
        }
        Ok(opened)
    }

    pub(crate) fn open_with(
        path: &Path,
        boot_id: &str,
        mut open: OpenDatabase,
    ) -> Result<(Self, Remembered), JournalError> {
        let failed = |error| failure(path, error);
        let database = open(path).map_err(failed)?;
        let remembered = rows::open(&database, boot_id).map_err(failed)?;
        // Begin a read transaction only to check that the file can be read.
        let read = database.begin_read();
        read.map_err(|error| failed(error.into()))?;
        let journal = Self {
            path: path.to_owned(),
            boot_id: boot_id.to_owned(),
            lasting: Lasting::of(&remembered),
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
        if self.database.is_none() {
            self.reopen()?;
        }
        let write = || {
            let database = self.database.take().expect("it was just opened");
            let transaction = database.begin_write()?;
            change(&transaction)?;
            transaction.commit()?;
            self.database = Some(database);
            Ok(())
        };
        write().map_err(|error| failure(&self.path, error))
    }

    /// Opens the journal's file again after an error. Fails with
    /// [`JournalError::Replaced`] if another file replaced the file or if its
    /// content was damaged. The new file then has no entries.
    fn reopen(&mut self) -> Result<(), JournalError> {
        let is_same = match self.is_same_file() {
            Err(error) if database::is_content(&error) => {
                let then = "The agent writes everything again";
                set_aside(&self.path, &error.to_string(), then)?;
                self.is_same_file()
            }
            other => other,
        };
        match is_same.map_err(|error| failure(&self.path, error))? {
            true => Ok(()),
            false => Err(JournalError::Replaced {
                path: self.path.clone(),
            }),
        }
    }

    /// Opens the journal's file. Returns whether the file was already opened in
    /// this boot. A file that is new or from an earlier boot gets the records
    /// that outlive a boot.
    fn is_same_file(&mut self) -> Result<bool, redb::Error> {
        let database = (self.open)(&self.path)?;
        let is_same = rows::is_from(&database, &self.boot_id)?;
        if !is_same {
            rows::open(&database, &self.boot_id)?;
            let transaction = database.begin_write()?;
            self.lasting.put(&transaction)?;
            transaction.commit()?;
            self.grown = 0;
        }
        self.database = Some(database);
        Ok(is_same)
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
        self.write(|transaction| rows::put_cluster(transaction, cluster))?;
        self.lasting.cluster = Some(cluster.to_owned());
        Ok(())
    }

    fn remember_taken_over(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), JournalError> {
        self.write(|transaction| rows::put_taken_over(transaction, addresses))
    }

    fn remember_refused(&mut self, refused: &Refused) -> Result<(), JournalError> {
        self.write(|transaction| rows::put_refused(transaction, refused))?;
        self.lasting.refused.clone_from(refused);
        Ok(())
    }

    fn remember_drains(&mut self, record: &Record) -> Result<(), JournalError> {
        let boot_id = self.boot_id.clone();
        self.write(|transaction| rows::put_drains(transaction, &boot_id, record))
    }
}

fn set_aside(path: &Path, why: &str, then: &str) -> Result<(), JournalError> {
    let aside = database::set_aside(path).map_err(|source| JournalError::Folder {
        path: path.to_owned(),
        source,
    })?;
    tracing::warn!(
        "the journal {} cannot be used ({why}); set aside as {}. {then}",
        path.display(),
        aside.display()
    );
    Ok(())
}

#[cfg(test)]
mod tests;
