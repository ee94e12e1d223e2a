//! What is ours in this kernel, on disk: the kernel has no owner tag.
//!
//! Keys only, never weights, so that an edit of our own entry writes nothing.
//! Before a round creates anything, it writes one [`Intent`]; what the kernel
//! acknowledged is then settled as owned. If the agent died between the two,
//! the next run finds the intent, and takes as its own what has exactly the
//! intent's configuration.

mod rows;

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use ipvs::{
    ActualTable, DestinationConfig, DestinationKey, Owned, ServiceConfig, ServiceKey, Timeouts,
};
use redb::{Database, ReadableDatabase};
use serde::{Deserialize, Serialize};

use super::database;

const FILE: &str = "journal.redb";
/// How many bytes of changes are appended before the list of what is ours is
/// written again as a whole.
const GROWTH: usize = 4 << 20;

/// One entry that is ours.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Entry {
    /// A service of the IPVS table.
    Service(ServiceKey),
    /// A destination in a service of ours.
    Destination(ServiceKey, DestinationKey),
    /// An address that we put on an interface.
    Address(IpAddr, String),
    /// The timeouts of connections, as they were before we set them; 0 for one
    /// that we did not set.
    Timeouts(Timeouts),
    /// A sysctl that we set, with the value that it had before.
    Sysctl(String, String),
    /// A device that we made for virtual addresses.
    Device(String),
}

/// What a round is about to create, with its configuration.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Intent {
    /// The services, each with its configuration.
    pub services: Vec<(ServiceKey, ServiceConfig)>,
    /// The destinations, each with its service and its configuration.
    pub destinations: Vec<(ServiceKey, DestinationKey, DestinationConfig)>,
    /// The addresses, each with its interface.
    pub addresses: Vec<(IpAddr, String)>,
}

impl Intent {
    /// Whether the round creates nothing.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && self.destinations.is_empty() && self.addresses.is_empty()
    }
}

/// How a round changed what is ours.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Change {
    /// The entry is ours now.
    Own(Entry),
    /// The entry is no longer ours.
    Disown(Entry),
}

/// What an agent finds in its journal when it starts.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Remembered {
    /// What is ours in the IPVS table.
    pub table: Owned,
    /// The addresses that we put on interfaces.
    pub addresses: BTreeMap<IpAddr, String>,
    /// The timeouts of connections before we set them; 0 for one that we did
    /// not set.
    pub timeouts: Timeouts,
    /// The sysctls that we set, with the values that they had before.
    pub sysctls: BTreeMap<String, String>,
    /// The device that we made for virtual addresses.
    pub device: Option<String>,
    /// The intent of a round that was not settled.
    pub intent: Intent,
    /// The cluster that all this belongs to ([`crate::decide::caution`]).
    pub cluster: Option<String>,
}

impl Remembered {
    /// Records that an entry changed hands. What a service contains goes with
    /// it.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::Own(Entry::Service(service)) => self.table.add(*service, None),
            Change::Own(Entry::Destination(service, destination)) => {
                self.table.add(*service, Some(*destination));
            }
            Change::Own(Entry::Address(address, interface)) => {
                self.addresses.insert(*address, interface.clone());
            }
            Change::Own(Entry::Timeouts(before)) => self.timeouts = *before,
            Change::Own(Entry::Sysctl(name, before)) => {
                self.sysctls.insert(name.clone(), before.clone());
            }
            Change::Own(Entry::Device(name)) => self.device = Some(name.clone()),
            Change::Disown(Entry::Service(service)) => self.table.remove(service, None),
            Change::Disown(Entry::Destination(service, destination)) => {
                self.table.remove(service, Some(destination));
            }
            Change::Disown(Entry::Address(address, _)) => {
                self.addresses.remove(address);
            }
            Change::Disown(Entry::Timeouts(_)) => self.timeouts = Timeouts::default(),
            Change::Disown(Entry::Sysctl(name, _)) => {
                self.sysctls.remove(name);
            }
            Change::Disown(Entry::Device(_)) => self.device = None,
        }
    }

    /// Everything that is ours, as the changes that make it ours.
    fn entries(&self) -> impl Iterator<Item = Change> {
        let services = self.table.services.iter();
        let table = services.flat_map(|(service, destinations)| {
            let destinations = destinations.iter();
            std::iter::once(Entry::Service(*service))
                .chain(destinations.map(|key| Entry::Destination(*service, *key)))
        });
        let addresses = self.addresses.iter();
        let timeouts = (self.timeouts != Timeouts::default()).then_some(self.timeouts);
        let sysctls = self.sysctls.iter();
        let sysctls = sysctls.map(|(name, before)| Entry::Sysctl(name.clone(), before.clone()));
        table
            .chain(addresses.map(|(address, name)| Entry::Address(*address, name.clone())))
            .chain(timeouts.map(Entry::Timeouts))
            .chain(sysctls)
            .chain(self.device.clone().map(Entry::Device))
            .map(Change::Own)
    }
}

impl Intent {
    /// The entries that an unsettled intent made ours: those in the kernel's
    /// table with exactly the intent's configuration. An entry that differs is
    /// a stranger's by now. An address can differ only in its interface, which
    /// is checked whenever addresses are planned.
    pub fn claims(&self, table: &ActualTable) -> Vec<Entry> {
        let mut claims = Vec::new();
        for (key, config) in &self.services {
            if table.get(key).is_some_and(|found| found.config == *config) {
                claims.push(Entry::Service(*key));
            }
        }
        for (service, key, config) in &self.destinations {
            let found = table
                .get(service)
                .and_then(|found| found.destinations.get(key));
            if found == Some(config) {
                claims.push(Entry::Destination(*service, *key));
            }
        }
        for (address, interface) in &self.addresses {
            claims.push(Entry::Address(*address, interface.clone()));
        }
        claims
    }
}

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
