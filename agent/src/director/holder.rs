//! Decides whether this director should have the VIPs of its group. Asks for
//! the Leases of other directors if the decision depends on them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use crds::AddressRule;

use super::Loop;
use crate::{
    decide::addresses::{Holding, holding},
    input::leases::Looks,
};

/// The interval at which the agent reads the holder's Lease while this host has
/// VIPs. If the holder is live, this host gives up the VIPs. Agents renew their
/// Leases every 10 s.
const BEFORE_RELEASE: Duration = Duration::from_secs(10);
/// The interval at which the agent reads the other directors' Leases while this
/// host lacks VIPs. This host takes over VIPs if all other directors are out:
/// they no longer renew their Leases.
const BEFORE_TAKEOVER: Duration = Duration::from_secs(60);

impl Loop {
    /// Returns whether this director should have the VIPs of its group.
    pub(super) fn holding(&self, now: Duration) -> Holding {
        if self.is_in_grace(now) || self.caution.may_be_elsewhere() {
            return Holding::Undecided;
        }
        let Some(group) = self.in_force() else {
            return Holding::Undecided;
        };
        let directors = self.directors.as_ref();
        let is_live = |name: &str| match self.world.leases {
            Some(_) => {
                directors.is_some_and(|directors| directors.contains(name))
                    && self.liveness.is_live(name, now)
            }
            None => true,
        };
        let holder = group.holder.as_deref();
        let mut others = self.others().into_iter().peekable();
        let are_others_out =
            others.peek().is_some() && others.all(|name| self.liveness.is_out(name));
        holding(
            &group.addresses,
            holder,
            &self.name,
            directors,
            is_live,
            are_others_out,
        )
    }

    /// Returns the group's holder and its directors, except this director.
    /// Returns an empty list until this director is among the group's
    /// directors.
    fn others(&self) -> Vec<&str> {
        let is_member = |directors: &&BTreeSet<String>| directors.contains(&self.name);
        let Some(directors) = self.directors.as_ref().filter(is_member) else {
            return Vec::new();
        };
        let holder = self.in_force().and_then(|group| group.holder.as_deref());
        let others = directors.iter().map(String::as_str);
        let others = others.filter(|name| Some(*name) != holder);
        let all = holder.into_iter().chain(others);
        all.filter(|name| *name != self.name).collect()
    }

    /// Asks for the Leases on which the placement of the VIPs depends, and
    /// forgets all other Leases.
    pub(super) fn ask_for_leases(&mut self) {
        let lacks_any = self.lacks_any();
        let asked = self.looks(lacks_any);
        if asked == self.asked {
            return;
        }
        self.liveness.keep(&asked.keys().cloned().collect());
        if let Some(leases) = &mut self.world.leases {
            leases.look_at(asked.clone());
        }
        self.asked = asked;
    }

    /// Whether this host lacks a VIP that the objects want. The result is
    /// cached until the wanted state or the agent's addresses change. The cache
    /// saves work, because servers' health changes cause many rounds.
    fn lacks_any(&mut self) -> bool {
        let desired = self.protection.desired();
        let changes = self.state.address_changes();
        if let Some((judged, at, lacks_any)) = &self.lacks_any
            && Arc::ptr_eq(judged, desired)
            && *at == changes
        {
            return *lacks_any;
        }
        let ours = &self.state.ours().addresses;
        let lacks_any = desired.vips.keys().any(|vip| !ours.contains_key(vip));
        self.lacks_any = Some((desired.clone(), changes, lacks_any));
        lacks_any
    }

    fn looks(&self, lacks_any: bool) -> Looks {
        let mut looks = Looks::new();
        let group = self.in_force();
        let Some(group) = group.filter(|group| group.addresses != AddressRule::Manual) else {
            return looks;
        };
        let holder = group.holder.as_deref();
        if holder == Some(&*self.name) {
            return looks;
        }
        let ours = &self.state.ours().addresses;
        if lacks_any && group.addresses != AddressRule::Dummy {
            for name in self.others() {
                looks.insert(name.to_owned(), BEFORE_TAKEOVER);
                // This director takes over VIPs only if no other director still
                // renews its Lease. If one director may still renew its Lease,
                // the Leases of the remaining directors need not be read.
                if !self.liveness.is_out(name) {
                    break;
                }
            }
        }
        if let Some(holder) = holder.filter(|_| !ours.is_empty()) {
            looks.insert(holder.to_owned(), BEFORE_RELEASE);
        }
        looks
    }
}
