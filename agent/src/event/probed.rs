//! The probe results of targets, as the loop receives them.

use std::sync::Arc;

/// Identifies a probed target. The sender of the probe orders chooses the
/// number.
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
    /// Whether successes and failures keep alternating.
    pub is_flapping: bool,
    /// The reason of the latest failed probe.
    pub why: Option<Arc<str>>,
}
