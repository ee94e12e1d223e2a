//! What is said of virtual addresses that are not as they should be: pure.

use std::net::IpAddr;

use crds::{ObjectKey, condition};

use crate::{
    decide::{
        addresses::{DEVICE, Missing},
        desired::Desired,
    },
    host::interface::Mac,
};

/// A word for programs, of why an address is not here.
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

/// A sentence of why an address is not here, with what to do.
pub(super) fn absence(address: IpAddr, why: &Missing, wishes: &Desired) -> String {
    match why {
        Missing::NoSubnet => format!(
            "no interface of this director has a subnet that holds {address}: give one an address of its subnet, name one with spec.addresses.interface of the DirectorGroup, or choose a VIP from a subnet that is there"
        ),
        Missing::NoInterface(name) => format!(
            "{address} is to go on {name}, and this director has no such interface: make it, or name another one with spec.addresses.interface of the DirectorGroup"
        ),
        Missing::NoDevice => format!(
            "{address} is to go on a device of the agent's own, {DEVICE}, which cannot be made: the Director says why; if the kernel lacks the module dummy, load it"
        ),
        Missing::Down(name) => format!(
            "{address} is to go on {name}, which is not up and connected: it is put there when it is"
        ),
        Missing::Unusable(name) => format!(
            "{name} has {address} and cannot use it, as somebody else on the segment had it (dadfailed): end that, then `ip address del {address} dev {name}`"
        ),
        Missing::Asking => format!(
            "it is being asked whether anybody has {address}; without an answer it is put up within 7 s"
        ),
        Missing::Deaf(name, why) => format!(
            "{address} is not put up, as it cannot be asked on {name} whether somebody has it: {why}"
        ),
        Missing::Taken(mac, theirs) => format!(
            "{address} is not put up, as {} has it: take it from there, or choose another VIP. It is asked for again and again",
            named(*mac, theirs, address, wishes)
        ),
        Missing::HolderNotNamed => format!(
            "{address} is not taken: the group has several directors and none is named to hold its VIPs; set spec.addresses.holder of the DirectorGroup to a Director's name"
        ),
    }
}

/// A sentence of an address that is here, and that somebody else says he has.
pub(super) fn contest(
    address: IpAddr,
    (mac, theirs): &(Mac, Vec<IpAddr>),
    wishes: &Desired,
) -> String {
    format!(
        "{address} is here, and {} says that he has it too: clients reach now one and now the other; take it from there",
        named(*mac, theirs, address, wishes)
    )
}

/// Who somebody is on the segment: his Ethernet address, the other addresses
/// that he is known to have, and the real server that he is, if he is one.
fn named(mac: Mac, theirs: &[IpAddr], vip: IpAddr, wishes: &Desired) -> String {
    let theirs: Vec<_> = theirs.iter().filter(|address| **address != vip).collect();
    let servers = wishes.servers.iter();
    let server = servers.filter(|((_, destination), _)| theirs.contains(&&destination.address));
    let server: Option<&ObjectKey> = server.map(|(_, object)| object).min();
    let addresses: Vec<_> = theirs.iter().map(|address| address.to_string()).collect();
    match (server, addresses.is_empty()) {
        (Some(server), _) => format!(
            "{mac} (real server {server}, {}; it has to keep silent about the VIP: see arp_ignore and arp_announce)",
            addresses.join(", ")
        ),
        (None, false) => format!("{mac} ({})", addresses.join(", ")),
        (None, true) => mac.to_string(),
    }
}
