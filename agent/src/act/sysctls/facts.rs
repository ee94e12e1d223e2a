//! Gathers the facts about the host that sysctls depend on.

use std::{collections::BTreeSet, net::IpAddr, ops::Bound};

use crate::{
    act::Edges,
    act::tuned::Ways,
    decide::{
        addresses::holds,
        sysctls::{Facts, Needs, Tuning},
    },
    host::{interface::Interface, sysctls::spelled},
};

/// The maximum number of known routes that one check looks up again. The routes
/// lead to servers outside the host's subnets. There may be tens of thousands
/// of routes, so each check continues where the previous check ended.
const LOOKED_UP_AGAIN: usize = 64;

/// Gathers the facts that the sysctls for `needs` depend on. If `is_ours` is
/// true, the agent itself set `net.ipv4.vs.conntrack`, so connection tracking
/// counts IPVS connections. The count then does not show whether another
/// program uses connection tracking. In this case, `gather` reports connection
/// tracking as active.
///
/// # Errors
/// Returns an error message for people if the kernel does not answer.
pub(super) fn gather(
    ways: &mut Ways,
    edges: &mut Edges<'_>,
    needs: &Needs,
    tuning: &Tuning,
    is_ours: bool,
) -> Result<Facts, String> {
    let mut facts = Facts {
        kernel: edges.surroundings.kernel(),
        ..Facts::default()
    };
    let is_about_v6 = |name: &String| name.starts_with("net.ipv6.");
    let is_v6_set = tuning.rule.overrides.keys().any(is_about_v6);
    if needs.nat_servers.is_empty() && !is_v6_set {
        return Ok(facts);
    }
    let interfaces = edges
        .links
        .interfaces()
        .map_err(|error| error.to_string())?;
    let name = |index: u32| {
        let found = interfaces.iter().find(|interface| interface.index == index);
        found.filter(|interface| !interface.loopback)
    };
    for (address, index) in ways.to(&needs.nat_servers, &interfaces, edges)? {
        if let Some(interface) = index.and_then(name) {
            let facing = match address {
                IpAddr::V4(_) => &mut facts.facing_v4,
                IpAddr::V6(_) => &mut facts.facing_v6,
            };
            facing.insert(interface.name.clone());
        }
    }
    if !facts.facing_v6.is_empty() || is_v6_set {
        facts.has_force_forwarding = edges
            .sysctls
            .read("net.ipv6.conf.all.force_forwarding")
            .is_ok();
        let advertised = edges.surroundings.advertised();
        let advertised = advertised
            .map_err(|error| format!("cannot list this host's IPv6 default routes: {error}"))?;
        for interface in advertised.into_iter().filter_map(name) {
            // If `accept_ra` is 0, another program handles router
            // advertisements. The kernel does not remove a default route that
            // this program made.
            let accept = format!("net.ipv6.conf.{}.accept_ra", spelled(&interface.name));
            if edges.sysctls.read(&accept).is_ok_and(|value| value != "0") {
                facts.advertised.insert(interface.name.clone());
            }
        }
    }
    facts.is_tracking = !needs.nat_servers.is_empty() && (is_ours || is_tracking(edges));
    Ok(facts)
}

/// Whether connection tracking is active in this network namespace. Firewall
/// rules activate connection tracking, but the agent can detect only the
/// effects. While connection tracking is inactive, its count of connections
/// stays 0, even if IPVS has connections. A host may have no traffic except the
/// replies of NAT servers. Connection tracking then counts the replies as
/// invalid packets.
fn is_tracking(edges: &mut Edges<'_>) -> bool {
    let count = edges.sysctls.read("net.netfilter.nf_conntrack_count");
    count.is_ok_and(|count| count != "0") || edges.surroundings.calls_packets_invalid()
}

impl Ways {
    /// Returns for each address the interface that leads to the address, if
    /// there is one. An interface leads to an address if its subnet contains
    /// the address. If no subnet contains the address, the host's route to the
    /// address names the interface.
    fn to(
        &mut self,
        addresses: &BTreeSet<IpAddr>,
        interfaces: &[Interface],
        edges: &mut Edges<'_>,
    ) -> Result<Vec<(IpAddr, Option<u32>)>, String> {
        let mut all = Vec::with_capacity(addresses.len());
        let mut elsewhere = BTreeSet::new();
        let subnets = Subnets::of(interfaces);
        // Packets to the host's own addresses are not forwarded.
        for &address in addresses.difference(&subnets.own) {
            match subnets.nearest(address) {
                Some(index) => all.push((address, Some(index))),
                None => {
                    elsewhere.insert(address);
                }
            }
        }
        self.known.retain(|address, _| elsewhere.contains(address));
        let new = elsewhere
            .iter()
            .filter(|address| !self.known.contains_key(address));
        let new: Vec<_> = new.copied().collect();
        let again = self.next_known();
        for address in new.into_iter().chain(again) {
            let index = edges.surroundings.toward(address);
            let index = index.map_err(|error| {
                format!("cannot look up this host's route to {address}: {error}")
            })?;
            self.known.insert(address, index);
        }
        all.extend(self.known.iter().map(|(address, index)| (*address, *index)));
        Ok(all)
    }

    /// Returns the server addresses whose routes this check looks up again,
    /// because the known routes may be outdated.
    fn next_known(&mut self) -> Vec<IpAddr> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let rest = self.known.range((from, Bound::Unbounded));
        let next: Vec<_> = rest
            .map(|(address, _)| *address)
            .take(LOOKED_UP_AGAIN)
            .collect();
        // If this check reached the last address, the next check starts with
        // the first address.
        self.last = next
            .last()
            .copied()
            .filter(|_| next.len() == LOOKED_UP_AGAIN);
        next
    }
}

/// The networks and addresses of a host's interfaces. A host may have ten
/// thousand addresses of its own.
struct Subnets {
    own: BTreeSet<IpAddr>,
    networks: Vec<(IpAddr, u8, u32)>,
}

impl Subnets {
    fn of(interfaces: &[Interface]) -> Self {
        let each = || {
            let each = interfaces.iter();
            each.flat_map(|interface| {
                let addresses = interface.addresses.iter();
                addresses.map(|(address, length)| (*address, *length, interface.index))
            })
        };
        let is_network = |(address, length, _): &(IpAddr, u8, u32)| match address {
            IpAddr::V4(_) => *length < 32,
            IpAddr::V6(_) => *length < 128,
        };
        Self {
            own: each().map(|(address, _, _)| address).collect(),
            networks: each().filter(is_network).collect(),
        }
    }

    /// Returns the interface whose network contains the address. If several
    /// networks contain the address, the longest prefix wins.
    fn nearest(&self, address: IpAddr) -> Option<u32> {
        let networks = self.networks.iter();
        networks
            .filter(|(network, length, _)| holds(*network, *length, address))
            .max_by_key(|(_, length, _)| *length)
            .map(|(_, _, index)| *index)
    }
}
