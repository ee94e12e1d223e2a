//! The order in which a plan's operations are applied: pure.

use std::net::IpAddr;

use ipvs::Op;

/// A plan's operations, by phase.
#[derive(Debug, Default)]
pub(super) struct Phases {
    /// The services to make or edit.
    pub(super) services: Vec<Op>,
    /// The destinations to make or edit, once their services are there.
    pub(super) destinations: Vec<Op>,
    /// The removals, once the virtual addresses are gone.
    pub(super) removals: Vec<Op>,
    /// The operations that failed before and are not due again.
    pub(super) waiting: Vec<Op>,
}

impl Phases {
    /// Sorts the operations of a plan; within a phase they keep its order.
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

    /// Returns the operations that make or edit something.
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

    /// Takes out the operations that would create an entry, except those for
    /// which `is_excepted` is true.
    pub(super) fn withhold_creations(&mut self, is_excepted: impl Fn(&Op) -> bool) -> Vec<Op> {
        let is_withheld = |op: &mut Op| op.creates() && !is_excepted(op);
        let mut withheld: Vec<_> = self.services.extract_if(.., is_withheld).collect();
        withheld.extend(self.destinations.extract_if(.., is_withheld));
        withheld
    }

    /// Takes out the removals of services for whose VIP `is_one` is true.
    pub(super) fn withhold_removals_of(&mut self, is_one: impl Fn(IpAddr) -> bool) -> Vec<Op> {
        let is_withheld = |op: &mut Op| match op {
            Op::DeleteService(service) => service.address().is_some_and(&is_one),
            _ => false,
        };
        self.removals.extract_if(.., is_withheld).collect()
    }
}
