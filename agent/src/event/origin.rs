//! Facts about the origin of the objects: which cluster answers, whether the
//! cluster still has their custom resource definitions, and how new a listing
//! is.

use std::collections::BTreeMap;

use crds::{Kind, ObjectKey};
use serde::{Deserialize, Serialize};

/// A fact that an input looked up in its cluster, with the answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// The UID of the cluster whose API server answers.
    Cluster(Answer<String>),
    /// The state of the custom resource definition with this name.
    Definition(&'static str, Answer<Definition>),
}

/// The result of looking up one fact.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer<T> {
    /// The API server gave this answer.
    Is(T),
    /// The API server gave no answer, for this reason; the input asks again.
    None(String),
    /// The agent is not allowed to look the fact up. If an earlier run was
    /// allowed, the permission was lost. Otherwise the agent's RBAC rules come
    /// from an older chart, whose agents limited removals only by their number.
    NotAllowed,
}

/// The state of a custom resource definition in the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Definition {
    /// The definition exists and is not being deleted.
    Stands,
    /// The definition is being deleted; the API server first deletes its
    /// objects, one by one.
    Terminating,
    /// The definition does not exist.
    Missing,
    /// The definition was deleted and created again; the known objects belonged
    /// to the deleted one.
    Replaced,
}

/// The source of a listing, with what shows whether the listing is newer than
/// an earlier one from the same source.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The API server, at this resourceVersion. A listing may be newer than its
    /// version, and is never older.
    Version(u64),
    /// The API server, at a resourceVersion that is not a number and so cannot
    /// be compared.
    Unordered(String),
    /// A folder of manifests.
    Folder(Folder),
}

/// A folder of manifests, as an input found it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Folder {
    /// The number of the device that has the folder.
    pub device: u64,
    /// The folder's inode number on that device.
    pub inode: u64,
    /// Whether the folder has no manifest at all.
    pub is_empty: bool,
}

impl Folder {
    /// Whether both are the same folder of the file system, whatever it
    /// contains.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Why the absence of an object from a listing is not believed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Doubt {
    /// The listing is not newer than objects that this director has seen.
    Older {
        /// The highest resourceVersion that this director has seen.
        known: u64,
        /// The resourceVersion of the listing.
        found: u64,
    },
    /// The listing's resourceVersion, given here, is not a number.
    Unordered(String),
    /// The folder of manifests has no manifest.
    EmptyFolder,
    /// The folder of manifests is another one than before.
    OtherFolder,
    /// The objects come from a folder instead of an API server, or the other
    /// way around.
    OtherSource,
    /// More than half of this director's table is missing.
    MostMissing,
}

/// What a run knows about its listings, for the next run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The newest known state of each source, by the kind of the objects.
    #[serde(default)]
    pub sources: BTreeMap<Kind, Source>,
    /// The objects whose absence from a listing is not believed.
    #[serde(default)]
    pub doubted: Vec<(Kind, ObjectKey, Doubt)>,
}
