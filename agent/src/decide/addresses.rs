//! Decides which virtual addresses go on which interface of this host. The
//! decision is pure: it does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::AddressRule;

use crate::host::interface::{Card, Interface, Mac};

/// The name of the agent's own network device. Virtual addresses go on the
/// agent's own device when no network segment should learn of them.
pub const DEVICE: &str = "ipvs-vips";

/// Whether this director should have its group's virtual addresses.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Holding {
    /// This director is the holder: it takes the addresses that are missing.
    Take,
    /// No holder is named and there are several directors: this director keeps
    /// its present addresses and takes no more addresses.
    KeepOnly,
    /// The named holder is another director, which is live and in the group:
    /// this director removes the addresses that it added.
    Release,
    /// Another holder is named, but is not known to be a live director of the
    /// group. This director keeps its present addresses, but takes no more
    /// addresses.
    Wait,
    /// Every other director of the group, even the named holder, has stopped
    /// renewing its Lease. This director takes the missing addresses, and gives
    /// up an address when another host answers for it.
    TakeOver,
    /// The holder is not known yet: no address is added, removed or reported
    /// missing.
    #[default]
    Undecided,
}

/// Returns whether the director `me` should have the VIPs of a group with the
/// given `directors`. While no holder is named, the answer is undecided until
/// `me` is among the directors. If two directors start at the same moment, at
/// least one of them sees the other. With [`AddressRule::Dummy`], every
/// director may have the VIPs while no holder is named. `is_live` returns
/// whether a director is known to be a live director of the group.
/// `are_others_out` says whether all directors of the group except `me` have
/// stopped renewing their Leases.
pub fn holding(
    rule: &AddressRule,
    holder: Option<&str>,
    me: &str,
    directors: Option<&BTreeSet<String>>,
    is_live: impl Fn(&str) -> bool,
    are_others_out: bool,
) -> Holding {
    let is_on_a_segment = matches!(rule, AddressRule::Subnet | AddressRule::Interface(_));
    let takes_over = are_others_out && is_on_a_segment;
    match (holder, directors) {
        (Some(holder), _) if holder == me => Holding::Take,
        (Some(holder), _) if is_live(holder) => Holding::Release,
        (Some(_), _) if takes_over => Holding::TakeOver,
        (Some(_), _) => Holding::Wait,
        (None, _) if *rule == AddressRule::Dummy => Holding::Take,
        (None, Some(directors)) if directors.contains(me) && directors.len() == 1 => Holding::Take,
        (None, Some(directors)) if directors.contains(me) && takes_over => Holding::TakeOver,
        (None, Some(directors)) if directors.contains(me) => Holding::KeepOnly,
        (None, _) => Holding::Undecided,
    }
}

/// A virtual address to add to an interface or to remove from an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    /// The virtual address to add or remove.
    pub address: IpAddr,
    /// The kernel's index of the interface.
    pub index: u32,
    /// The name of the interface.
    pub interface: String,
    /// The Ethernet card through which the agent probes the segment for the
    /// address, or none if the interface is not Ethernet.
    pub card: Option<Card>,
    /// Whether the address was on this host earlier in this run. The agent
    /// restores such an address without a claim.
    pub is_repair: bool,
}

impl Placement {
    /// Returns the virtual address and the name of its interface.
    pub fn named(&self) -> (IpAddr, String) {
        (self.address, self.interface.clone())
    }
}

/// Why a wanted virtual address is not on this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Missing {
    /// No interface has a subnet that contains the address.
    NoSubnet,
    /// The interface that the group names does not exist.
    NoInterface(String),
    /// The agent's own device does not exist.
    NoDevice,
    /// The interface for the address is switched off or not connected.
    Down(String),
    /// The address is on the interface but unusable, because another host
    /// already had the address.
    Unusable(String),
    /// The claim for the address is still running.
    Asking,
    /// The agent cannot listen on the segment of the interface. The two fields
    /// of `Deaf` are the interface's name and the reason.
    Deaf(String, String),
    /// Another host has the address or is about to take it. The fields are the
    /// other host's MAC address and its known IP addresses.
    Taken(Mac, Vec<IpAddr>),
    /// The group names no holder and has several directors.
    HolderNotNamed,
}

/// Why an address of ours stays on its interface although the group wants it on
/// another interface or host. An address of ours leaves an interface only if
/// another interface or host can have it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Stay {
    /// The interface that the group wants for the address cannot take the
    /// address; the field is the reason.
    NoPlace(Missing),
    /// The holder that the group names is not known to be a live director of
    /// the group.
    NoHolder,
    /// In mode Manual, no other host has the address yet.
    Manual,
}

/// The changes of virtual addresses to make, and the facts about them to
/// report.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddressPlan {
    /// The virtual addresses to add.
    pub add: Vec<Placement>,
    /// The virtual addresses to remove. The agent itself added all virtual
    /// addresses that a plan removes.
    pub remove: Vec<Placement>,
    /// Addresses that are ours according to the journal but no longer on the
    /// host.
    pub forget: Vec<IpAddr>,
    /// All wanted addresses that are on the host, each with its interface. Some
    /// of these addresses may come from other programs.
    pub vips: BTreeMap<IpAddr, String>,
    /// The addresses in `vips` that are ours and on an Ethernet segment, each
    /// with its card.
    pub cards: BTreeMap<IpAddr, Card>,
    /// The addresses in `vips` that leave this host as soon as another host has
    /// them, each with its card. The agent does not announce or defend watched
    /// addresses.
    pub watched: BTreeMap<IpAddr, Card>,
    /// Addresses of ours in `vips` that the group wants on another interface or
    /// host, each with the reason to stay.
    pub kept: BTreeMap<IpAddr, Stay>,
    /// Unwanted addresses that cannot be removed yet, each with its interface.
    /// The field `stays` is filled in when the plan is applied.
    pub stays: BTreeMap<IpAddr, String>,
    /// The wanted addresses that cannot be on this host for now, each with the
    /// reason.
    pub missing: BTreeMap<IpAddr, Missing>,
    /// The addresses on this host that another host claims too, each with the
    /// fields of [`Missing::Taken`]. The field `contested` is filled in when
    /// the plan is applied.
    pub contested: BTreeMap<IpAddr, (Mac, Vec<IpAddr>)>,
    /// Whether the agent's own device must be created before addresses are
    /// added.
    pub needs_device: bool,
    /// Whether an address moves to another interface: this plan removes the
    /// address, and the next plan adds it again.
    pub moves: bool,
}

/// The wanted virtual addresses, and facts about this host's addresses.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The wanted virtual addresses.
    pub addresses: &'a BTreeSet<IpAddr>,
    /// The rule that chooses the interface of each address.
    pub rule: &'a AddressRule,
    /// Whether this host should have the virtual addresses.
    pub holding: Holding,
    /// Whether the administrator allows removals at the moment.
    pub is_released: bool,
    /// The addresses that leave this host because another host has them. These
    /// are watched addresses, and addresses that were taken over from a failed
    /// director.
    pub taken: &'a BTreeSet<IpAddr>,
    /// Addresses of ours to keep even if no service wants them, each with its
    /// interface.
    pub kept: &'a BTreeMap<IpAddr, String>,
    /// The addresses that the agent added according to the journal, each with
    /// its interface. The agent also uses addresses that other programs added,
    /// but never removes them.
    pub ours: &'a BTreeMap<IpAddr, String>,
    /// The addresses in `ours` that were seen on this host in this run. If a
    /// seen address disappears, the agent restores the address at once, because
    /// no other host should have taken it.
    pub seen: &'a BTreeSet<IpAddr>,
}

/// Compares the wanted addresses with the host's addresses, and plans the
/// changes.
pub fn plan(wanted: &Wanted<'_>, interfaces: &[Interface]) -> AddressPlan {
    let mut plan = AddressPlan::default();
    for &address in wanted.addresses {
        let name = wanted.ours.get(&address);
        let mine = name.and_then(|name| interface_that(interfaces, address, |i| i.name == *name));
        let others = || interface_that(interfaces, address, |_| true);
        let present = mine.or_else(others);
        match present {
            Some(interface) if mine.is_some() => {
                plan_mine(&mut plan, wanted, interfaces, address, interface);
            }
            Some(interface) => plan.hold(address, interface, false),
            None => plan_absent(&mut plan, wanted, interfaces, address),
        }
        let is_repaired = present.is_none()
            && *wanted.rule != AddressRule::Manual
            && wanted.seen.contains(&address)
            && wanted.holding.keeps();
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

impl Holding {
    /// Whether this director keeps the virtual addresses that it has.
    fn keeps(self) -> bool {
        matches!(
            self,
            Self::Take | Self::TakeOver | Self::KeepOnly | Self::Wait
        )
    }
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

/// Plans a wanted address that is ours and already on `interface`. An address
/// of ours leaves its interface only if another interface or another director
/// can take the address.
fn plan_mine(
    plan: &mut AddressPlan,
    wanted: &Wanted<'_>,
    interfaces: &[Interface],
    address: IpAddr,
    interface: &Interface,
) {
    let is_elsewhere = match wanted.rule {
        AddressRule::Subnet => interface.name == DEVICE,
        AddressRule::Interface(name) => interface.name != *name,
        AddressRule::Dummy => interface.name != DEVICE,
        AddressRule::Manual => false,
    };
    if wanted.keeps(address, interface) || wanted.holding == Holding::Undecided {
        plan.hold(address, interface, true);
        return;
    }
    if wanted.taken.contains(&address) {
        plan.remove.push(placement(address, interface));
        return;
    }
    if *wanted.rule == AddressRule::Manual {
        if wanted.is_released {
            plan.remove.push(placement(address, interface));
            return;
        }
        plan.hold(address, interface, false);
        let card = interface.card();
        plan.watched.extend(card.map(|card| (address, card)));
        plan.kept.insert(address, Stay::Manual);
        return;
    }
    if wanted.holding == Holding::Release {
        plan.remove.push(placement(address, interface));
        return;
    }
    let stay = match (wanted.holding, is_elsewhere) {
        (Holding::Wait, _) => Some(Stay::NoHolder),
        (_, false) => None,
        // A director that must not take addresses could not add a removed
        // address again.
        (Holding::KeepOnly, true) => Some(Stay::NoPlace(Missing::HolderNotNamed)),
        (_, true) => match place(plan, wanted, interfaces, address) {
            Err(why) => Some(Stay::NoPlace(why)),
            // The agent cannot ask the segment whether the address is free.
            Ok(place) if place.card().is_some_and(|card| !card.up) => {
                Some(Stay::NoPlace(Missing::Down(place.name.clone())))
            }
            Ok(_) => {
                plan.remove.push(placement(address, interface));
                plan.moves = true;
                return;
            }
        },
    };
    plan.hold(address, interface, true);
    plan.kept.extend(stay.map(|stay| (address, stay)));
}

fn plan_absent(
    plan: &mut AddressPlan,
    wanted: &Wanted<'_>,
    interfaces: &[Interface],
    address: IpAddr,
) {
    let was_here = wanted.seen.contains(&address);
    match wanted.holding {
        _ if *wanted.rule == AddressRule::Manual => return,
        Holding::Take | Holding::TakeOver => {}
        Holding::KeepOnly | Holding::Wait if was_here => {}
        Holding::KeepOnly => {
            plan.missing.insert(address, Missing::HolderNotNamed);
            return;
        }
        Holding::Wait | Holding::Release | Holding::Undecided => return,
    }
    match place(plan, wanted, interfaces, address) {
        Ok(interface) => plan.add.push(Placement {
            is_repair: was_here,
            ..placement(address, interface)
        }),
        Err(why) => {
            plan.missing.insert(address, why);
        }
    }
}

/// Returns the interface on which the rule wants an address, if the interface
/// can take the address.
fn place<'a>(
    plan: &mut AddressPlan,
    wanted: &Wanted<'_>,
    interfaces: &'a [Interface],
    address: IpAddr,
) -> Result<&'a Interface, Missing> {
    let is_unusable = |interface: &&Interface| interface.unusable.contains(&address);
    if let Some(interface) = interfaces.iter().find(is_unusable) {
        return Err(Missing::Unusable(interface.name.clone()));
    }
    let named = |name: &str| interfaces.iter().find(|interface| interface.name == name);
    let was_here = wanted.seen.contains(&address);
    let before = wanted.ours.get(&address).and_then(|name| named(name));
    let interface = match wanted.rule {
        AddressRule::Subnet => before
            .filter(|interface| was_here && interface.name != DEVICE)
            .or_else(|| subnet_of(interfaces, address))
            .ok_or(Missing::NoSubnet)?,
        AddressRule::Interface(name) => {
            named(name).ok_or_else(|| Missing::NoInterface(name.clone()))?
        }
        AddressRule::Dummy => {
            plan.needs_device |= named(DEVICE).is_none();
            named(DEVICE).ok_or(Missing::NoDevice)?
        }
        AddressRule::Manual => unreachable!("no address belongs on an interface in mode Manual"),
    };
    match interface.up {
        true => Ok(interface),
        false => Err(Missing::Down(interface.name.clone())),
    }
}

/// Returns why an address cannot be on any of the `interfaces`: no interface
/// has the address's subnet, or the interface that the rule names does not
/// exist. Returns no reason if an interface already has the address. An
/// interface that is down counts like any other interface.
pub fn lacks_place(
    rule: &AddressRule,
    interfaces: &[Interface],
    address: IpAddr,
) -> Option<Missing> {
    let why = match rule {
        AddressRule::Subnet if subnet_of(interfaces, address).is_none() => Missing::NoSubnet,
        AddressRule::Interface(name) if interfaces.iter().all(|found| found.name != *name) => {
            Missing::NoInterface(name.clone())
        }
        _ => return None,
    };
    let is_here = interface_that(interfaces, address, |_| true).is_some();
    (!is_here).then_some(why)
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

/// Returns an interface that has the address and satisfies `kind`.
fn interface_that(
    interfaces: &[Interface],
    address: IpAddr,
    kind: impl Fn(&Interface) -> bool,
) -> Option<&Interface> {
    interfaces
        .iter()
        .find(|interface| kind(interface) && interface.has(address))
}

/// Returns the interface with the longest prefix that contains the address. If
/// several interfaces have an equally long prefix, returns the interface with
/// the lowest index.
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

/// Whether the network contains `address`. The answer is false for a network of
/// only one address.
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
