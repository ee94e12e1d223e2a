//! What the round knows of sysctls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crds::api::SysctlStatus;

use crate::decide::sysctls::{Facts, Fight, Needs, Tuning};

/// How often the needs and the values are checked without another reason.
const PACE: Duration = Duration::from_secs(10);

/// The state of the sysctls after a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sysctls {
    /// The needed sysctls, and those no longer needed that could not be
    /// restored.
    pub all: Vec<SysctlStatus>,
    /// Why the agent cannot tell which sysctls are needed; none if it can.
    pub trouble: Option<String>,
}

/// What is known of sysctls between rounds.
#[derive(Debug, Default)]
pub(super) struct Tuned {
    /// When the sysctls were last checked.
    pub(super) looked: Option<Duration>,
    /// Whether there is a reason to check them.
    pub(super) is_due: bool,
    /// The sysctls that stayed as they were, needed or not.
    pub(super) kept: BTreeSet<String>,
    /// What the group wanted at the last check.
    pub(super) tuning: Option<Tuning>,
    pub(super) needs: Needs,
    pub(super) facts: Facts,
    pub(super) ways: Ways,
    pub(super) progress: BTreeMap<String, Progress>,
    /// The values to which this run set those sysctls that are in the journal.
    pub(super) made: BTreeMap<String, String>,
    pub(super) report: Sysctls,
}

/// The state of one sysctl.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) wanted: String,
    pub(super) found: Option<String>,
    /// Whether it once had a wanted value.
    pub(super) was_met: bool,
    pub(super) fight: Fight,
    pub(super) problem: Option<String>,
}

impl Tuned {
    /// Returns when the sysctls must be checked without another reason.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let is_anything = self.needs != Needs::default() || !self.report.all.is_empty();
        let looked = self
            .looked
            .filter(|_| is_anything || self.report.trouble.is_some());
        looked.map(|looked| looked + PACE)
    }
}

/// The interfaces that led to servers outside the host's subnets.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) known: BTreeMap<IpAddr, Option<u32>>,
    pub(super) last: Option<IpAddr>,
}
