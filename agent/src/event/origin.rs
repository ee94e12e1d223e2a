//! Where the objects come from: which cluster answers, and whether it still has
//! their definitions.

/// One thing that an input looked at, and what it found.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Word {
    /// The UID of the cluster whose API server answers.
    Cluster(Answer<String>),
    /// The state of the custom resource definition with this name.
    Definition(&'static str, Answer<Definition>),
}

/// The result of a look.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer<T> {
    /// The API server answered this.
    Is(T),
    /// No answer, for this reason; the input looks again.
    None(String),
    /// The agent is not allowed to look. Its RBAC comes from an older chart,
    /// whose agents had only the budget.
    NotAllowed,
}

/// The state of a custom resource definition.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Definition {
    /// It exists and is not being deleted.
    Stands,
    /// It is being deleted: its objects are deleted first, one by one.
    Terminating,
    /// It does not exist.
    Missing,
    /// It is a new one. The one that the objects belonged to was deleted.
    Replaced,
}
