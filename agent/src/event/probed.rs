//! The probe results of targets, as the loop receives them.

use std::sync::Arc;

/// The number of a probed target, chosen by the sender of the probe orders.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ProbeId(pub u64);

/// The latest probe results of one target.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tally {
    /// The number of latest probes that succeeded in a row, counted up to the
    /// threshold.
    pub successes: u32,
    /// The number of latest probes that failed in a row, counted up to the
    /// threshold.
    pub failures: u32,
    /// Whether successes and failures of the target's probes keep alternating.
    pub is_flapping: bool,
    /// The reason for the latest failure.
    pub why: Option<Arc<str>>,
}
