//! Passes changes of objects to the store and to the checkpoint.

use std::{collections::BTreeSet, fmt};

use crds::{Change, Checked, Kind, Loose, ObjectKey, Source, Store};
use kube::core::object::HasSpec;
use serde::Serialize;
use serde_json::json;

use super::{Note, Recorder};

/// Passes changes of one kind of object to the store, and sends the good
/// objects to the checkpoint.
#[derive(Debug)]
pub struct Tee {
    kind: Kind,
    recorder: Recorder,
    /// The keys of the objects that the current listing has returned so far.
    listing: BTreeSet<ObjectKey>,
    /// The keys of the rows that are kept although a listing left out their
    /// objects.
    kept: BTreeSet<ObjectKey>,
}

impl Tee {
    /// Makes a `Tee` for the objects of one kind.
    pub fn new(kind: Kind, recorder: Recorder) -> Self {
        Self {
            kind,
            recorder,
            listing: BTreeSet::new(),
            kept: BTreeSet::new(),
        }
    }

    /// Returns the kind of the objects that go through this `Tee`.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Keeps the rows of objects that the current listing leaves out. A row is
    /// kept until [`Tee::forget`] is called, the object is seen again, or an
    /// event deletes the object.
    pub fn keep(&mut self, left_out: impl IntoIterator<Item = ObjectKey>) {
        self.kept.extend(left_out);
    }

    /// Deletes the kept row of an object that a listing left out.
    pub fn forget(&mut self, key: ObjectKey) {
        if self.kept.remove(&key) {
            self.recorder.note(Note::Object(self.kind, key, None));
        }
    }

    /// Calls [`Store::change`], and sends the result to the checkpoint.
    pub fn change<C>(&mut self, store: &mut Store<C>, change: Change<C::Object>) -> bool
    where
        C: Checked,
        <C::Object as HasSpec>::Spec: fmt::Debug + Serialize,
    {
        match change {
            Change::Listing => {
                self.listing.clear();
                store.change(change)
            }
            Change::Item(object) => {
                let key = ObjectKey::of_metadata(&object.metadata);
                let row = row(&object);
                let changed = store.change(Change::Item(object));
                self.note_good(store, &key, row);
                self.listing.insert(key);
                changed
            }
            Change::Listed => {
                let changed = store.change(change);
                let mut names = std::mem::take(&mut self.listing);
                self.kept.retain(|key| !names.contains(key));
                names.extend(self.kept.iter().cloned());
                if C::KEPT_WHEN_GONE {
                    names.extend(store.gone().map(|(key, _)| key.clone()));
                }
                self.recorder.note(Note::Listed(self.kind, names));
                changed
            }
            Change::Apply(object) => {
                let key = ObjectKey::of_metadata(&object.metadata);
                self.kept.remove(&key);
                let row = row(&object);
                let changed = store.change(Change::Apply(object));
                if changed {
                    self.note_good(store, &key, row);
                }
                changed
            }
            Change::Delete(key) => {
                self.kept.remove(&key);
                if !C::KEPT_WHEN_GONE {
                    let note = Note::Object(self.kind, key.clone(), None);
                    self.recorder.note(note);
                }
                store.change(Change::Delete(key))
            }
        }
    }

    /// Stores an object's row in the checkpoint if the object is good. An
    /// object that cannot be read or is not accepted keeps its previous row in
    /// the checkpoint.
    fn note_good<C: Checked>(&self, store: &Store<C>, key: &ObjectKey, row: Option<String>) {
        let is_good = store
            .latest(key)
            .is_some_and(|stored| stored.current.is_ok());
        if let Some(row) = row.filter(|_| is_good) {
            let note = Note::Object(self.kind, key.clone(), Some(row));
            self.recorder.note(note);
        }
    }
}

/// Returns an object's row for the checkpoint, or `None` if the object does not
/// parse.
fn row<K: HasSpec<Spec: Serialize>>(object: &Loose<K>) -> Option<String> {
    let spec = object.spec.as_ref().ok()?;
    let metadata = &object.metadata;
    let row = json!({
        "metadata": {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "generation": metadata.generation,
            "labels": metadata.labels,
            "creationTimestamp": metadata.creation_timestamp,
        },
        "spec": spec,
        "fromFile": object.source == Source::File,
    });
    Some(row.to_string())
}
