//! The checkpoint: the last known good objects, on disk. After a start, the
//! agent uses the checkpoint's objects until the API server or the folder of
//! manifests has been read. If the agent can no longer read an object, it uses
//! the object's version in the checkpoint.
//!
//! ```text
//! disk ─▶ Restored ─▶ events, before those of the inputs
//! events ─▶ Tee ─▶ Store; what is good in it ─▶ Recorder ─▶ thread ─▶ disk
//! ```
//!
//! An object in the checkpoint may be some seconds older than the newest
//! version. The agent never waits for the checkpoint. While the disk refuses
//! writes, the checkpoint's thread keeps the unwritten changes and reports the
//! problem. After an error, the checkpoint's thread tries again and again to
//! open the file. The checkpoint contains only accepted objects. The agent can
//! therefore create missing entries for objects from the checkpoint. The agent
//! never removes an entry because of the checkpoint alone
//! ([`crate::director`]).

mod pending;
mod tee;
mod writer;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender},
    thread::{self, JoinHandle},
};

use crds::{
    Change, Kind, Loose, ObjectKey, Source as ObjectSource,
    api::{DirectorGroup, RealServer, VirtualService},
};
use kube::core::object::HasSpec;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, de::DeserializeOwned};

pub use self::tee::Tee;
use self::writer::Writer;
use super::database::{self, OpenDatabase};
use crate::{
    decide::serving::memory::Memory,
    event::{
        Event,
        origin::{Folder, Known, Source},
    },
};

/// The table of objects. The key of a row is `kind/namespace/name`. An object
/// is stored with only the metadata that the agent needs.
const OBJECTS: TableDefinition<'_, &str, &str> = TableDefinition::new("objects");
/// The table that maps a manifest's path to the manifest's last good text.
const FILES: TableDefinition<'_, &str, &str> = TableDefinition::new("files");
/// The table of the servers' health, in the format of
/// [`crate::decide::serving::memory`]. Older builds of the agent ignore this
/// table.
const STANDINGS: TableDefinition<'_, &str, &str> = TableDefinition::new("standings");
/// The checkpoint's metadata by name. `schema` is the schema's version.
/// `directors` has the names of the group's directors, and `director-addresses`
/// their addresses by name. `api-servers` has the addresses at which the agent
/// reached the API server. `listings` has the source of each kind of object.
/// `listings` also names the objects that a listing left out although they may
/// still exist.
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const SCHEMA: &str = "1";
/// The name of the checkpoint's file in the state folder.
pub const FILE: &str = "checkpoint.redb";

/// The data of the previous run that the checkpoint restored.
#[derive(Debug, Default)]
pub struct Restored {
    /// The objects of the previous run, as events.
    pub events: Vec<Event>,
    /// The last good text of each manifest.
    pub files: BTreeMap<PathBuf, String>,
    /// The folder of manifests, if the previous run read one.
    pub folder: Option<Folder>,
    /// The remembered health of servers.
    pub standings: Memory,
}

/// A change that the checkpoint must store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// An object's row, or `None` if the object was deleted.
    Object(Kind, ObjectKey, Option<String>),
    /// The objects of one kind have been listed. The set has the keys of the
    /// objects to keep: objects in the listing, and objects that may exist
    /// although the listing left them out. The checkpoint deletes all other
    /// rows of the kind.
    Listed(Kind, BTreeSet<ObjectKey>),
    /// The names of the group's directors.
    Directors(BTreeSet<String>),
    /// The addresses of the directors' hosts, by the director's name.
    DirectorAddresses(BTreeMap<String, BTreeSet<IpAddr>>),
    /// The addresses at which the agent reached the API server.
    ApiServers(BTreeSet<SocketAddr>),
    /// The source of each kind of object, and the objects that listings left
    /// out.
    Listings(Known),
    /// A manifest's last good text, or `None` if the manifest's file is gone.
    File(PathBuf, Option<String>),
    /// The remembered health of servers, by row key. The checkpoint deletes a
    /// row whose value is `None`.
    Standings(BTreeMap<String, Option<String>>),
    /// The last note: the checkpoint's thread writes all pending changes and
    /// ends.
    End,
}

/// Sends notes to the checkpoint, from any thread.
#[derive(Clone, Debug)]
pub struct Recorder(Sender<Note>);

impl Recorder {
    /// Returns a recorder and the receiver of its notes.
    pub fn new() -> (Self, Receiver<Note>) {
        let (sender, receiver) = mpsc::channel();
        (Self(sender), receiver)
    }

    /// Sends one note to the checkpoint.
    pub fn note(&self, note: Note) {
        // Sending fails when the checkpoint's thread has ended.
        self.0.send(note).unwrap_or_default();
    }
}

/// The error that says why the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct CheckpointError {
    path: PathBuf,
    source: Box<redb::Error>,
}

/// The checkpoint in the state folder.
pub struct Checkpoint {
    folder: PathBuf,
    open: OpenDatabase,
    /// The open file, or `None` after an error. After an error, the file must
    /// be opened again before redb can use it.
    database: Option<Database>,
}

impl Checkpoint {
    /// Opens or creates the checkpoint in a state folder, and reads its
    /// content. A checkpoint file that is damaged or from a newer build is
    /// renamed.
    ///
    /// If the state folder cannot be used, this function returns an error
    /// instead of the content. The checkpoint's thread ([`Checkpoint::record`])
    /// then tries again and again to open the folder. Once the folder can be
    /// used, the thread stores this run's notes.
    pub fn open(folder: &Path) -> (Self, Result<Restored, CheckpointError>) {
        Self::open_with(folder, Box::new(database::open))
    }

    fn open_with(folder: &Path, open: OpenDatabase) -> (Self, Result<Restored, CheckpointError>) {
        let mut checkpoint = Self {
            folder: folder.to_owned(),
            open,
            database: None,
        };
        let restored = checkpoint.opened(|database| {
            prepare(database)?;
            read(database)
        });
        let restored = restored.map_err(|source| checkpoint.failure(source));
        (checkpoint, restored)
    }

    /// Starts a thread that writes notes and ends at [`Note::End`]. If the
    /// checkpoint cannot be written, the thread calls `report` with the reason.
    /// When the checkpoint can be written again, the thread calls `report` with
    /// `None`.
    ///
    /// # Errors
    /// Returns an error if the system has no thread left.
    pub fn record(
        self,
        notes: Receiver<Note>,
        report: impl Fn(Option<String>) + Send + 'static,
    ) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || Writer::new(self, Box::new(report)).run(&notes))
    }

    /// Opens the checkpoint's file, and returns the result of `begin`. A file
    /// with unusable content is renamed and replaced by a new file.
    fn opened<T>(
        &mut self,
        begin: impl Fn(&Database) -> Result<T, redb::Error>,
    ) -> Result<T, redb::Error> {
        let path = self.folder.join(FILE);
        let mut attempt = || {
            let database = (self.open)(&path)?;
            let found = begin(&database)?;
            Ok((database, found))
        };
        let (database, found) = match attempt() {
            Err(error) if database::is_content(&error) => {
                let aside = database::set_aside(&path)?;
                tracing::warn!(
                    "the checkpoint {} cannot be used ({error}); set aside as {}",
                    path.display(),
                    aside.display()
                );
                attempt()?
            }
            other => other?,
        };
        self.database = Some(database);
        Ok(found)
    }

    fn failure(&self, source: redb::Error) -> CheckpointError {
        CheckpointError {
            path: self.folder.join(FILE),
            source: Box::new(source),
        }
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({})", self.folder.display())
    }
}

fn row_key(kind: Kind, key: &ObjectKey) -> String {
    format!("{kind}/{}/{}", key.namespace, key.name)
}

/// Creates the tables of a new checkpoint file. For an existing file, checks
/// that this build knows the schema.
fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        transaction.open_table(OBJECTS)?;
        transaction.open_table(FILES)?;
        transaction.open_table(STANDINGS)?;
        let mut meta = transaction.open_table(META)?;
        let schema = meta.get("schema")?.map(|found| found.value().to_owned());
        match schema.as_deref() {
            Some(SCHEMA) => {}
            None => {
                meta.insert("schema", SCHEMA)?;
            }
            Some(other) => {
                return Err(redb::Error::Corrupted(format!(
                    "the file has schema {other}, and this build knows only schema {SCHEMA}"
                )));
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

fn read(database: &Database) -> Result<Restored, redb::Error> {
    let transaction = database.begin_read()?;
    let mut restored = Restored::default();
    for row in transaction.open_table(OBJECTS)?.iter()? {
        let (key, row) = row?;
        match event(key.value(), row.value()) {
            Ok(event) => restored.events.extend(event),
            // A bad row is skipped, and the other rows are still used.
            Err(error) => {
                tracing::warn!("ignoring the checkpoint's row {}: {error}", key.value());
            }
        }
    }
    for row in transaction.open_table(FILES)?.iter()? {
        let (path, text) = row?;
        let path = PathBuf::from(path.value());
        restored.files.insert(path, text.value().to_owned());
    }
    for row in transaction.open_table(STANDINGS)?.iter()? {
        let (key, row) = row?;
        if let Err(error) = restored.standings.remember(key.value(), row.value()) {
            tracing::warn!(
                "ignoring the checkpoint's health record of {}: {error}",
                key.value()
            );
        }
    }
    let meta = transaction.open_table(META)?;
    let events = &mut restored.events;
    events.extend(known(&meta, "directors")?.map(Event::Directors));
    events.extend(known(&meta, "director-addresses")?.map(Event::DirectorAddresses));
    events.extend(known(&meta, "api-servers")?.map(Event::ApiServers));
    // The loop must receive the objects before it receives `Event::Known`.
    if let Some(listings) = known::<Known>(&meta, "listings")? {
        let folder = listings.sources.values().find_map(|source| match source {
            Source::Folder(folder) => Some(*folder),
            Source::Version(_) | Source::Unordered(_) => None,
        });
        restored.folder = folder;
        events.push(Event::Known(listings));
    }
    Ok(restored)
}

/// Reads a row of [`META`]. A row that cannot be parsed is logged and counts as
/// missing.
fn known<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static str>,
    name: &str,
) -> Result<Option<T>, redb::Error> {
    let Some(row) = meta.get(name)? else {
        return Ok(None);
    };
    let read = serde_json::from_str(row.value());
    Ok(read
        .inspect_err(|error| tracing::warn!("cannot read the checkpoint's {name}: {error}"))
        .ok())
}

fn event(key: &str, row: &str) -> serde_json::Result<Option<Event>> {
    let event = match key.split('/').next() {
        Some("VirtualService") => Event::VirtualService(apply::<VirtualService>(row)?),
        Some("RealServer") => Event::RealServer(apply::<RealServer>(row)?),
        Some("DirectorGroup") => Event::DirectorGroup(apply::<DirectorGroup>(row)?),
        _ => return Ok(None),
    };
    Ok(Some(event))
}

fn apply<K>(row: &str) -> serde_json::Result<Change<K>>
where
    K: HasSpec<Spec: fmt::Debug + DeserializeOwned>,
{
    let mut object = serde_json::from_str::<Loose<K>>(row)?;
    let RowSource { is_from_file } = serde_json::from_str(row)?;
    // Older builds did not record an object's source. In rows of older builds,
    // an object without a creation time is from a file.
    let is_from_file = is_from_file.unwrap_or(object.metadata.creation_timestamp.is_none());
    if is_from_file {
        object.source = ObjectSource::File;
    }
    Ok(Change::Apply(object))
}

/// The part of an object's row that the Kubernetes object itself does not
/// contain.
#[derive(Deserialize)]
struct RowSource {
    /// Whether the object is from a file; `None` in rows that an older build
    /// wrote.
    #[serde(rename = "fromFile")]
    is_from_file: Option<bool>,
}

#[cfg(test)]
mod tests;
