//! Sorts a plan's operations into the phases in which a round applies them,
//! without I/O.

use std::net::IpAddr;

use ipvs::{Op, ServiceKey};

/// The operations of a plan, grouped by phase.
#[derive(Debug, Default)]
pub(super) struct Phases {
    /// The operations that create or edit services.
    pub(super) services: Vec<Op>,
    /// The operations that create or edit destinations. A round applies these
    /// operations after the operations on services.
    pub(super) destinations: Vec<Op>,
    /// The operations that remove entries. A round applies the removals after
    /// it removes the virtual addresses.
    pub(super) removals: Vec<Op>,
    /// The operations that failed before and are not due for another attempt.
    pub(super) waiting: Vec<Op>,
}

impl Phases {
    /// Groups the operations of a plan by phase. Each phase keeps the plan's
    /// order.
    pub(super) fn of(mut ops: Vec<Op>, may_try: impl Fn(&Op) -> bool) -> Self {
        let waiting = ops.extract_if(.., |op| !may_try(op)).collect();
        let services = ops
            .extract_if(.., |op| !op.removes() && op.destination().is_none())
            .collect();
        let removals = ops.extract_if(.., |op| op.removes()).collect();
        Self {
            services,
            destinations: ops,
            removals,
            waiting,
        }
    }

    /// Returns the operations that create or edit services and destinations.
    pub(super) fn additions(&self) -> impl Iterator<Item = &Op> {
        self.services.iter().chain(&self.destinations)
    }

    pub(super) fn has_additions(&self) -> bool {
        self.additions().next().is_some()
    }

    pub(super) fn removes_services(&self) -> bool {
        let mut removals = self.removals.iter();
        removals.any(|op| matches!(op, Op::DeleteService(_)))
    }

    /// Removes and returns the operations that would create an entry, except
    /// operations for which `is_excepted` is true.
    pub(super) fn withhold_creations(&mut self, is_excepted: impl Fn(&Op) -> bool) -> Vec<Op> {
        let is_withheld = |op: &mut Op| op.creates() && !is_excepted(op);
        let mut withheld: Vec<_> = self.services.extract_if(.., is_withheld).collect();
        withheld.extend(self.destinations.extract_if(.., is_withheld));
        withheld
    }

    /// Removes and returns the operations that delete services whose VIP
    /// `is_one` accepts. A service in `shared` stays in the kernel, because it
    /// contains strangers' destinations. For such a service, this method
    /// removes and returns the operations that delete our destinations.
    pub(super) fn withhold_removals_of(
        &mut self,
        shared: &[ServiceKey],
        is_one: impl Fn(IpAddr) -> bool,
    ) -> Vec<Op> {
        let is_withheld = |op: &mut Op| {
            let service = op.service();
            let is_end = matches!(op, Op::DeleteService(_)) || shared.contains(&service);
            is_end && service.vip().is_some_and(&is_one)
        };
        self.removals.extract_if(.., is_withheld).collect()
    }
}
