//! Facts about the origin of the objects: which cluster answers, and whether
//! the cluster still has their custom resource definitions.

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
    /// The agent is not allowed to look the fact up. The agent's RBAC rules
    /// come from an older chart, whose agents limited removals only by their
    /// number.
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
