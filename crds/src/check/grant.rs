use std::{collections::BTreeSet, net::IpAddr, num::NonZeroU32};

use ipnet::IpNet;

use super::{invalid, name};
use crate::{
    Rejection,
    api::{AddressPool, DirectorGroupSpec, FirewallMarkRange},
    bounds,
};

/// The firewall marks that kube-proxy sets. The first mark is for packets that
/// kube-proxy masquerades (`--iptables-masquerade-bit`). The second mark is for
/// packets that kube-proxy drops (chain KUBE-MARK-DROP).
const KUBE_PROXY_MARKS: [u32; 2] = [0x4000, 0x8000];

/// Networks and addresses at which clouds serve a machine's metadata and
/// credentials. This list needs no IPv6 link-local addresses, because no server
/// may have such an address.
const METADATA: [&str; 5] = [
    "169.254.0.0/16",
    "168.63.129.16/32",
    "100.100.100.200/32",
    "192.0.0.192/32",
    "fd00:ec2::254/128",
];

/// The addresses and firewall marks that a DirectorGroup grants to API objects.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Grants {
    addresses: Vec<AddressGrant>,
    marks: Vec<MarkGrant>,
    /// The addresses that servers may have. If `servers` is None, servers may
    /// have every address that is neither in [`METADATA`] nor a loopback
    /// address.
    servers: Option<Vec<AddressGrant>>,
}

/// How a DirectorGroup grants an address.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Extent {
    /// The group lists no server addresses. Without a list, servers may have
    /// every address except loopback addresses and the addresses of cloud
    /// metadata.
    Default,
    /// The group grants a network of several addresses, which contains this
    /// address.
    Network,
    /// The group grants exactly this address.
    Address,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct AddressGrant {
    networks: Vec<IpNet>,
    namespaces: Namespaces,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct MarkGrant {
    first: u32,
    last: u32,
    namespaces: Namespaces,
}

/// The namespaces to which a grant applies; None means all namespaces.
type Namespaces = Option<BTreeSet<String>>;

impl Grants {
    /// Returns how the group grants a virtual address to objects of the
    /// namespace, or None if the group does not grant it.
    pub fn vip(&self, namespace: &str, address: IpAddr) -> Option<Extent> {
        extent(&self.addresses, namespace, address)
    }

    /// Whether services of the namespace may use a firewall mark.
    pub fn mark(&self, namespace: &str, mark: NonZeroU32) -> bool {
        let mark = mark.get();
        let is_granted = |grant: &MarkGrant| {
            (grant.first..=grant.last).contains(&mark) && is_for(&grant.namespaces, namespace)
        };
        !is_kube_proxys(mark) && self.marks.iter().any(is_granted)
    }

    /// Returns how the group grants an address to servers of the namespace, or
    /// None if the group does not grant it.
    pub fn server(&self, namespace: &str, address: IpAddr) -> Option<Extent> {
        match &self.servers {
            Some(grants) => extent(grants, namespace, address),
            None => (!address.is_loopback() && !is_metadata(address)).then_some(Extent::Default),
        }
    }

    /// Whether the group has pools of virtual addresses.
    pub(crate) fn has_pools(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Whether the group grants any firewall mark.
    pub(crate) fn has_marks(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Whether the group has a list of server addresses
    /// (`spec.realServerAddresses`).
    pub(crate) fn names_servers(&self) -> bool {
        self.servers.is_some()
    }
}

/// Whether kube-proxy uses the mark for its own packets.
pub(crate) fn is_kube_proxys(mark: u32) -> bool {
    KUBE_PROXY_MARKS.contains(&mark)
}

/// Whether clouds serve metadata at the address.
pub(crate) fn is_metadata(address: IpAddr) -> bool {
    let networks = METADATA.iter().map(|text| text.parse::<IpNet>());
    networks.flatten().any(|network| network.contains(&address))
}

fn extent(grants: &[AddressGrant], namespace: &str, address: IpAddr) -> Option<Extent> {
    let grants = grants
        .iter()
        .filter(|grant| is_for(&grant.namespaces, namespace));
    let networks = grants.flat_map(|grant| &grant.networks);
    let networks = networks.filter(|network| network.contains(&address));
    let extents = networks.map(
        |network| match network.prefix_len() == network.max_prefix_len() {
            true => Extent::Address,
            false => Extent::Network,
        },
    );
    extents.max()
}

fn is_for(namespaces: &Namespaces, namespace: &str) -> bool {
    namespaces
        .as_ref()
        .is_none_or(|names| names.contains(namespace))
}

/// Checks the grants of a DirectorGroup.
pub(super) fn grants(spec: &DirectorGroupSpec) -> Result<Grants, Rejection> {
    Ok(Grants {
        addresses: match &spec.address_pools {
            Some(raw) => pools("spec.addressPools", raw)?,
            None => Vec::new(),
        },
        marks: match &spec.firewall_marks {
            Some(raw) => marks("spec.firewallMarks", raw)?,
            None => Vec::new(),
        },
        servers: spec
            .real_server_addresses
            .as_ref()
            .map(|raw| pools("spec.realServerAddresses", raw))
            .transpose()?,
    })
}

fn pools(path: &str, raw: &[AddressPool]) -> Result<Vec<AddressGrant>, Rejection> {
    names(path, raw.iter().map(|pool| &*pool.name), bounds::GRANTS)?;
    let pools = raw.iter().enumerate();
    let checked = pools.map(|(index, pool)| {
        let path = format!("{path}[{index}]");
        let cidrs = format!("{path}.cidrs");
        let count = pool.cidrs.len();
        within(&cidrs, count, bounds::CIDRS, "networks in CIDR notation")?;
        distinct(&cidrs, &pool.cidrs)?;
        let networks = pool.cidrs.iter().enumerate();
        let networks = networks.map(|(at, text)| cidr(&format!("{cidrs}[{at}]"), text));
        Ok(AddressGrant {
            networks: networks.collect::<Result<_, _>>()?,
            namespaces: namespaces(&path, pool.namespaces.as_deref())?,
        })
    });
    checked.collect()
}

fn marks(path: &str, raw: &[FirewallMarkRange]) -> Result<Vec<MarkGrant>, Rejection> {
    names(path, raw.iter().map(|range| &*range.name), bounds::GRANTS)?;
    let ranges = raw.iter().enumerate();
    let checked = ranges.map(|(index, range)| {
        let path = format!("{path}[{index}]");
        let mark = |field: &str, raw: i64| {
            let mark = u32::try_from(raw).ok().filter(|mark| *mark != 0);
            mark.ok_or_else(|| {
                let what = format_args!("{raw} is not a mark; write 1 to 4294967295");
                invalid(&format!("{path}.{field}"), what)
            })
        };
        let (first, last) = (mark("first", range.first)?, mark("last", range.last)?);
        if last < first {
            let what = format_args!("{last} is below first; write a mark from {first} on");
            return Err(invalid(&format!("{path}.last"), what));
        }
        Ok(MarkGrant {
            first,
            last,
            namespaces: namespaces(&path, range.namespaces.as_deref())?,
        })
    });
    checked.collect()
}

/// Checks that a list has at most `most` entries, and that each entry has a
/// valid and unique name.
pub(super) fn names<'a>(
    path: &str,
    names: impl ExactSizeIterator<Item = &'a str> + Clone,
    most: usize,
) -> Result<(), Rejection> {
    within(path, names.len(), most, "entries")?;
    let mut seen = BTreeSet::new();
    for (index, name) in names.enumerate() {
        let path = format!("{path}[{index}].name");
        name::dns_label(&path, name)?;
        if !seen.insert(name) {
            let what = format_args!("{name} is already the name of another entry; write another");
            return Err(invalid(&path, what));
        }
    }
    Ok(())
}

fn namespaces(path: &str, raw: Option<&[String]>) -> Result<Namespaces, Rejection> {
    let Some(raw) = raw else {
        return Ok(None);
    };
    let path = format!("{path}.namespaces");
    let what = "names of namespaces, or leave it out for all namespaces";
    within(&path, raw.len(), bounds::NAMESPACES, what)?;
    distinct(&path, raw)?;
    for (index, name) in raw.iter().enumerate() {
        name::dns_label(&format!("{path}[{index}]"), name)?;
    }
    Ok(Some(raw.iter().cloned().collect()))
}

fn cidr(path: &str, text: &str) -> Result<IpNet, Rejection> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let is_mapped = matches!(address, IpAddr::V6(v6) if v6.to_ipv4_mapped().is_some());
        let is_plain = length == "0" || !length.starts_with(['0', '+']);
        let network = IpNet::new(address, length.parse().ok()?).ok()?;
        (!is_mapped && is_plain).then_some(network)
    });
    let Some(network) = parsed else {
        let what = format_args!(
            "{text:?} is not a network; write one such as 192.0.2.0/24 or 2001:db8::/64, and one \
             address as 192.0.2.10/32 or 2001:db8::10/128"
        );
        return Err(invalid(path, what));
    };
    if network.addr() != network.network() {
        let what = format_args!(
            "{text} has bits after its prefix that are not 0; write {} for the network, or \
             {}/{} for the one address",
            network.trunc(),
            network.addr(),
            network.max_prefix_len()
        );
        return Err(invalid(path, what));
    }
    Ok(network)
}

fn within(path: &str, count: usize, most: usize, what: &str) -> Result<(), Rejection> {
    match (1..=most).contains(&count) {
        true => Ok(()),
        false => {
            let what = format_args!("it has {count} entries; write 1 to {most} {what}");
            Err(invalid(path, what))
        }
    }
}

fn distinct(path: &str, all: &[String]) -> Result<(), Rejection> {
    let mut seen = BTreeSet::new();
    match all.iter().find(|text| !seen.insert(*text)) {
        Some(twice) => Err(invalid(
            path,
            format_args!("{twice} is there twice; write it once"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metadata_addresses_are_networks() {
        for text in METADATA {
            let network: IpNet = text.parse().expect(text);
            assert_eq!(network.addr(), network.network(), "{text}");
            assert!(is_metadata(network.addr()), "{text}");
        }
        for text in [
            "169.253.255.255",
            "192.0.0.193",
            "fd00:ec2::253",
            "10.0.0.1",
        ] {
            assert!(!is_metadata(text.parse().expect(text)), "{text}");
        }
    }

    #[test]
    fn without_a_list_no_server_may_be_loopback_or_metadata() {
        let grants = Grants::default();
        let server = |address: &str| grants.server("shop", address.parse().expect(address));
        for refused in [
            "127.0.0.1".to_owned(),
            "::1".to_owned(),
            "127.9.9.9".to_owned(),
            "169.254.169.254".to_owned(),
            "fd00:ec2::254".to_owned(),
        ] {
            assert_eq!(server(&refused), None, "{refused}");
        }
        assert_eq!(server("10.1.0.1"), Some(Extent::Default));
        assert_eq!(server("2001:db8::1"), Some(Extent::Default));
    }
}
