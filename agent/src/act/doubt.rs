//! The parts of the kernel's table that the agent must read again before it
//! uses them.

use std::collections::BTreeSet;

use ipvs::{DestinationKey, ServiceKey};

/// If more services than this number are in doubt, the agent reads the whole
/// table. Reading the whole table takes fewer system calls per service than
/// reading the services one by one.
pub(super) const MOST_SINGLE_READINGS: usize = 100;

/// The part of the kernel's table that must be read before the next plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Doubt {
    /// Only the services in this set must be read. The set may be empty.
    Services(BTreeSet<ServiceKey>),
    /// The kernel's whole table must be read.
    Everything,
}

impl Default for Doubt {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}

/// An entry of ours that another process changed or removed.
pub(super) type Drifted = (ServiceKey, Option<DestinationKey>);
