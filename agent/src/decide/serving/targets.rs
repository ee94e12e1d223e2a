//! Records which servers share a probe target. If several services have the
//! same server with the same check, the server is one target and is probed
//! once.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ipvs::{DestinationKey, ServiceKey};

use crate::{
    event::probed::{ProbeId, Tally},
    probe::target::{Order, Target},
};

/// A server of a service: the key of the service and the key of the server.
pub(super) type Member = (ServiceKey, DestinationKey);

/// The probe targets, each with the servers that share it.
#[derive(Debug, Default)]
pub(super) struct Targets {
    ids: HashMap<Arc<Target>, ProbeId>,
    audiences: HashMap<ProbeId, Audience>,
    last_id: u64,
    orders: Vec<Order>,
}

#[derive(Debug)]
struct Audience {
    target: Arc<Target>,
    members: BTreeSet<Member>,
    /// The latest tally of the target's probes.
    tally: Option<Tally>,
}

impl Targets {
    /// Adds a server to a target. The agent probes a target as long as it has
    /// servers.
    pub(super) fn join(&mut self, target: Target, member: Member) -> ProbeId {
        if let Some(id) = self.ids.get(&target) {
            let audience = self.audiences.get_mut(id).expect("each id has one");
            audience.members.insert(member);
            return *id;
        }
        self.last_id += 1;
        let id = ProbeId(self.last_id);
        let target = Arc::new(target);
        self.ids.insert(target.clone(), id);
        self.orders.push(Order::Start(id, target.clone()));
        let audience = Audience {
            target,
            members: BTreeSet::from([member]),
            tally: None,
        };
        self.audiences.insert(id, audience);
        id
    }

    /// Removes a server from a target. The agent no longer probes a target
    /// without servers.
    pub(super) fn leave(&mut self, id: ProbeId, member: &Member) {
        let Some(audience) = self.audiences.get_mut(&id) else {
            return;
        };
        audience.members.remove(member);
        if audience.members.is_empty() {
            self.ids.remove(&audience.target);
            self.audiences.remove(&id);
            self.orders.push(Order::Stop(id));
        }
    }

    /// Records the latest tally of a target, and returns the servers that share
    /// the target.
    pub(super) fn note(&mut self, id: ProbeId, tally: &Tally) -> Vec<Member> {
        let Some(audience) = self.audiences.get_mut(&id) else {
            return Vec::new();
        };
        audience.tally = Some(tally.clone());
        audience.members.iter().copied().collect()
    }

    /// Returns the latest tally of a target.
    pub(super) fn tally(&self, id: ProbeId) -> Option<&Tally> {
        self.audiences.get(&id)?.tally.as_ref()
    }

    /// Returns the number of targets that the agent probes.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns the orders for the prober that were added since the last call.
    pub(super) fn take_orders(&mut self) -> Vec<Order> {
        std::mem::take(&mut self.orders)
    }
}
