//! Messages about virtual addresses that are missing or contested. The module
//! is pure.

use std::net::IpAddr;

use crds::{ObjectKey, condition};

use crate::{
    decide::{
        addresses::{DEVICE, Missing},
        desired::Desired,
    },
    host::interface::Mac,
};

/// Returns the condition reason for an address that is not on this host.
pub(super) fn reason(why: &Missing) -> &'static str {
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

/// Returns a sentence that says why an address is not on this host, and what to
/// do.
pub(super) fn absence(address: IpAddr, why: &Missing, wishes: &Desired) -> String {
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

/// Returns a sentence that says that this host has an address and another host
/// claims it too.
pub(super) fn contest(
    address: IpAddr,
    (mac, theirs): &(Mac, Vec<IpAddr>),
    wishes: &Desired,
) -> String {
    format!(
        "this director has {address}, and {} claims it too: clients reach sometimes one host and sometimes the other; remove the address from that host",
        named(*mac, theirs, address, wishes)
    )
}

/// Returns a description of another host on the segment: its Ethernet address,
/// its other known IP addresses, and the RealServer that it is, if any.
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
