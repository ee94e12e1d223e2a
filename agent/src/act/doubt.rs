//! What is not believed of the kernel's table until it is read again.

use std::collections::BTreeSet;

use ipvs::{DestinationKey, ServiceKey};

/// If more services than this are in doubt, the whole table is read: that takes
/// fewer calls per service.
pub(super) const MOST_SINGLE_READINGS: usize = 100;

/// What must be read of the table before the next plan.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Doubt {
    /// These services, perhaps none.
    Services(BTreeSet<ServiceKey>),
    /// The whole table must be read.
    Everything,
}

impl Default for Doubt {
    fn default() -> Self {
        Self::Services(BTreeSet::new())
    }
}

/// An entry of ours that another process changed or removed.
pub(super) type Drifted = (ServiceKey, Option<DestinationKey>);
