//! The probe results of targets, as the loop receives them.

use std::sync::Arc;

/// The number of a probed target, chosen by the sender of the probe orders.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProbeId(pub u64);

/// The latest probe results of one target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tally {
    /// How many of the latest probes succeeded in a row. The count stops at the
    /// check's success threshold.
    pub successes: u32,
    /// How many of the latest probes failed in a row. The count stops at the
    /// check's failure threshold.
    pub failures: u32,
    /// Whether successes and failures of the target's probes keep alternating.
    pub is_flapping: bool,
    /// The reason for the latest failure.
    pub why: Option<Arc<str>>,
}
