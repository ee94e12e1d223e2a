//! The checkpoint: the last known good objects, on disk. An agent starts with
//! the checkpoint's objects before any input has answered. The agent also falls
//! back to the stored version of an object that it can no longer read.
//!
//! ```text
//! disk ─▶ Restored ─▶ events, before those of the inputs
//! events ─▶ Tee ─▶ Store; what is good in it ─▶ Recorder ─▶ thread ─▶ disk
//! ```
//!
//! The checkpoint may lag behind by seconds, and nothing waits for it. The
//! checkpoint's objects were accepted once, so the agent creates missing
//! entries from them. The agent never removes an entry because of the
//! checkpoint alone ([`crate::director`]).

mod tee;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crds::{
    Change, Kind, Loose, ObjectKey,
    api::{DirectorGroup, RealServer, VirtualService},
};
use kube::core::object::HasSpec;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::de::DeserializeOwned;
use serde_json::json;

pub use self::tee::Tee;
use super::database;
use crate::{
    decide::serving::memory::Memory,
    event::{
        Event,
        origin::{Folder, Known, Source},
    },
    said::Said,
};

/// Maps `kind/namespace/name` to the object, with the metadata that the agent
/// uses.
const OBJECTS: TableDefinition<'_, &str, &str> = TableDefinition::new("objects");
/// Maps a manifest's path to its last good text.
const FILES: TableDefinition<'_, &str, &str> = TableDefinition::new("files");
/// The remembered health of servers: rows of
/// [`crate::decide::serving::memory`]. An older build of the agent ignores this
/// table.
const STANDINGS: TableDefinition<'_, &str, &str> = TableDefinition::new("standings");
/// The checkpoint's metadata by name: `schema`; `directors`, the names of the
/// group's directors; `director-addresses`, the directors' addresses by name;
/// `api-servers`, the addresses at which the agent reached the API server;
/// `listings`, how new the known objects are, and the objects whose absence from
/// a listing is not believed.
const META: TableDefinition<'_, &str, &str> = TableDefinition::new("meta");
const SCHEMA: &str = "1";
/// The name of the checkpoint's file in the state folder.
pub const FILE: &str = "checkpoint.redb";
/// Changes that arrive within this time of each other are written together.
const QUIET: Duration = Duration::from_secs(1);
/// The longest time that a write is delayed to collect more changes.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most changes in one write of the checkpoint. The limit keeps a listing
/// of many objects from being held in memory as a whole.
const LARGEST: usize = 4000;

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

/// One change for the checkpoint to store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// An object's row, or `None` if the object was deleted.
    Object(Kind, ObjectKey, Option<String>),
    /// The keys of all objects of a kind that still exist, or that may exist
    /// although a listing left them out. The checkpoint deletes the rows of all
    /// other objects of this kind.
    Listed(Kind, BTreeSet<ObjectKey>),
    /// The names of the group's directors.
    Directors(BTreeSet<String>),
    /// The addresses of the directors' hosts, by the director's name.
    DirectorAddresses(BTreeMap<String, BTreeSet<IpAddr>>),
    /// The addresses at which the agent reached the API server.
    ApiServers(BTreeSet<SocketAddr>),
    /// What is known about the listings.
    Listings(Known),
    /// A manifest's good text, or `None` if the file is gone.
    File(PathBuf, Option<String>),
    /// The remembered health of servers, by row key. A row with the value
    /// `None` is deleted.
    Standings(BTreeMap<String, Option<String>>),
    /// The last note: the checkpoint writes everything now.
    End,
}

/// Sends notes to the checkpoint, from any thread. Without a disk the notes are
/// lost.
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
        // Sending fails when there is no disk.
        self.0.send(note).unwrap_or_default();
    }
}

/// The error when the checkpoint cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {source}")]
pub struct CheckpointError {
    path: PathBuf,
    source: Box<redb::Error>,
}

/// The checkpoint in the state folder.
pub struct Checkpoint {
    path: PathBuf,
    database: Database,
}

impl Checkpoint {
    /// Opens or creates the checkpoint in a state folder, and reads its
    /// content. A file that is damaged or from a newer build is renamed out of
    /// the way.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be used.
    pub fn open(folder: &Path) -> Result<(Self, Restored), CheckpointError> {
        let path = folder.join(FILE);
        let failed = |source: redb::Error| CheckpointError {
            path: path.clone(),
            source: Box::new(source),
        };
        fs::create_dir_all(folder).map_err(|error| failed(error.into()))?;
        match Self::open_file(&path) {
            Err(error) if database::is_content(&error) => {
                let aside = database::set_aside(&path).map_err(|error| failed(error.into()))?;
                tracing::warn!(
                    "the checkpoint {} cannot be used ({error}); set aside as {}",
                    path.display(),
                    aside.display()
                );
                Self::open_file(&path)
            }
            other => other,
        }
        .map_err(failed)
    }

    fn open_file(path: &Path) -> Result<(Self, Restored), redb::Error> {
        let database = database::builder().create(path)?;
        let restored = read(&database)?;
        let path = path.to_owned();
        Ok((Self { path, database }, restored))
    }

    /// Starts a thread that writes the notes until [`Note::End`].
    ///
    /// # Errors
    /// Returns an error if the system has no thread left.
    pub fn record(self, notes: Receiver<Note>) -> std::io::Result<JoinHandle<()>> {
        thread::Builder::new()
            .name("checkpoint".to_owned())
            .spawn(move || self.write_all(&notes))
    }

    fn write_all(self, notes: &Receiver<Note>) {
        let mut said = Said::default();
        while let Ok(first) = notes.recv() {
            let (batch, is_last) = gather(first, notes);
            let outcome = self.write(&batch).map_err(|error| {
                format!(
                    "cannot write the checkpoint {}: {error}; if the agent restarts while the API \
                     server is away, it will start from an older state",
                    self.path.display()
                )
            });
            said.warn(outcome.err().into_iter().collect::<BTreeSet<_>>());
            if is_last {
                return;
            }
        }
    }

    fn write(&self, batch: &[Note]) -> Result<(), redb::Error> {
        let transaction = self.database.begin_write()?;
        {
            let mut objects = transaction.open_table(OBJECTS)?;
            let mut files = transaction.open_table(FILES)?;
            let mut standings = transaction.open_table(STANDINGS)?;
            let mut meta = transaction.open_table(META)?;
            for note in batch {
                match note {
                    Note::Object(kind, key, Some(row)) => {
                        let key = &*row_key(*kind, key);
                        // A listing mostly repeats rows that are already
                        // stored.
                        let is_there = objects.get(key)?.is_some_and(|found| found.value() == row);
                        if !is_there {
                            objects.insert(key, row.as_str())?;
                        }
                    }
                    Note::Object(kind, key, None) => {
                        objects.remove(&*row_key(*kind, key))?;
                    }
                    Note::Listed(kind, names) => {
                        let kept: BTreeSet<_> =
                            names.iter().map(|key| row_key(*kind, key)).collect();
                        let prefix = format!("{kind}/");
                        objects.retain(|key, _| !key.starts_with(&prefix) || kept.contains(key))?;
                    }
                    Note::Directors(names) => {
                        meta.insert("directors", json!(names).to_string().as_str())?;
                    }
                    Note::DirectorAddresses(addresses) => {
                        let row = json!(addresses).to_string();
                        meta.insert("director-addresses", row.as_str())?;
                    }
                    Note::ApiServers(servers) => {
                        meta.insert("api-servers", json!(servers).to_string().as_str())?;
                    }
                    Note::Listings(known) => {
                        meta.insert("listings", json!(known).to_string().as_str())?;
                    }
                    Note::File(path, Some(text)) => {
                        files.insert(&*path.to_string_lossy(), text.as_str())?;
                    }
                    Note::File(path, None) => {
                        files.remove(&*path.to_string_lossy())?;
                    }
                    Note::Standings(rows) => {
                        for (key, row) in rows {
                            match row {
                                Some(row) => standings.insert(&**key, &**row)?,
                                None => standings.remove(&**key)?,
                            };
                        }
                    }
                    Note::End => {}
                }
            }
        }
        transaction.commit()?;
        Ok(())
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({})", self.path.display())
    }
}

fn row_key(kind: Kind, key: &ObjectKey) -> String {
    format!("{kind}/{}/{}", key.namespace, key.name)
}

/// Collects the notes that arrive soon after the first one. Also returns
/// whether [`Note::End`] is among the notes.
fn gather(first: Note, notes: &Receiver<Note>) -> (Vec<Note>, bool) {
    let mut is_last = first == Note::End;
    let mut batch = vec![first];
    let latest = Instant::now() + PATIENCE;
    while !is_last && batch.len() < LARGEST && Instant::now() < latest {
        match notes.recv_timeout(QUIET) {
            Ok(note) => {
                is_last = note == Note::End;
                batch.push(note);
            }
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => is_last = true,
        }
    }
    (batch, is_last)
}

fn read(database: &Database) -> Result<Restored, redb::Error> {
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

    let transaction = database.begin_read()?;
    let mut restored = Restored::default();
    for row in transaction.open_table(OBJECTS)?.iter()? {
        let (key, row) = row?;
        match event(key.value(), row.value()) {
            Ok(event) => restored.events.extend(event),
            // One bad row must not make the other rows useless.
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
    // The loop must hear of the objects before it hears which ones are doubted.
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
    serde_json::from_str::<Loose<K>>(row).map(Change::Apply)
}

#[cfg(test)]
mod tests;
