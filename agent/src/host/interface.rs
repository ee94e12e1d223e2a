//! A host's interfaces as facts: what other parts of the agent know of them.

use std::{fmt, net::IpAddr};

/// A network interface as the kernel shows it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interface {
    /// The kernel's number for it.
    pub index: u32,
    /// The name of the interface.
    pub name: String,
    /// Whether it is the loopback interface.
    pub loopback: bool,
    /// Its own Ethernet address, if it is on an Ethernet segment where hosts
    /// can be asked whether they have an address.
    pub mac: Option<Mac>,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it is connected.
    pub connected: bool,
    /// Its addresses, with the lengths of their prefixes.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Addresses that it has and cannot use: another host on the segment had
    /// them when they were put there.
    pub unusable: Vec<IpAddr>,
    /// Those of the addresses that carry our mark.
    pub marked: Vec<IpAddr>,
}

impl Interface {
    /// As a card of an Ethernet segment; none if it is not on one.
    pub fn card(&self) -> Option<Card> {
        self.mac.map(|mac| Card {
            index: self.index,
            mac,
            up: self.up && self.connected,
        })
    }

    /// Whether an address is on it.
    pub fn has(&self, address: IpAddr) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|(found, _)| *found == address)
    }
}

/// An interface on an Ethernet segment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Card {
    /// The kernel's number for it.
    pub index: u32,
    /// Its own Ethernet address.
    pub mac: Mac,
    /// Whether it is up and connected.
    pub up: bool,
}

/// An Ethernet address, as six bytes.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}
