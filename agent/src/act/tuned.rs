//! The agent's knowledge about the host's sysctls.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crds::api::SysctlStatus;

use crate::decide::sysctls::{Facts, Fight, Needs, Tuning};

/// How often the agent checks which sysctls are needed and whether they are
/// set.
const PACE: Duration = Duration::from_secs(10);

/// The state of the sysctls after a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sysctls {
    /// The sysctls that are needed, and sysctls that are no longer needed but
    /// could not be restored.
    pub all: Vec<SysctlStatus>,
    /// Why the needed sysctls are unknown, or none if they are known.
    pub trouble: Option<String>,
}

/// The agent's knowledge about sysctls, kept from one round to the next.
#[derive(Debug, Default)]
pub(super) struct Tuned {
    /// When the sysctls were last checked.
    pub(super) looked: Option<Duration>,
    /// Whether the round must check the sysctls, because a fact that sysctls
    /// depend on has changed.
    pub(super) is_due: bool,
    /// The wish's `kept_sysctls` at the last check.
    pub(super) kept: BTreeSet<String>,
    /// The group's sysctl settings at the last check.
    pub(super) tuning: Option<Tuning>,
    pub(super) needs: Needs,
    pub(super) facts: Facts,
    pub(super) ways: Ways,
    pub(super) progress: BTreeMap<String, Progress>,
    /// The value to which this run set each sysctl. The map has only sysctls
    /// that are in the journal.
    pub(super) made: BTreeMap<String, String>,
    pub(super) report: Sysctls,
}

/// The state of one sysctl.
#[derive(Debug, Default)]
pub(super) struct Progress {
    pub(super) wanted: String,
    pub(super) found: Option<String>,
    /// Whether the sysctl has had its wanted value at some time in this run.
    pub(super) was_met: bool,
    pub(super) fight: Fight,
    pub(super) problem: Option<String>,
}

impl Tuned {
    /// Returns when the next periodic check of the sysctls is due.
    pub(super) fn next_look(&self) -> Option<Duration> {
        let is_anything = self.needs != Needs::default() || !self.report.all.is_empty();
        let looked = self
            .looked
            .filter(|_| is_anything || self.report.trouble.is_some());
        looked.map(|looked| looked + PACE)
    }
}

/// The interfaces that lead to servers outside the host's subnets, according to
/// the latest look-ups.
#[derive(Debug, Default)]
pub(super) struct Ways {
    pub(super) known: BTreeMap<IpAddr, Option<u32>>,
    pub(super) last: Option<IpAddr>,
}
