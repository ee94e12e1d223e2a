//! What somebody else did to things of ours and was put right.

use std::collections::VecDeque;

/// So many of the latest are told.
const LATEST: usize = 10;

/// What was put right since the agent started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repairs {
    /// How many operations that took.
    pub count: u64,
    /// The latest of them, as ipvsadm spells them, newest first.
    pub latest: VecDeque<String>,
}

impl Repairs {
    /// Notes one.
    pub(super) fn note(&mut self, operation: String) {
        tracing::warn!("somebody else changed what is ours; put right: {operation}");
        self.count += 1;
        self.latest.push_front(operation);
        self.latest.truncate(LATEST);
    }
}
