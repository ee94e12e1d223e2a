//! Names the hosts that have a virtual address of ours.

use std::{collections::BTreeSet, net::IpAddr};

use crate::{
    act::{Edges, State, Wish},
    decide::addresses::{AddressPlan, Missing},
    event::claims::Verdict,
    host::interface::Mac,
};

/// The maximum number of servers whose Ethernet addresses one round looks up.
/// The look-up shows whether the host that has a VIP is one of the VIP's
/// servers.
const MOST_SUSPECTS: usize = 100;

/// For each VIP that is taken or contested, finds the known addresses of the
/// other host. If the kernel knows no address of the other host, the agent
/// makes the kernel look up the addresses of the VIP's servers. A later round
/// may then find the other host among the VIP's servers.
pub(super) fn name(state: &mut State, edges: &mut Edges<'_>, wish: &Wish, plan: &mut AddressPlan) {
    for address in plan.cards.keys() {
        let verdict = state.segment.verdicts.get(address);
        if let Some((Verdict::Contested(mac), _)) = verdict {
            plan.contested.insert(*address, (*mac, Vec::new()));
        }
    }
    let taken = plan.missing.iter_mut();
    let taken = taken.filter_map(|(vip, missing)| match missing {
        Missing::Taken(mac, theirs) => Some((*vip, *mac, theirs)),
        _ => None,
    });
    let contested = plan.contested.iter_mut();
    let contested = contested.map(|(vip, (mac, theirs))| (*vip, *mac, theirs));
    let mut others: Vec<(IpAddr, Mac, &mut Vec<IpAddr>)> = taken.chain(contested).collect();
    if others.is_empty() {
        return;
    }
    // If the agent cannot read the neighbors, it reports only the other host's
    // MAC address.
    let neighbors = edges.links.neighbors().unwrap_or_default();
    let mut unknown = BTreeSet::new();
    for (vip, mac, theirs) in &mut others {
        let known = neighbors.iter().filter(|(found, _)| found == mac);
        theirs.extend(known.map(|(_, address)| *address));
        if theirs.iter().all(|address| address == vip) {
            unknown.insert(*vip);
        }
    }
    let servers = wish.desired.servers.keys();
    let suspects = servers.filter_map(|(service, server)| {
        let vip = service.vip().filter(|vip| unknown.contains(vip))?;
        let card = state.segment.orders.get(&vip)?.card();
        Some((card.index, server.address))
    });
    let suspects: BTreeSet<_> = suspects.collect();
    for (index, address) in suspects.into_iter().take(MOST_SUSPECTS) {
        if let Err(error) = edges.links.look_for_neighbor(index, address) {
            tracing::debug!("{error}");
        }
    }
}
