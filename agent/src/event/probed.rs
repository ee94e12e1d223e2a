//! What probes found, as the loop hears it.

use std::sync::Arc;

/// A name for a target. The sender of the orders chooses it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProbeId(pub u64);

/// The latest results of one target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tally {
    /// Successes in a row at the end, counted up to the threshold.
    pub successes: u32,
    /// Failures in a row at the end, counted up to the threshold.
    pub failures: u32,
    /// Whether successes and failures keep alternating.
    pub is_flapping: bool,
    /// Why the latest failure happened.
    pub why: Option<Arc<str>>,
}
