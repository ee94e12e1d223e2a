//! Decides which virtual addresses go on which interface of this host: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::AddressRule;

use crate::host::interface::{Card, Interface, Mac};

/// The agent's own device. Virtual addresses go on it where no segment should
/// learn of them.
pub const DEVICE: &str = "ipvs-vips";

/// Whether this director should have its group's virtual addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Holding {
    /// This director is the holder: it takes the addresses that it does not
    /// have.
    Take,
    /// No holder is named and there are several directors: this one keeps the
    /// addresses that it has and takes no others.
    KeepOnly,
    /// Another holder is named: this director removes the addresses that it
    /// added.
    Release,
    /// Not known yet: nothing changes and nothing is reported missing.
    #[default]
    Undecided,
}

/// Returns whether the director `me` should have the VIPs of a group whose
/// directors are `directors`. The directors are unknown until this one has seen
/// its own registration among them: of two that start at the same moment, at
/// least one then sees both. With rule Dummy every director may have them.
pub fn holding(
    rule: &AddressRule,
    holder: Option<&str>,
    me: &str,
    directors: Option<&BTreeSet<String>>,
) -> Holding {
    match (holder, directors) {
        (Some(holder), _) if holder == me => Holding::Take,
        (Some(_), _) => Holding::Release,
        (None, _) if *rule == AddressRule::Dummy => Holding::Take,
        (None, Some(directors)) if directors.contains(me) && directors.len() == 1 => Holding::Take,
        (None, Some(directors)) if directors.contains(me) => Holding::KeepOnly,
        (None, _) => Holding::Undecided,
    }
}

/// An address to add or remove.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    /// The virtual address to place.
    pub address: IpAddr,
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub interface: String,
    /// The Ethernet card on whose segment the address is claimed; none if the
    /// interface is not Ethernet.
    pub card: Option<Card>,
    /// Whether the address was here in this run, and is restored without a
    /// claim.
    pub is_repair: bool,
}

impl Placement {
    /// Returns the address and its interface's name.
    pub fn named(&self) -> (IpAddr, String) {
        (self.address, self.interface.clone())
    }
}

/// Why a virtual address that is wanted is not on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Missing {
    /// No interface has a subnet that contains it.
    NoSubnet,
    /// The interface that the group names does not exist.
    NoInterface(String),
    /// The agent's own device does not exist.
    NoDevice,
    /// This interface is not up and connected.
    Down(String),
    /// This interface has it and cannot use it, because another host had it.
    Unusable(String),
    /// Its claim is still running.
    Asking,
    /// The agent cannot listen on the segment of this interface, for this
    /// reason.
    Deaf(String, String),
    /// Another host has it or is about to take it: that host's MAC address, and
    /// all addresses known to be on it.
    Taken(Mac, Vec<IpAddr>),
    /// The group names no holder and has several directors.
    HolderNotNamed,
}

/// What to do about the virtual addresses, and what to report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddressPlan {
    /// The addresses to add.
    pub add: Vec<Placement>,
    /// The addresses to remove; the agent added each of them.
    pub remove: Vec<Placement>,
    /// Ours by the journal, and no longer on the host.
    pub forget: Vec<IpAddr>,
    /// Wanted and on the host, each with its interface, even if the agent did
    /// not add it.
    pub vips: BTreeMap<IpAddr, String>,
    /// The ones in `vips` that are ours and on an Ethernet segment.
    pub cards: BTreeMap<IpAddr, Card>,
    /// Not wanted here, but not yet removable. Filled in when the plan is
    /// applied.
    pub stays: BTreeMap<IpAddr, String>,
    /// The wanted addresses that cannot be here for now, each with the reason.
    pub missing: BTreeMap<IpAddr, Missing>,
    /// Here, but another host claims it. Filled in when the plan is applied;
    /// the fields are those of [`Missing::Taken`].
    pub contested: BTreeMap<IpAddr, (Mac, Vec<IpAddr>)>,
    /// Whether the agent's own device must be made first.
    pub needs_device: bool,
    /// Whether an address leaves one interface now and goes on another with the
    /// next plan.
    pub moves: bool,
}

/// What is wanted of the virtual addresses, and what is known of them.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The wanted virtual addresses.
    pub addresses: &'a BTreeSet<IpAddr>,
    /// The rule that says where they go.
    pub rule: &'a AddressRule,
    /// Whether this host should have them.
    pub holding: Holding,
    /// Addresses of ours that stay on these interfaces in any case.
    pub kept: &'a BTreeMap<IpAddr, String>,
    /// What the agent added, by the journal. Nothing else is removed, and an
    /// address that was there before the agent is used as it is.
    pub ours: &'a BTreeMap<IpAddr, String>,
    /// The addresses in `ours` that were seen here in this run. If one
    /// disappears, it is restored at once, because no other host should have
    /// taken it.
    pub seen: &'a BTreeSet<IpAddr>,
}

/// Compares the wanted addresses with those of the host and decides what to do.
pub fn plan(wanted: &Wanted<'_>, interfaces: &[Interface]) -> AddressPlan {
    let mut plan = AddressPlan::default();
    for &address in wanted.addresses {
        let name = wanted.ours.get(&address);
        let mine = name.and_then(|name| interface_that(interfaces, address, |i| i.name == *name));
        let others = || interface_that(interfaces, address, |_| true);
        let present = mine.or_else(others);
        match present {
            Some(interface) => plan_present(&mut plan, wanted, address, interface, mine.is_some()),
            None => plan_absent(&mut plan, wanted, interfaces, address),
        }
        let is_repaired = present.is_none()
            && wanted.seen.contains(&address)
            && matches!(wanted.holding, Holding::Take | Holding::KeepOnly);
        if name.is_some() && mine.is_none() && !is_repaired {
            plan.forget.push(address);
        }
    }
    for (&address, name) in wanted.ours {
        if wanted.addresses.contains(&address) {
            continue;
        }
        match interface_that(interfaces, address, |i| i.name == *name) {
            Some(interface) if wanted.keeps(address, interface) => {
                plan.hold(address, interface, true);
            }
            Some(interface) => plan.remove.push(placement(address, interface)),
            None => plan.forget.push(address),
        }
    }
    plan
}

impl Wanted<'_> {
    fn keeps(&self, address: IpAddr, interface: &Interface) -> bool {
        self.kept.get(&address) == Some(&interface.name)
    }
}

impl AddressPlan {
    fn hold(&mut self, address: IpAddr, interface: &Interface, is_mine: bool) {
        self.vips.insert(address, interface.name.clone());
        if let (true, Some(card)) = (is_mine, interface.card()) {
            self.cards.insert(address, card);
        }
    }
}

fn plan_present(
    plan: &mut AddressPlan,
    wanted: &Wanted<'_>,
    address: IpAddr,
    interface: &Interface,
    is_mine: bool,
) {
    let is_elsewhere = match wanted.rule {
        AddressRule::Subnet => interface.name == DEVICE,
        AddressRule::Interface(name) => interface.name != *name,
        AddressRule::Dummy => interface.name != DEVICE,
        AddressRule::Manual => true,
    };
    match wanted.holding {
        _ if is_mine && wanted.keeps(address, interface) => plan.hold(address, interface, true),
        Holding::Release if is_mine => plan.remove.push(placement(address, interface)),
        Holding::Take | Holding::KeepOnly if is_mine && is_elsewhere => {
            plan.remove.push(placement(address, interface));
            plan.moves = true;
        }
        _ => plan.hold(address, interface, is_mine),
    }
}

fn plan_absent(
    plan: &mut AddressPlan,
    wanted: &Wanted<'_>,
    interfaces: &[Interface],
    address: IpAddr,
) {
    let was_here = wanted.seen.contains(&address);
    match wanted.holding {
        Holding::Take => {}
        Holding::KeepOnly if was_here => {}
        Holding::KeepOnly => {
            if *wanted.rule != AddressRule::Manual {
                plan.missing.insert(address, Missing::HolderNotNamed);
            }
            return;
        }
        Holding::Release | Holding::Undecided => return,
    }
    let named = |name: &str| interfaces.iter().find(|interface| interface.name == name);
    let before = wanted.ours.get(&address).and_then(|name| named(name));
    let place = match wanted.rule {
        AddressRule::Subnet => before
            .filter(|interface| was_here && interface.name != DEVICE)
            .or_else(|| subnet_of(interfaces, address))
            .ok_or(Missing::NoSubnet),
        AddressRule::Interface(name) => {
            named(name).ok_or_else(|| Missing::NoInterface(name.clone()))
        }
        AddressRule::Dummy => match named(DEVICE) {
            Some(device) => Ok(device),
            None => {
                plan.needs_device = true;
                Err(Missing::NoDevice)
            }
        },
        AddressRule::Manual => return,
    };
    let is_unusable = |interface: &&Interface| interface.unusable.contains(&address);
    let unusable = interfaces.iter().find(is_unusable);
    match (place, unusable) {
        (_, Some(interface)) => {
            let why = Missing::Unusable(interface.name.clone());
            plan.missing.insert(address, why);
        }
        (Err(why), None) => {
            plan.missing.insert(address, why);
        }
        (Ok(interface), None) if !interface.up => {
            let why = Missing::Down(interface.name.clone());
            plan.missing.insert(address, why);
        }
        (Ok(interface), None) => {
            plan.add.push(Placement {
                is_repair: was_here,
                ..placement(address, interface)
            });
        }
    }
}

fn placement(address: IpAddr, interface: &Interface) -> Placement {
    Placement {
        address,
        index: interface.index,
        interface: interface.name.clone(),
        card: interface.card(),
        is_repair: false,
    }
}

/// Returns an interface of that kind that has the address.
fn interface_that(
    interfaces: &[Interface],
    address: IpAddr,
    kind: impl Fn(&Interface) -> bool,
) -> Option<&Interface> {
    interfaces
        .iter()
        .find(|interface| kind(interface) && interface.has(address))
}

/// Returns the interface with the longest prefix that contains the address, and
/// of equals the one with the lowest index.
fn subnet_of(interfaces: &[Interface], address: IpAddr) -> Option<&Interface> {
    let longest = |interface: &Interface| {
        interface
            .addresses
            .iter()
            .filter(|(network, length)| holds(*network, *length, address))
            .map(|(_, length)| *length)
            .max()
    };
    interfaces
        .iter()
        .filter(|interface| !interface.loopback)
        .filter_map(|interface| longest(interface).map(|length| (length, interface)))
        .max_by_key(|(length, interface)| (*length, std::cmp::Reverse(interface.index)))
        .map(|(_, interface)| interface)
}

/// Whether a network of more than one address contains this one.
pub(crate) fn holds(network: IpAddr, length: u8, address: IpAddr) -> bool {
    match (network, address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            length < 32 && differ.leading_zeros() >= u32::from(length)
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let differ = network.to_bits() ^ address.to_bits();
            length < 128 && differ.leading_zeros() >= u32::from(length)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
