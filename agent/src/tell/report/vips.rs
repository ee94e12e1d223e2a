//! Reports the virtual addresses that a director has, and the problems of
//! missing and contested addresses. The code is pure: it does no I/O.

use std::{net::IpAddr, sync::Arc};

use crds::{
    ObjectKey,
    api::{DirectorStatus, HeldVip, VipsHeld, int32},
    condition,
};
use serde::Serialize;

use crate::{
    act::{Outcome, retry::Subject},
    decide::{
        addresses::{DEVICE, Missing, Stay},
        desired::Desired,
    },
    fair::{Room, keep, names},
    host::interface::Mac,
};

/// Returns the addresses that are not where the group wants them, or that
/// another host claims too. Each address comes with the condition's reason and
/// a sentence that explains the problem and its remedy.
pub(super) fn problems(outcome: &Outcome, wishes: &Desired) -> Vec<(IpAddr, &'static str, String)> {
    let missing = outcome.missing.iter();
    let missing =
        missing.map(|(address, why)| (*address, reason(why), absence(*address, why, wishes)));
    // In mode Manual, another program adds the VIPs. So it is no problem if a
    // VIP that the agent added earlier stays on this host.
    let stays = outcome.kept.iter();
    let stays = stays.filter(|(_, stay)| **stay != Stay::Manual);
    let stays = stays.map(|(address, stay)| {
        let message = lingering(*address, &outcome.vips[address], stay, wishes);
        (*address, condition::reason::VIP_NOT_RELEASED, message)
    });
    let contested = outcome.contested.iter();
    let contested = contested.map(|(address, other)| {
        let message = contest(*address, other, wishes);
        (*address, condition::reason::VIP_TAKEN, message)
    });
    missing.chain(stays).chain(contested).collect()
}

/// Returns a line for each address that the agent added earlier and that is
/// still on this host although the group's mode is Manual.
pub(super) fn left_over(outcome: &Outcome) -> impl Iterator<Item = String> {
    let stays = outcome.kept.iter();
    let stays = stays.filter(|(_, stay)| **stay == Stay::Manual);
    stays.map(|(address, stay)| {
        let interface = &outcome.vips[address];
        lingering(*address, interface, stay, &Desired::default())
    })
}

/// The number of addresses that a status lists, for people, if the director
/// holds all.
const SHOWN: usize = 32;

/// Writes into the status which addresses this host has. A director that has
/// every address that its services need says just that, and lists the first few.
/// Otherwise the status lists the addresses. If there is no room for all of
/// them, each namespace gets a fair share of the room. If several namespaces
/// need an address, the address uses the share of the first namespace.
pub(super) fn tell(status: &mut DirectorStatus, outcome: &Outcome, wishes: &Desired, room: Room) {
    let held = &outcome.vips;
    let needed_by = |address: &IpAddr| wishes.vips.get(address).into_iter().flatten();
    let vips = held.iter().map(|(address, interface)| {
        let first = needed_by(address).next();
        let vip = HeldVip {
            address: address.to_string(),
            interface: interface.clone(),
        };
        Held {
            vip,
            address: *address,
            namespace: first.map_or_else(Arc::default, |service| service.namespace.clone()),
        }
    });
    if has_all(outcome, wishes) {
        status.vips_held = VipsHeld::All;
        status.vips = vips.map(|held| held.vip).take(SHOWN).collect();
        status.vips_omitted = int32(held.len().saturating_sub(SHOWN));
        status.vips_omitted_namespaces.clear();
        return;
    }
    status.vips_held = VipsHeld::Some;
    let (kept, left_out) = keep(vips.collect(), |held: &Held| &*held.namespace, room);
    status.vips = kept.into_iter().map(|held| held.vip).collect();
    status.vips_omitted = int32(left_out.len());
    let users = left_out.iter().flat_map(|held| needed_by(&held.address));
    status.vips_omitted_namespaces = names(users.map(|service| &*service.namespace));
}

/// Whether this host has every address that its services need, or reports an
/// exception for it. A director that may not take the addresses, because the
/// group names no holder, has none of them.
fn has_all(outcome: &Outcome, wishes: &Desired) -> bool {
    wishes.vips.keys().all(|address| {
        let is_exception = match outcome.missing.get(address) {
            Some(why) => *why != Missing::HolderNotNamed,
            None => outcome.failures.contains_key(&Subject::Vip(*address)),
        };
        outcome.vips.contains_key(address) || is_exception
    })
}

/// An address on this host, and the namespace whose share of the list it uses.
#[derive(Serialize)]
struct Held {
    #[serde(flatten)]
    vip: HeldVip,
    #[serde(skip)]
    address: IpAddr,
    #[serde(skip)]
    namespace: Arc<str>,
}

/// Returns the condition reason for an address that is not on this host.
fn reason(why: &Missing) -> &'static str {
    match why {
        Missing::NoSubnet
        | Missing::NoInterface(_)
        | Missing::NoDevice
        | Missing::Down(_)
        | Missing::Unusable(_)
        | Missing::Deaf(..) => condition::reason::VIP_NOT_HELD,
        Missing::Asking => condition::reason::VIP_PROBING,
        Missing::Taken(..) => condition::reason::VIP_TAKEN,
        Missing::HolderNotNamed => condition::reason::HOLDER_NOT_NAMED,
    }
}

/// Returns a sentence that says why an address is not on this host, with the
/// remedy.
fn absence(address: IpAddr, why: &Missing, wishes: &Desired) -> String {
    match why {
        Missing::NoSubnet => format!(
            "no interface of this director has a subnet that holds {address}: give an interface an address of that subnet, name an interface with spec.addresses.interface of the DirectorGroup, or choose a VIP from a subnet that this director has"
        ),
        Missing::NoInterface(name) => format!(
            "{address} belongs on {name}, and this director has no such interface: create it, or name another one with spec.addresses.interface of the DirectorGroup"
        ),
        Missing::NoDevice => format!(
            "{address} belongs on the agent's own device, {DEVICE}, which cannot be made: the Director's status says why; if the kernel lacks the module dummy, load it"
        ),
        Missing::Down(name) => format!(
            "{address} belongs on {name}, which is not up and connected: the agent adds the address there as soon as the interface is connected"
        ),
        Missing::Unusable(name) => format!(
            "{name} has {address} and cannot use it, as another host on the segment had it (dadfailed): remove it from that host, then `ip address del {address} dev {name}`"
        ),
        Missing::Asking => format!(
            "the agent is asking whether another host has {address}; without an answer the agent adds the address within 7 s"
        ),
        Missing::Deaf(name, why) => format!(
            "{address} is not put up, as the agent cannot ask on {name} whether another host has it: {why}"
        ),
        Missing::Taken(mac, theirs) => format!(
            "{address} is not put up, as {} has it: remove it from that host, or choose another VIP. The agent keeps asking for it",
            named(*mac, theirs, address, wishes)
        ),
        Missing::HolderNotNamed => format!(
            "{address} is not taken: the group has several directors and none is named to hold its VIPs; set spec.addresses.holder of the DirectorGroup to a Director's name"
        ),
    }
}

/// Returns a sentence about an address that the agent added. The address stays
/// on `interface`, although the group no longer wants the address there. The
/// sentence gives the reason and the remedy.
fn lingering(address: IpAddr, interface: &str, stay: &Stay, wishes: &Desired) -> String {
    match stay {
        Stay::NoPlace(why) => format!(
            "{address} stays on {interface} until it can go where the DirectorGroup wants it: {}",
            absence(address, why, wishes)
        ),
        Stay::NoHolder => format!(
            "{address} stays on {interface} of this director, as the director that spec.addresses.holder of the DirectorGroup names is not known to be live: start the agent of that director, or name a Director of the group that renews its Lease"
        ),
        Stay::Manual => format!(
            "{address} stays on {interface} although spec.addresses.mode of the DirectorGroup is Manual: the agent no longer restores or announces it, and removes it when another host on the segment answers for it, or when spec.removals.allowUntil of the DirectorGroup allows removals"
        ),
    }
}

/// Returns a sentence about an address on this host that another host also
/// claims.
fn contest(address: IpAddr, (mac, theirs): &(Mac, Vec<IpAddr>), wishes: &Desired) -> String {
    format!(
        "this director has {address}, and {} claims it too: clients reach sometimes one host and sometimes the other; remove the address from that host",
        named(*mac, theirs, address, wishes)
    )
}

/// Returns a description of another host on the segment: its Ethernet address
/// and its known IP addresses except `vip`. If the host is a RealServer, the
/// description also names the RealServer.
fn named(mac: Mac, theirs: &[IpAddr], vip: IpAddr, wishes: &Desired) -> String {
    let theirs: Vec<_> = theirs.iter().filter(|address| **address != vip).collect();
    let servers = wishes.servers.iter();
    let server = servers.filter(|((_, destination), _)| theirs.contains(&&destination.address));
    let server: Option<&ObjectKey> = server.map(|(_, object)| object).min();
    let addresses: Vec<_> = theirs.iter().map(|address| address.to_string()).collect();
    match (server, addresses.is_empty()) {
        (Some(server), _) => format!(
            "{mac} (real server {server}, {}; it must not answer for the VIP: see arp_ignore and arp_announce)",
            addresses.join(", ")
        ),
        (None, false) => format!("{mac} ({})", addresses.join(", ")),
        (None, true) => mac.to_string(),
    }
}
