//! The store of what the API server or a folder of manifests says.
//!
//! Of an object only what is used is kept, so that tens of thousands of them
//! fit into a small agent. Specs are checked on the way in ([`crate::check`]):
//! what stands in the store cannot be wrong by itself.

use std::{collections::BTreeMap, fmt};

use kube::core::object::HasSpec;

use crate::{
    Digest, Labels, Loose, ObjectKey, Rejection,
    check::{Checked, CheckedGroup, CheckedServer, CheckedService},
    condition::reason,
};

/// One object, reduced to what is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<C> {
    /// The object's uid.
    pub uid: String,
    /// The generation that `current` is of.
    pub generation: i64,
    /// Seconds since 1970; 0 where there is no creation time, as in manifests.
    pub created: i64,
    /// The object's labels.
    pub labels: Labels,
    /// The group that the object belongs to: that of the spec in force, or else
    /// the one that it names, also where the rest is unreadable.
    pub group: Option<String>,
    /// The checked spec, or why there is none.
    pub current: Result<C, Rejection>,
    /// The last good spec, while `current` is not one: it stays in force.
    pub last_good: Option<Box<C>>,
    /// Over uid, generation and labels.
    pub digest: Digest,
}

impl<C> Stored<C> {
    /// What is in force: the current spec, or else the last good one.
    pub fn in_force(&self) -> Option<&C> {
        self.current.as_ref().ok().or(self.last_good.as_deref())
    }
}

/// What happened to the objects of one kind, as `kube::runtime::watcher` says it.
#[derive(Debug)]
pub enum Change<K: HasSpec<Spec: fmt::Debug>> {
    /// A listing begins; what it does not name by `Item` was deleted.
    Listing,
    /// One object of the listing.
    Item(Loose<K>),
    /// The listing is complete.
    Listed,
    /// One object is new or changed.
    Apply(Loose<K>),
    /// One object is gone.
    Delete(ObjectKey),
}

/// The objects of one kind.
#[derive(Clone, Debug)]
pub struct Store<C> {
    objects: Kept<C>,
    /// What the listing that is under way has named so far.
    listing: Option<Kept<C>>,
    listed: bool,
    gone: Kept<C>,
}

/// Boxed, as half of a map's places are empty when it was filled in order.
type Kept<C> = BTreeMap<ObjectKey, Box<Stored<C>>>;

impl<C> Default for Store<C> {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            listing: None,
            listed: false,
            gone: BTreeMap::new(),
        }
    }
}

impl<C> Store<C> {
    /// Whether one listing was complete: until then an object that is not here
    /// may only not have been heard of yet.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Stored<C>> {
        self.objects.get(key).map(|stored| &**stored)
    }

    /// One object of the listing that is under way, or else as
    /// [`get`](Self::get) has it.
    pub fn latest(&self, key: &ObjectKey) -> Option<&Stored<C>> {
        let listing = self.listing.as_ref();
        let listed = listing.and_then(|listing| listing.get(key));
        listed
            .or_else(|| self.objects.get(key))
            .map(|stored| &**stored)
    }

    /// All objects, by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Stored<C>)> {
        self.objects.iter().map(|(key, stored)| (key, &**stored))
    }

    /// Objects that were here and are deleted, with their last spec; only for
    /// kinds with [`Checked::KEPT_WHEN_GONE`].
    pub fn gone(&self) -> impl Iterator<Item = (&ObjectKey, &Stored<C>)> {
        self.gone.iter().map(|(key, stored)| (key, &**stored))
    }

    /// How many objects there are.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there is no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Over all objects, or over those that name one group.
    pub fn digest(&self, group: Option<&str>) -> Digest {
        self.objects
            .values()
            .filter(|stored| group.is_none() || stored.group.as_deref() == group)
            .fold(Digest::default(), |digest, stored| digest ^ stored.digest)
    }

    /// Over one object: [`Digest::default`] where there is none.
    pub fn digest_of(&self, key: &ObjectKey) -> Digest {
        self.get(key)
            .map_or_else(Digest::default, |stored| stored.digest)
    }
}

impl<C: Checked> Store<C>
where
    <C::Object as HasSpec>::Spec: fmt::Debug,
{
    /// Takes in what happened, and says whether anything that is used is
    /// different now; a status that somebody wrote is not.
    ///
    /// An object whose spec does not parse, fails its check or changes what is
    /// immutable keeps the last good spec of the same uid, also over a new
    /// listing.
    pub fn change(&mut self, change: Change<C::Object>) -> bool {
        match change {
            Change::Listing => {
                self.listing = Some(BTreeMap::new());
                false
            }
            Change::Item(object) => {
                let (key, stored) = self.stored(object);
                self.listing.get_or_insert_default().insert(key, stored);
                false
            }
            Change::Listed => {
                let now = self.listing.take().unwrap_or_default();
                let changed = !self.listed || now != self.objects;
                self.listed = true;
                let before = std::mem::replace(&mut self.objects, now);
                for (key, stored) in before {
                    self.leave(key, stored);
                }
                self.gone.retain(|key, _| !self.objects.contains_key(key));
                changed
            }
            Change::Apply(object) => {
                let (key, stored) = self.stored(object);
                if let Some(listing) = &mut self.listing {
                    listing.insert(key.clone(), stored.clone());
                }
                self.gone.remove(&key);
                let changed = self.objects.get(&key) != Some(&stored);
                self.objects.insert(key, stored);
                changed
            }
            Change::Delete(key) => {
                if let Some(listing) = &mut self.listing {
                    listing.remove(&key);
                }
                let Some(stored) = self.objects.remove(&key) else {
                    return false;
                };
                self.leave(key, stored);
                true
            }
        }
    }

    /// What is kept of an object, given what was kept of it before.
    fn stored(&self, object: Loose<C::Object>) -> (ObjectKey, Box<Stored<C>>) {
        let named = C::group(&object);
        let Loose { metadata, spec, .. } = object;
        let key = ObjectKey {
            namespace: metadata.namespace.unwrap_or_default().into(),
            name: metadata.name.unwrap_or_default().into(),
        };
        let uid = metadata.uid.unwrap_or_default();
        let before = self
            .listing
            .as_ref()
            .and_then(|listing| listing.get(&key))
            .or_else(|| self.objects.get(&key))
            .filter(|before| before.uid == uid);
        let good = before.and_then(|before| before.in_force());

        let current = spec
            .map_err(|error| unreadable(&error))
            .and_then(|spec| C::check(&spec))
            .and_then(|checked| {
                if let Some(good) = good {
                    checked.may_follow(good)?;
                }
                Ok(checked)
            });
        let last_good = match &current {
            Ok(_) => None,
            Err(_) => good.cloned().map(Box::new),
        };
        // A rejected edit moves nothing to another group.
        let group = match (&last_good, before) {
            (Some(_), Some(before)) => before.group.clone(),
            _ => named,
        };
        let generation = metadata.generation.unwrap_or_default();
        let labels = metadata.labels.unwrap_or_default();
        let stored = Stored {
            digest: Digest::of(&uid, generation, &labels),
            uid,
            generation,
            created: metadata
                .creation_timestamp
                .map_or(0, |time| time.0.as_second()),
            labels: labels.into_iter().collect(),
            group,
            current,
            last_good,
        };
        (key, Box::new(stored))
    }

    /// An object is not among the objects any more.
    fn leave(&mut self, key: ObjectKey, stored: Box<Stored<C>>) {
        if C::KEPT_WHEN_GONE && !self.objects.contains_key(&key) {
            self.gone.insert(key, stored);
        }
    }
}

/// A spec does not parse; `error` names the field.
fn unreadable(error: &str) -> Rejection {
    Rejection {
        reason: reason::UNREADABLE,
        message: format!(
            "{error}. This version of ipvs-operator ({}) cannot read the object: correct the \
             field, or upgrade if the object is of a newer version",
            env!("CARGO_PKG_VERSION")
        ),
    }
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// VirtualServices.
    pub virtual_services: Store<CheckedService>,
    /// RealServers.
    pub real_servers: Store<CheckedServer>,
    /// DirectorGroups. One that was seen and is gone keeps its last spec
    /// ([`Store::gone`]) until it is made again.
    pub director_groups: Store<CheckedGroup>,
}

impl Objects {
    /// Whether all kinds have been listed.
    pub fn is_listed(&self) -> bool {
        self.virtual_services.is_listed()
            && self.real_servers.is_listed()
            && self.director_groups.is_listed()
    }

    /// A group that exists, or its last spec if it was seen and is gone.
    pub fn group(&self, name: &str) -> Option<&Stored<CheckedGroup>> {
        let key = ObjectKey::cluster(name);
        let gone = || self.director_groups.gone.get(&key);
        self.director_groups
            .get(&key)
            .or_else(|| gone().map(|stored| &**stored))
    }

    /// Whether a group was seen and is gone.
    pub fn is_group_gone(&self, name: &str) -> bool {
        self.director_groups
            .gone
            .contains_key(&ObjectKey::cluster(name))
    }
}

#[cfg(test)]
mod tests;
