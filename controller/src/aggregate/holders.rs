//! Finds out which directors hold virtual addresses.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use crds::api::{VipHolder, VipsHeld, int32};

use super::DirectorView;

/// The live directors of one group that hold virtual addresses, according to
/// their reports.
#[derive(Debug, Default)]
pub(super) struct Holders<'a> {
    /// The directors that hold the VIPs of all services that they used, except
    /// those of services in their exceptions.
    all: Vec<&'a str>,
    /// The directors that list an address, by address. A director in `all` may
    /// list some of its addresses too.
    listed: HashMap<IpAddr, Vec<&'a str>>,
    /// The directors that hold any address.
    any: Vec<&'a str>,
}

impl<'a> Holders<'a> {
    /// Adds the report of a live director.
    pub(super) fn hear(&mut self, director: &DirectorView<'a>) {
        let status = director.status;
        let holds_all = status.vips_held == VipsHeld::All;
        if holds_all {
            self.all.push(director.name);
        }
        if holds_all || !status.vips.is_empty() {
            self.any.push(director.name);
        }
        for vip in &status.vips {
            if let Ok(address) = vip.address.parse::<IpAddr>() {
                self.listed.entry(address).or_default().push(director.name);
            }
        }
    }

    /// Whether a director holds the VIP of a service that is in no exceptions.
    pub(super) fn has(&self, address: &IpAddr) -> bool {
        !self.all.is_empty() || self.listed.contains_key(address)
    }

    /// Returns the holders of a service's VIP. `others` are the directors that
    /// have not used the service, or that report an exception of it: they hold
    /// the address only if they list it.
    pub(super) fn of(&self, address: &IpAddr, others: &HashSet<&str>) -> VipHolder {
        let listed = self.listed.get(address).map_or(&[][..], Vec::as_slice);
        let listed_only: Vec<&str> = match (listed.is_empty(), self.all.is_empty()) {
            (true, _) => Vec::new(),
            (false, true) => listed.to_vec(),
            (false, false) => {
                let all: HashSet<&str> = self.all.iter().copied().collect();
                let is_counted = |name: &&str| all.contains(name) && !others.contains(name);
                let listed = listed.iter().copied();
                listed.filter(|name| !is_counted(name)).collect()
            }
        };
        let mut all = self.all.iter().filter(|name| !others.contains(**name));
        let first = all.next().copied();
        let holding_all = usize::from(first.is_some()) + all.count();
        holder(
            first.or(listed_only.first().copied()),
            listed_only.len() + holding_all,
        )
    }

    /// Returns the holders of any address.
    pub(super) fn of_any(&self) -> VipHolder {
        holder(self.any.first().copied(), self.any.len())
    }
}

fn holder(name: Option<&str>, directors: usize) -> VipHolder {
    VipHolder::new(name, int32(directors))
}
