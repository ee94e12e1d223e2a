//! Which virtual addresses go on which interface of this host: pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A network interface as the kernel shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its addresses, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
}

/// Whether this director is to have its group's virtual addresses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Holding {
    /// It is the one: it takes what it does not have.
    Take,
    /// Nobody is named and there are several directors: it keeps what it has,
    /// and takes nothing.
    KeepOnly,
    /// Another one is named: it gives back what it put on itself.
    Release,
    /// Not known yet: nothing changes and nothing is wrong.
    Undecided,
}

/// Who holds the VIPs of a group whose directors are `directors`, as seen by
/// the director `me`. The directors are unknown until this one has seen its
/// own registration among them: of two that start at the same moment at least
/// one then sees both.
pub fn holding(holder: Option<&str>, me: &str, directors: Option<&BTreeSet<String>>) -> Holding {
    match (holder, directors) {
        (Some(holder), _) if holder == me => Holding::Take,
        (Some(_), _) => Holding::Release,
        (None, Some(directors)) if directors.contains(me) && directors.len() == 1 => Holding::Take,
        (None, Some(directors)) if directors.contains(me) => Holding::KeepOnly,
        (None, _) => Holding::Undecided,
    }
}

/// An address to add or remove.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Placement {
    /// The virtual address.
    pub address: IpAddr,
    /// The interface's number.
    pub index: u32,
    /// The interface's name.
    pub interface: String,
}

impl Placement {
    /// The address and the name of its interface.
    pub fn named(&self) -> (IpAddr, String) {
        (self.address, self.interface.clone())
    }
}

/// Why a virtual address that is wanted is not on this host.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// No interface has a subnet that holds it.
    NoSubnet,
    /// Nobody is named to hold it, and there are several directors.
    HolderNotNamed,
}

/// What to do about the virtual addresses, and what there is to say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct AddressPlan {
    /// To add.
    pub add: Vec<Placement>,
    /// To remove; each was put there by us.
    pub remove: Vec<Placement>,
    /// Ours by the journal, and not on the host any more.
    pub forget: Vec<IpAddr>,
    /// Wanted and on the host, with the interface, whoever put it there.
    pub held: BTreeMap<IpAddr, String>,
    /// Not wanted here, and not to be got rid of so far: for whoever applies
    /// the plan.
    pub stays: BTreeMap<IpAddr, String>,
    /// Wanted, and to stay away for now.
    pub missing: BTreeMap<IpAddr, Missing>,
}

/// Compares the wanted addresses with those of the host and says what to do.
/// `ours` is what the journal says that we put there: nothing else is removed,
/// and an address that was there before us is used as it is.
pub fn plan(
    wanted: &BTreeSet<IpAddr>,
    interfaces: &[Interface],
    ours: &BTreeMap<IpAddr, String>,
    holding: Holding,
) -> AddressPlan {
    let mut plan = AddressPlan::default();
    for &address in wanted {
        let mine = ours
            .get(&address)
            .and_then(|name| interface_that(interfaces, address, |i| i.name == *name));
        let present = mine.or_else(|| interface_that(interfaces, address, |_| true));
        match (present, holding) {
            (Some(interface), Holding::Release) if mine.is_some() => {
                plan.remove.push(placement(address, interface));
            }
            (Some(interface), _) => {
                plan.held.insert(address, interface.name.clone());
            }
            (None, Holding::Take) => match subnet_of(interfaces, address) {
                Some(interface) => plan.add.push(placement(address, interface)),
                None => {
                    plan.missing.insert(address, Missing::NoSubnet);
                }
            },
            (None, Holding::KeepOnly) => {
                plan.missing.insert(address, Missing::HolderNotNamed);
            }
            (None, Holding::Release | Holding::Undecided) => {}
        }
        if ours.contains_key(&address) && mine.is_none() {
            plan.forget.push(address);
        }
    }
    for (&address, name) in ours {
        if wanted.contains(&address) {
            continue;
        }
        match interface_that(interfaces, address, |i| i.name == *name) {
            Some(interface) => plan.remove.push(placement(address, interface)),
            None => plan.forget.push(address),
        }
    }
    plan
}

fn placement(address: IpAddr, interface: &Interface) -> Placement {
    Placement {
        address,
        index: interface.index,
        interface: interface.name.clone(),
    }
}

/// An interface of that kind that has the address.
fn interface_that(
    interfaces: &[Interface],
    address: IpAddr,
    kind: impl Fn(&Interface) -> bool,
) -> Option<&Interface> {
    let has = |interface: &Interface| {
        let mut addresses = interface.addresses.iter();
        addresses.any(|(found, _)| *found == address)
    };
    interfaces
        .iter()
        .find(|interface| has(interface) && kind(interface))
}

/// The interface whose subnet holds the address; of several, that with the
/// longest prefix, and of those the first.
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

/// Whether a network of more than one address holds this one.
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
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn interface(index: u32, name: &str, addresses: &[(&str, u8)]) -> Interface {
        Interface {
            index,
            name: name.into(),
            loopback: name == "lo",
            addresses: addresses
                .iter()
                .map(|(a, length)| (ip(a), *length))
                .collect(),
        }
    }

    fn director() -> Vec<Interface> {
        vec![
            interface(1, "lo", &[("127.0.0.1", 8), ("::1", 128)]),
            interface(2, "eth0", &[("192.168.4.5", 24), ("2001:db8::5", 64)]),
            interface(3, "eth1", &[("192.168.2.5", 24)]),
        ]
    }

    fn directors(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn the_vip_goes_on_the_interface_whose_subnet_holds_it() {
        for (vip, expected) in [
            ("192.168.4.15", Some("eth0")),
            ("192.168.2.15", Some("eth1")),
            ("2001:db8::15", Some("eth0")),
            ("10.9.9.9", None),
            ("127.0.0.9", None),
        ] {
            let plan = plan(
                &[ip(vip)].into(),
                &director(),
                &BTreeMap::new(),
                Holding::Take,
            );
            assert_eq!(
                plan.add.first().map(|placed| placed.interface.as_str()),
                expected,
                "the interface for {vip}"
            );
            assert_eq!(
                plan.missing.contains_key(&ip(vip)),
                expected.is_none(),
                "{vip} is reported only where it cannot go"
            );
        }
    }

    #[test]
    fn an_address_that_was_there_before_us_is_used_and_never_removed() {
        let primary = ip("192.168.4.5");
        for holding in [Holding::Take, Holding::KeepOnly, Holding::Release] {
            let used = plan(&[primary].into(), &director(), &BTreeMap::new(), holding);
            assert!(used.add.is_empty() && used.remove.is_empty(), "{holding:?}");
            assert_eq!(used.held[&primary], "eth0", "{holding:?}");
        }
        let unused = plan(
            &BTreeSet::new(),
            &director(),
            &BTreeMap::new(),
            Holding::Take,
        );
        assert_eq!(unused, AddressPlan::default(), "nothing of ours to remove");
    }

    #[test]
    fn what_we_put_there_goes_with_its_last_service_or_with_the_office() {
        let vip = ip("192.168.4.15");
        let mut host = director();
        host[1].addresses.push((vip, 32));
        let ours = BTreeMap::from([(vip, "eth0".to_owned())]);
        let unwanted = plan(&BTreeSet::new(), &host, &ours, Holding::Take);
        assert_eq!(unwanted.remove.len(), 1, "its last service is gone");
        let released = plan(&[vip].into(), &host, &ours, Holding::Release);
        assert_eq!(released.remove.len(), 1, "another director is named");
        let kept = plan(&[vip].into(), &host, &ours, Holding::KeepOnly);
        assert!(
            kept.remove.is_empty(),
            "nobody is named: whoever has it keeps it"
        );
        assert_eq!(kept.held[&vip], "eth0");
    }

    #[test]
    fn what_we_put_there_and_somebody_moved_is_forgotten_and_not_removed() {
        let vip = ip("192.168.4.15");
        let mut host = director();
        host[2].addresses.push((vip, 32));
        let ours = BTreeMap::from([(vip, "eth0".to_owned())]);
        let plan = plan(&BTreeSet::new(), &host, &ours, Holding::Take);
        assert_eq!(plan.forget, [vip]);
        assert!(plan.remove.is_empty(), "eth1's is not the one we added");
    }

    #[test]
    fn one_director_alone_holds_and_of_several_only_the_named_one() {
        let alone = directors(&["a"]);
        let both = directors(&["a", "b"]);
        for (holder, known, expected) in [
            (None, Some(&alone), Holding::Take),
            (None, Some(&both), Holding::KeepOnly),
            (None, None, Holding::Undecided),
            (Some("a"), Some(&both), Holding::Take),
            (Some("b"), Some(&both), Holding::Release),
            (Some("b"), None, Holding::Release),
        ] {
            assert_eq!(
                holding(holder, "a", known),
                expected,
                "holder {holder:?}, directors {known:?}"
            );
        }
        assert_eq!(
            holding(None, "a", Some(&directors(&["b"]))),
            Holding::Undecided,
            "a does not see its own registration yet"
        );
    }

    #[test]
    fn nobody_takes_a_vip_that_no_one_is_named_for() {
        let vip = ip("192.168.4.15");
        let plan = plan(
            &[vip].into(),
            &director(),
            &BTreeMap::new(),
            Holding::KeepOnly,
        );
        assert!(plan.add.is_empty());
        assert_eq!(plan.missing[&vip], Missing::HolderNotNamed);
    }
}
