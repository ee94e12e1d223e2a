//! The store of what the API server or a folder of manifests says.
//!
//! Of an object only what is used is kept, so that tens of thousands of them
//! fit into a small agent. Specs are checked on the way in ([`crate::check`]):
//! what stands in the store cannot be wrong by itself.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::{
    Digest, Rejection,
    check::{CheckedGroup, CheckedServer, CheckedService},
    loose::Loose,
};

/// Which of our kinds an object is of.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Kind {
    /// VirtualService.
    VirtualService,
    /// RealServer.
    RealServer,
    /// DirectorGroup.
    DirectorGroup,
}

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct ObjectKey {
    /// Empty for cluster-scoped kinds.
    pub namespace: String,
    /// The object's name.
    pub name: String,
}

/// `namespace/name`, or `name` alone.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// A type that a store can hold: the checked form of a raw spec.
pub trait Checked: Sized + Clone + PartialEq {
    /// The spec as users write it.
    type Spec;
    /// Checks a spec by itself.
    fn check(spec: &Self::Spec) -> Result<Self, Rejection>;
}

/// One object, reduced to what is used.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored<C> {
    /// The object's uid.
    pub uid: String,
    /// The generation that `current` is of.
    pub generation: i64,
    /// Seconds since 1970.
    pub created: i64,
    /// The object's labels.
    pub labels: BTreeMap<String, String>,
    /// The group that the object names, also where the rest is unreadable.
    pub group: Option<String>,
    /// The checked spec, or why there is none.
    pub current: Result<C, Rejection>,
    /// The last good spec, while `current` is not one: it stays in force.
    pub last_good: Option<C>,
    /// Over uid, generation and labels.
    pub digest: Digest,
}

impl<C> Stored<C> {
    /// What is in force: the current spec, or else the last good one.
    pub fn in_force(&self) -> Option<&C> {
        self.current.as_ref().ok().or(self.last_good.as_ref())
    }
}

/// What happened to the objects of one kind, as `kube::runtime::watcher` says it.
#[derive(Debug)]
pub enum Change<S> {
    /// A listing begins; what it does not name by `Listed` was deleted.
    Listing,
    /// One object of the listing.
    Item(Loose<S>),
    /// The listing is complete.
    Listed,
    /// One object is new or changed.
    Apply(Loose<S>),
    /// One object is gone.
    Delete(ObjectKey),
}

/// The objects of one kind.
#[derive(Clone, Debug)]
pub struct Store<C> {
    objects: BTreeMap<ObjectKey, Stored<C>>,
    listing: Option<BTreeMap<ObjectKey, Stored<C>>>,
    listed: bool,
}

/// All objects.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    /// VirtualServices.
    pub virtual_services: Store<CheckedService>,
    /// RealServers.
    pub real_servers: Store<CheckedServer>,
    /// DirectorGroups. One that was seen and is gone keeps its last spec here
    /// (see [`Objects::gone_groups`]).
    pub director_groups: Store<CheckedGroup>,
}
