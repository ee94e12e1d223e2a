//! Facts about the source of the objects: the cluster, its custom resource
//! definitions, and the version of each listing.

use std::collections::BTreeMap;

use crds::{Kind, ObjectKey};
use serde::{Deserialize, Serialize};

/// What an input says about its looks at the cluster. A look reads the cluster
/// and our custom resource definitions. Looks are numbered in the order in which
/// they begin.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// Objects follow that were deleted, or a listing is complete. Their
    /// removals must wait for the look with this number, or for a later one.
    Awaited {
        /// The number of the look.
        look: u64,
        /// Whether a listing is complete.
        is_listing: bool,
    },
    /// The UID of the cluster whose API server answers.
    Cluster(Answer<String>),
    /// The state of the custom resource definition with the given name.
    Definition(&'static str, Answer<Definition>),
    /// The look with this number has ended, with or without an answer. Its
    /// answers were sent before.
    Ended(u64),
}

/// The result of looking up one fact.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer<T> {
    /// The API server answered the look-up; the field is the answer.
    Is(T),
    /// The API server gave no answer; the field is the reason. The input asks
    /// the API server again later.
    None(String),
    /// The agent lacks the RBAC permission for the look-up. If an earlier run
    /// had the permission, an administrator has removed it. If no earlier run
    /// had the permission, the RBAC rules come from an older chart. The
    /// agents of such a chart needed no look-up, and only limited the number of
    /// removals.
    NotAllowed,
}

impl<T> Answer<T> {
    /// Returns why there is no answer, or none if the API server answered.
    pub fn unanswered(&self) -> Option<&str> {
        match self {
            Self::None(why) => Some(why),
            Self::Is(_) | Self::NotAllowed => None,
        }
    }
}

/// The state of a custom resource definition in the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Definition {
    /// The definition exists and is not being deleted.
    Stands,
    /// The definition is being deleted. Before the definition disappears, the
    /// API server deletes the definition's objects one by one.
    Terminating,
    /// The custom resource definition does not exist.
    Missing,
    /// The definition was deleted and created again. All objects that the agent
    /// knows are objects of the deleted definition.
    Replaced,
}

/// The source of a listing. For an API server, the source includes the
/// resourceVersion of the listing.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The API server is the source; the number is a resourceVersion. The
    /// listing is at least as new as this resourceVersion.
    Version(u64),
    /// The API server is the source, with a resourceVersion that cannot be
    /// compared because it is not a number.
    Unordered(String),
    /// A folder of manifests is the source of the listing.
    Folder(Folder),
}

/// A folder of manifests, as an input found it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Folder {
    /// The number of the device that contains the folder of manifests.
    pub device: u64,
    /// The inode number of the folder of manifests on its device.
    pub inode: u64,
    /// Whether the folder contains no manifest at all.
    pub is_empty: bool,
}

impl Folder {
    /// Whether `self` and `other` are the same folder of the file system,
    /// regardless of its content.
    pub fn is_same(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Why an object's absence from a listing does not count as a deletion, or its
/// altered content not as an edit.
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
    /// The listing's resourceVersion is not a number; the field is the
    /// resourceVersion.
    Unordered(String),
    /// The folder of manifests has no manifest.
    EmptyFolder,
    /// The folder of manifests was replaced by another folder.
    OtherFolder,
    /// The source of the objects changed from an API server to a folder, or the
    /// other way around.
    OtherSource,
    /// More than half of this director's table is missing from the listing.
    MostMissing,
}

/// The knowledge about listings that a run stores for the next run.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The source of each kind of object. For an API server, the source has the
    /// newest resourceVersion that the agent has seen.
    #[serde(default)]
    pub sources: BTreeMap<Kind, Source>,
    /// The objects whose absence from a listing does not count as a deletion.
    #[serde(default)]
    pub doubted: Vec<(Kind, ObjectKey, Doubt)>,
    /// The objects that went back to an older version, each with the listing
    /// that showed them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub went_back: Vec<(Kind, ObjectKey, Doubt)>,
}
