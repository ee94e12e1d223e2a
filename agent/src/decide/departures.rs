//! When entries lost their new connections, and for how long they may stay. The
//! journal stores these times.

use std::{collections::BTreeMap, time::Duration};

use ipvs::{DestinationKey, ServiceKey};
use serde::{Deserialize, Serialize};

/// For this long after its removal was allowed, an entry may come back as if
/// nothing had happened: a service serves normally, and a server has weight 0.
pub const GRACE: Duration = Duration::from_secs(10);

/// A server in a service.
pub type Place = (ServiceKey, DestinationKey);

/// A service, or a server in a service.
pub type Entry = (ServiceKey, Option<DestinationKey>);

/// The times at which drains began, since the host's start.
pub type Begun = BTreeMap<Place, Duration>;

/// When the removal of an entry was allowed, and how long the entry may stay.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Departure {
    /// The time since the host's start.
    pub since: Duration,
    /// The time for which the entry stays while it has connections.
    pub period: Duration,
}

impl Departure {
    /// When the entry may leave if it has no connections.
    pub(super) fn earliest(&self) -> Duration {
        self.since + self.period.min(GRACE)
    }

    /// When the entry leaves in any case.
    pub(super) fn latest(&self) -> Duration {
        self.since + self.period
    }
}

/// The drains and the entries that leave, as the journal stores them.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct Record {
    /// When the drains began that objects declare.
    pub drains: Begun,
    /// The entries whose removal was allowed.
    pub departures: BTreeMap<Entry, Departure>,
}
