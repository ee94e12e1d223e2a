//! The store of all objects from the API server or from a folder of manifests.
//!
//! The store keeps only the used parts of each object, so an agent with little
//! memory can hold tens of thousands of objects. The store checks each spec
//! when it arrives ([`crate::check`]), so a stored spec is valid by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use kube::core::object::HasSpec;

use crate::{
    Digest, Kind, Labels, Loose, ObjectKey, Rejection, Source,
    api::WorldDigests,
    check::{Checked, CheckedGroup, CheckedServer, CheckedService},
    condition::reason,
};

/// A stored object, reduced to the parts that are used.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<C> {
    /// The object's uid in the API server.
    pub uid: String,
    /// The object's `metadata.generation`. `current` is the spec of this
    /// generation, or its rejection.
    pub generation: i64,
    /// The creation time in seconds since 1970, or 0 for an object from a
    /// manifest, which has no creation time.
    pub created: i64,
    /// Where the object comes from.
    pub source: Source,
    /// The fields of the object's spec that this build does not know and leaves
    /// out.
    pub ignored: Box<[String]>,
    /// The object's labels.
    pub labels: Labels,
    /// The name of the object's DirectorGroup, as the spec in force gives it.
    /// If no spec is in force, the name comes from the rejected spec. Even a
    /// spec that does not parse can give the name.
    pub group: Option<String>,
    /// The checked spec, or the reason why the spec was rejected.
    pub current: Result<C, Rejection>,
    /// The last valid spec of the object, which stays in force while `current`
    /// is rejected.
    pub last_good: Option<Box<C>>,
    /// The digest over the object's uid, generation and labels.
    pub digest: Digest,
}

impl<C> Stored<C> {
    /// Returns the spec in force: the current spec, or the last valid spec if
    /// the current spec was rejected.
    pub fn in_force(&self) -> Option<&C> {
        self.current.as_ref().ok().or(self.last_good.as_deref())
    }
}

/// A change to the objects of one kind, as `kube::runtime::watcher` reports it.
#[derive(Debug)]
pub enum Change<K: HasSpec<Spec: fmt::Debug>> {
    /// A listing begins. When the listing is complete, the store deletes all
    /// objects that the listing did not name in an `Item`.
    Listing,
    /// The listing names an object.
    Item(Loose<K>),
    /// The listing is complete.
    Listed,
    /// An object is new or has changed.
    Apply(Loose<K>),
    /// An object is deleted.
    Delete(ObjectKey),
}

/// All objects of one kind.
#[derive(Clone, Debug)]
pub struct Store<C> {
    objects: Kept<C>,
    /// The objects that the current listing has named so far.
    listing: Option<Kept<C>>,
    listed: bool,
    gone: Kept<C>,
}

/// The objects of one kind, by key. A B-tree map that is filled in order leaves
/// half of its slots empty. The map holds boxes, so that an empty slot takes
/// little memory.
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
    /// Returns whether a listing has been completed. Before the first listing,
    /// an object that is not in the store may still exist.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// Returns the object with this key.
    pub fn get(&self, key: &ObjectKey) -> Option<&Stored<C>> {
        self.objects.get(key).map(|stored| &**stored)
    }

    /// Returns the object with this key from the current listing, or else from
    /// the store.
    pub fn latest(&self, key: &ObjectKey) -> Option<&Stored<C>> {
        let listing = self.listing.as_ref();
        let listed = listing.and_then(|listing| listing.get(key));
        listed
            .or_else(|| self.objects.get(key))
            .map(|stored| &**stored)
    }

    /// Returns all objects, sorted by namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Stored<C>)> {
        self.objects.iter().map(|(key, stored)| (key, &**stored))
    }

    /// Returns deleted objects with their last spec. Only kinds with
    /// [`Checked::KEPT_WHEN_GONE`] keep deleted objects.
    pub fn gone(&self) -> impl Iterator<Item = (&ObjectKey, &Stored<C>)> {
        self.gone.iter().map(|(key, stored)| (key, &**stored))
    }

    /// Returns the keys of the objects that the current listing has not named
    /// so far. When the listing is complete, the store removes these objects.
    pub fn left_out(&self) -> impl Iterator<Item = &ObjectKey> {
        let is_named = |key: &ObjectKey| {
            let listing = self.listing.as_ref();
            listing.is_some_and(|listing| listing.contains_key(key))
        };
        self.objects.keys().filter(move |key| !is_named(key))
    }

    /// Returns the number of objects in the store.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Returns whether the store has no object.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// Returns the digest over the objects of one DirectorGroup.
    pub fn digest(&self, group: &str) -> Digest {
        self.objects
            .values()
            .filter(|stored| stored.group.as_deref() == Some(group))
            .fold(Digest::default(), |digest, stored| digest ^ stored.digest)
    }

    /// Returns the digest over all objects of a namespace.
    pub fn digest_in(&self, namespace: &str) -> Digest {
        self.objects
            .range(ObjectKey::new(namespace, "")..)
            .take_while(|(key, _)| &*key.namespace == namespace)
            .fold(Digest::default(), |digest, (_, stored)| {
                digest ^ stored.digest
            })
    }

    /// Returns the digest of one object, or [`Digest::default`] if the object
    /// does not exist.
    pub fn digest_of(&self, key: &ObjectKey) -> Digest {
        self.get(key)
            .map_or_else(Digest::default, |stored| stored.digest)
    }
}

impl<C: Checked> Store<C>
where
    <C::Object as HasSpec>::Spec: fmt::Debug,
{
    /// Returns the keys of the objects that the current listing has named with
    /// another content than the store has. When the listing is complete, the
    /// store takes this content over.
    pub fn altered(&self) -> impl Iterator<Item = &ObjectKey> {
        let listing = self.listing.iter().flatten();
        let altered = listing.filter(|(key, listed)| {
            let before = self.objects.get(*key);
            before.is_some_and(|before| before != *listed)
        });
        altered.map(|(key, _)| key)
    }

    /// Applies a change. Returns whether the change affects what the store
    /// keeps. The store does not keep an object's status, for example.
    ///
    /// If a new spec does not parse, fails its check or changes an immutable
    /// field, the object's last valid spec stays in force. The last valid spec
    /// survives a new listing. The store drops this spec if the object's uid
    /// changes.
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

    /// Builds the stored form of an object from the object and its previous
    /// stored form.
    fn stored(&self, object: Loose<C::Object>) -> (ObjectKey, Box<Stored<C>>) {
        let named = C::group(&object);
        let Loose {
            metadata,
            spec,
            source,
            ignored,
            ..
        } = object;
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
        // A rejected edit does not move the object to another group.
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
            source,
            ignored: ignored.into(),
            labels: labels.into_iter().collect(),
            group,
            current,
            last_good,
        };
        (key, Box::new(stored))
    }

    /// Keeps a deleted object, if its kind has [`Checked::KEPT_WHEN_GONE`].
    fn leave(&mut self, key: ObjectKey, stored: Box<Stored<C>>) {
        if C::KEPT_WHEN_GONE && !self.objects.contains_key(&key) {
            self.gone.insert(key, stored);
        }
    }
}

/// Returns the rejection of a spec that does not parse; `error` names the
/// field.
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

/// The objects of all kinds.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// All VirtualServices.
    pub virtual_services: Store<CheckedService>,
    /// All RealServers.
    pub real_servers: Store<CheckedServer>,
    /// All DirectorGroups. A deleted group keeps its last spec
    /// ([`Store::gone`]) until it is created again.
    pub director_groups: Store<CheckedGroup>,
}

impl Objects {
    /// Returns whether all kinds have been listed at least once.
    pub fn is_listed(&self) -> bool {
        self.virtual_services.is_listed()
            && self.real_servers.is_listed()
            && self.director_groups.is_listed()
    }

    /// Returns the kinds that have not been listed yet.
    pub fn unlisted(&self) -> impl Iterator<Item = Kind> {
        let listed = [
            (Kind::VirtualService, self.virtual_services.is_listed()),
            (Kind::RealServer, self.real_servers.is_listed()),
            (Kind::DirectorGroup, self.director_groups.is_listed()),
        ];
        let unlisted = listed.into_iter().filter(|(_, is_listed)| !is_listed);
        unlisted.map(|(kind, _)| kind)
    }

    /// Returns a DirectorGroup by name. A deleted group is returned with its
    /// last spec.
    pub fn group(&self, name: &str) -> Option<&Stored<CheckedGroup>> {
        let key = ObjectKey::cluster(name);
        let gone = || self.director_groups.gone.get(&key);
        self.director_groups
            .get(&key)
            .or_else(|| gone().map(|stored| &**stored))
    }

    /// Returns the namespaces that have an object whose current version is not
    /// accepted. Programs may see these objects differently, because a program
    /// knows the last valid version of an object only if it saw that version.
    pub fn namespaces_with_outdated(&self) -> BTreeSet<&str> {
        fn outdated<C>(store: &Store<C>) -> impl Iterator<Item = &str> {
            let outdated = store.iter().filter(|(_, stored)| stored.current.is_err());
            outdated.map(|(key, _)| &*key.namespace)
        }
        let services = outdated(&self.virtual_services);
        services.chain(outdated(&self.real_servers)).collect()
    }

    /// Returns the digests of the objects that the directors of a group use.
    /// Both the agents and the controller compute them, and compare them.
    pub fn digests(&self, group: &str) -> WorldDigests {
        let services = self.virtual_services.iter();
        let services = services.filter(|(_, stored)| stored.group.as_deref() == Some(group));
        let namespaces: BTreeSet<&str> = services.map(|(key, _)| &*key.namespace).collect();
        let servers = namespaces.iter();
        let servers = servers.fold(Digest::default(), |digest, namespace| {
            digest ^ self.real_servers.digest_in(namespace)
        });
        let key = ObjectKey::cluster(group);
        WorldDigests {
            virtual_services: self.virtual_services.digest(group).to_string(),
            real_servers: servers.to_string(),
            director_groups: self.director_groups.digest_of(&key).to_string(),
        }
    }

    /// Returns the digest over a DirectorGroup and all objects of a namespace.
    pub fn digest_of_namespace(&self, group: &str, namespace: &str) -> Digest {
        let group = ObjectKey::cluster(group);
        self.director_groups.digest_of(&group)
            ^ self.virtual_services.digest_in(namespace)
            ^ self.real_servers.digest_in(namespace)
    }

    /// Returns whether a DirectorGroup existed and was deleted.
    pub fn is_group_gone(&self, name: &str) -> bool {
        self.director_groups
            .gone
            .contains_key(&ObjectKey::cluster(name))
    }
}

#[cfg(test)]
mod tests;
