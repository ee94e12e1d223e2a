//! Decides whether objects that a listing leaves out were really deleted. The
//! code is pure: it does no I/O.
//!
//! A DELETED event on a running watch is believed. The absence of an object
//! from a *listing* is believed only if two things hold:
//!
//! - The listing is newer than everything that this director has seen: its
//!   resourceVersion is higher than the highest known resourceVersion. A folder
//!   of manifests must be the same folder as in the last listing, and must
//!   contain at least one manifest.
//! - At least half of the services and half of the destinations of this
//!   director stay ([`crate::decide::guard::is_most`]).
//!
//! With these two rules, a director's table loses no entry if an etcd is
//! restored from an older backup, or if a folder is swapped or emptied. The
//! rules protect small tables too. The agent doubts the deletion of an object
//! until a listing or an event contains the object, or until the administrator
//! allows the removals.
//!
//! A listing that is not newer may also show an object in an older version: the
//! object went back. The older version takes effect, but it removes no entry
//! until a later change of the object, or until the administrator allows the
//! removals.
//!
//! ```text
//! listings ─▶ absent objects: doubted, or not judged yet; objects that went back
//!                  │ cause of each removal
//!                  ▼
//!       decide/retain: does half of the table stay? ─▶ Absence::judge
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, mem,
};

use crds::{Kind, ObjectKey};

use crate::event::origin::{Doubt, Known, Source};

/// The kind and the key of an object.
pub type Object = (Kind, ObjectKey);

/// Why an entry of ours is no longer wanted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// The entry's object was edited or deleted, or the object's absence is
    /// believed.
    Certain,
    /// A listing left the entry's object out. The listing is believed unless it
    /// would remove too many entries.
    Unjudged,
    /// A listing left the entry's object out, and the object's absence is not
    /// believed. Or a listing showed the object in an older version.
    Doubted,
}

/// A round's decision to keep the entries of absent objects. The round does not
/// treat these objects as deleted.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Doubtful {
    /// The objects to which the held entries belong.
    pub objects: BTreeSet<Object>,
    /// Whether some of the held entries are orphans: the agent does not know
    /// their objects.
    pub has_orphans: bool,
}

/// Summarizes the objects whose absence or older version is not believed. A
/// status shows this summary.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Missing {
    /// Why the listing of the objects is not believed.
    pub doubt: Doubt,
    /// The number of objects that went back to an older version.
    pub went_back: usize,
    /// The number of absent objects, or 0 if the agent does not know which
    /// objects are absent.
    pub objects: usize,
}

/// Whether the agent treats orphans as unwanted. An orphan is an entry of ours
/// for which this run has never known an object. There are orphans if the
/// checkpoint was lost, or if the listings came before the first round.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
enum Orphans {
    /// No round has decided about the orphans yet.
    Unjudged,
    /// The agent treats the orphans as unwanted.
    #[default]
    Believed,
    /// The agent keeps the orphans, because the listings may lack their objects
    /// by mistake. The field says why the agent doubts the listings.
    Doubted(Doubt),
}

/// A listing that has begun and is not complete.
#[derive(Clone, Debug)]
struct Listing {
    source: Source,
    /// The highest resourceVersion of the listed objects.
    highest: u64,
}

/// The objects that listings left out, and how new the listings were.
#[derive(Clone, Debug, Default)]
pub struct Absence {
    /// The newest known state of each source of objects.
    known: BTreeMap<Kind, Source>,
    /// The state of each source according to its last listing. The state in
    /// `known` may be newer.
    latest: BTreeMap<Kind, Source>,
    listings: BTreeMap<Kind, Listing>,
    /// The absent objects, each with the reason to doubt its deletion. If an
    /// object has no reason, no round has decided about the object yet.
    absent: BTreeMap<Object, Option<Doubt>>,
    /// The objects that an older listing showed in another version.
    went_back: BTreeMap<Object, Doubt>,
    orphans: Orphans,
    /// Whether the absent objects, the objects that went back or the sources
    /// have changed since the last checkpoint.
    is_unsaved: bool,
}

impl Absence {
    /// Returns the state of a run that has heard of no object yet. If the first
    /// listings have no object for an entry of ours, the object may be missing
    /// by mistake.
    pub fn of_new_run() -> Self {
        Self {
            orphans: Orphans::Unjudged,
            ..Self::default()
        }
    }

    /// Restores what the previous run recorded: the absent objects and the
    /// sources. The caller must restore the objects before it calls this
    /// function.
    pub fn restore(&mut self, known: Known) {
        self.known = known.sources;
        let doubted = known.doubted.into_iter();
        let doubted = doubted.map(|(kind, key, doubt)| ((kind, key), Some(doubt)));
        self.absent = doubted.collect();
        let went_back = known.went_back.into_iter();
        let went_back = went_back.map(|(kind, key, doubt)| ((kind, key), doubt));
        self.went_back = went_back.collect();
    }

    /// Notes that a listing of a kind of objects begins.
    pub fn begin(&mut self, kind: Kind, source: Source) {
        let highest = 0;
        self.listings.insert(kind, Listing { source, highest });
    }

    /// Notes that the current listing contains an object. `version` is the
    /// object's resourceVersion if that is a number.
    pub fn list(&mut self, kind: Kind, version: Option<u64>) {
        if let (Some(listing), Some(version)) = (self.listings.get_mut(&kind), version) {
            listing.highest = listing.highest.max(version);
        }
    }

    /// Notes that an event showed an object. `version` is the object's
    /// resourceVersion if that is a number. `is_used` says whether the event
    /// changed a part of the object that the agent uses. If `is_used` is false,
    /// the checkpoint need not record the new version. The checkpoint already
    /// has the version of the object's creation, or a later one. That version
    /// suffices to recognize an older listing that lacks the object.
    pub fn apply(&mut self, kind: Kind, key: &ObjectKey, version: Option<u64>, is_used: bool) {
        self.is_absent_no_longer(kind, key);
        // A new status alone is no later version of an object that went back.
        if is_used {
            self.is_back_no_longer(kind, key);
        }
        let Some(version) = version else {
            return;
        };
        for sources in [&mut self.known, &mut self.latest] {
            match sources.get_mut(&kind) {
                Some(Source::Version(highest)) if *highest < version => {
                    *highest = version;
                    self.is_unsaved |= is_used;
                }
                _ => {}
            }
        }
    }

    /// Notes that an event deleted an object. From now on, earlier listings of
    /// the object no longer count.
    pub fn forget(&mut self, kind: Kind, key: &ObjectKey) {
        self.is_absent_no_longer(kind, key);
        self.is_back_no_longer(kind, key);
    }

    fn is_absent_no_longer(&mut self, kind: Kind, key: &ObjectKey) {
        if !self.absent.is_empty() && self.absent.remove(&(kind, key.clone())).is_some() {
            self.is_unsaved = true;
        }
    }

    fn is_back_no_longer(&mut self, kind: Kind, key: &ObjectKey) {
        if !self.went_back.is_empty() && self.went_back.remove(&(kind, key.clone())).is_some() {
            self.is_unsaved = true;
        }
    }

    /// Notes that a listing is complete. `left_out` lists the known objects that
    /// the listing does not name, and `altered` those that it shows with another
    /// content. `is_there` returns whether the listing names an object.
    pub fn end(
        &mut self,
        kind: Kind,
        left_out: impl IntoIterator<Item = ObjectKey>,
        altered: impl IntoIterator<Item = ObjectKey>,
        is_there: impl Fn(&ObjectKey) -> bool,
    ) {
        let listing = self.listings.remove(&kind);
        let doubt = listing
            .as_ref()
            .and_then(|listing| self.doubt_of(kind, &listing.source));
        for key in left_out {
            self.is_back_no_longer(kind, &key);
            let why = self.absent.entry((kind, key)).or_default();
            if why.is_none() {
                why.clone_from(&doubt);
            }
            self.is_unsaved = true;
        }
        for key in altered {
            match &doubt {
                Some(doubt @ Doubt::Older { .. }) => {
                    self.went_back.insert((kind, key), doubt.clone());
                    self.is_unsaved = true;
                }
                _ => self.is_back_no_longer(kind, &key),
            }
        }
        let before = self.absent.len();
        self.absent
            .retain(|(of, key), _| *of != kind || !is_there(key));
        self.is_unsaved |= self.absent.len() != before;
        if let Some(listing) = listing {
            self.note_source(kind, listing);
        }
    }

    fn doubt_of(&self, kind: Kind, source: &Source) -> Option<Doubt> {
        match (self.known.get(&kind), source) {
            (_, Source::Unordered(version)) => Some(Doubt::Unordered(version.clone())),
            (_, Source::Folder(folder)) if folder.is_empty => Some(Doubt::EmptyFolder),
            (None, _) => None,
            (Some(Source::Version(known)), Source::Version(found)) => {
                let (known, found) = (*known, *found);
                (found <= known).then_some(Doubt::Older { known, found })
            }
            (Some(Source::Unordered(_)), Source::Version(_)) => None,
            (Some(Source::Folder(known)), Source::Folder(found)) => {
                (!known.is_same(found)).then_some(Doubt::OtherFolder)
            }
            (Some(Source::Folder(_)), Source::Version(_))
            | (Some(Source::Version(_) | Source::Unordered(_)), Source::Folder(_)) => {
                Some(Doubt::OtherSource)
            }
        }
    }

    /// Records the source of a complete listing. The highest known
    /// resourceVersion never falls.
    fn note_source(&mut self, kind: Kind, listing: Listing) {
        let Listing { source, highest } = listing;
        let latest = match source {
            Source::Version(version) => Source::Version(version.max(highest)),
            source => source,
        };
        let known = match (self.known.get(&kind), &latest) {
            (Some(Source::Version(known)), Source::Version(found)) => {
                Source::Version(*known.max(found))
            }
            _ => latest.clone(),
        };
        self.is_unsaved |= self.known.get(&kind) != Some(&known);
        self.known.insert(kind, known);
        self.latest.insert(kind, latest);
    }

    /// Returns why an entry is no longer wanted. `object` is the object that
    /// wanted the entry, or none if the object is not known.
    pub fn cause(&self, kind: Kind, object: Option<&ObjectKey>) -> Cause {
        let Some(object) = object else {
            return self.cause_of_orphans();
        };
        if self.absent.is_empty() && self.went_back.is_empty() {
            return Cause::Certain;
        }
        let object = (kind, object.clone());
        match self.absent.get(&object) {
            None if self.went_back.contains_key(&object) => Cause::Doubted,
            None => Cause::Certain,
            Some(None) => Cause::Unjudged,
            Some(Some(_)) => Cause::Doubted,
        }
    }

    fn cause_of_orphans(&self) -> Cause {
        match self.orphans {
            Orphans::Believed => Cause::Certain,
            Orphans::Doubted(_) => Cause::Doubted,
            // An orphan may belong to any absent object.
            Orphans::Unjudged if self.first_doubt().is_some() => Cause::Doubted,
            Orphans::Unjudged => Cause::Unjudged,
        }
    }

    fn first_doubt(&self) -> Option<&Doubt> {
        let absent = self.absent.values().flatten();
        absent.chain(self.went_back.values()).next()
    }

    /// Records a round's decision about the absent objects. Objects in
    /// `doubtful` count as missing by mistake, and all other absent objects
    /// count as deleted. Returns the objects that count as deleted now.
    pub fn judge(&mut self, doubtful: &Doubtful) -> Vec<Object> {
        let is_all_certain = self.absent.is_empty() && self.went_back.is_empty();
        if is_all_certain && self.orphans == Orphans::Believed {
            return Vec::new();
        }
        let first = self.first_doubt().cloned();
        let before = self.went_back.len();
        self.went_back
            .retain(|object, _| doubtful.has_orphans || doubtful.objects.contains(object));
        self.is_unsaved |= self.went_back.len() != before;
        let mut believed = Vec::new();
        for (object, doubt) in mem::take(&mut self.absent) {
            // The object of an orphan may be any absent object.
            if doubtful.has_orphans || doubtful.objects.contains(&object) {
                self.is_unsaved |= doubt.is_none();
                let doubt = doubt.unwrap_or(Doubt::MostMissing);
                self.absent.insert(object, Some(doubt));
            } else {
                self.is_unsaved |= doubt.is_some();
                believed.push(object);
            }
        }
        self.orphans = match (&self.orphans, doubtful.has_orphans) {
            (_, false) => Orphans::Believed,
            (Orphans::Doubted(doubt), true) => Orphans::Doubted(doubt.clone()),
            (_, true) => Orphans::Doubted(first.unwrap_or(Doubt::MostMissing)),
        };
        believed
    }

    /// Treats all absent objects as deleted and all older versions as edits,
    /// because the administrator allowed the removals. Also copies the state of
    /// each source from `latest` to `known`. Returns the objects that were
    /// absent.
    pub fn release(&mut self) -> Vec<Object> {
        self.orphans = Orphans::Believed;
        for (kind, latest) in &self.latest {
            self.is_unsaved |= self.known.get(kind) != Some(latest);
            self.known.insert(*kind, latest.clone());
        }
        self.is_unsaved |= !self.absent.is_empty() || !self.went_back.is_empty();
        self.went_back.clear();
        mem::take(&mut self.absent).into_keys().collect()
    }

    /// Returns the objects whose absence or older version is not believed, if
    /// there are any.
    pub fn missing(&self) -> Option<Missing> {
        let orphans = match &self.orphans {
            Orphans::Doubted(doubt) => Some(doubt),
            Orphans::Unjudged | Orphans::Believed => None,
        };
        let doubt = self.first_doubt().or(orphans)?.clone();
        let objects = self.absent.values().flatten().count();
        Some(Missing {
            doubt,
            went_back: self.went_back.len(),
            objects,
        })
    }

    /// Returns the state that the next run needs, if it has changed since the
    /// last call.
    pub fn unsaved(&mut self) -> Option<Known> {
        let doubted = self.absent.iter().filter_map(|((kind, key), doubt)| {
            let doubt = doubt.clone()?;
            Some((*kind, key.clone(), doubt))
        });
        let went_back = self.went_back.iter();
        let went_back = went_back.map(|((kind, key), doubt)| (*kind, key.clone(), doubt.clone()));
        mem::take(&mut self.is_unsaved).then(|| Known {
            sources: self.known.clone(),
            doubted: doubted.collect(),
            went_back: went_back.collect(),
        })
    }
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.objects, self.went_back) {
            (0, 0) => f.write_str("the objects of these entries are missing")?,
            (0, 1) => f.write_str("1 object went back to an older version")?,
            (0, back) => write!(f, "{back} objects went back to an older version")?,
            (1, 0) => f.write_str("1 object is missing, but was not seen being deleted")?,
            (objects, 0) => write!(
                f,
                "{objects} objects are missing, but were not seen being deleted"
            )?,
            (objects, back) => write!(
                f,
                "objects are missing, but were not seen being deleted ({objects}), or went back \
                 to an older version ({back})"
            )?,
        }
        match &self.doubt {
            Doubt::Older { known, found } => write!(
                f,
                ", and the API server lists its objects at resourceVersion {found}, which is not \
                 higher than {known}, the highest that this director has seen: etcd was probably \
                 restored from an older backup. Apply the objects again as they were, or allow the \
                 removals"
            ),
            Doubt::Unordered(version) => write!(
                f,
                ", and the API server lists its objects at resourceVersion {version}, which is \
                 not a number, so the list may be an old one. Apply the missing objects again, or \
                 allow the removals"
            ),
            Doubt::EmptyFolder => write!(
                f,
                ": the folder of manifests has no file. Put the files back, or allow the removals: \
                 without an API server, set spec.removals.allowUntil in a manifest of the \
                 DirectorGroup"
            ),
            Doubt::OtherFolder => write!(
                f,
                ": the folder of manifests is another one than before. Put the files back, or \
                 allow the removals: without an API server, set spec.removals.allowUntil in a \
                 manifest of the DirectorGroup"
            ),
            Doubt::OtherSource => write!(
                f,
                ": the previous run of the agent read the objects of an API server and this one \
                 reads a folder of manifests, or the other way around. Add the missing objects to \
                 the new source, or allow the removals"
            ),
            Doubt::MostMissing => write!(
                f,
                ", and more than half of this director's table would go. Apply the missing \
                 objects again, or allow the removals"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
