//! Describes a host's network interfaces for the other parts of the agent.

use std::{fmt, net::IpAddr};

/// A network interface of the host, as the kernel reports it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Interface {
    /// The kernel's index of the interface.
    pub index: u32,
    /// The name of the interface.
    pub name: String,
    /// Whether the interface is the loopback interface.
    pub loopback: bool,
    /// The interface's own Ethernet address, or `None` if the interface is not
    /// on an Ethernet segment with ARP and Neighbor Discovery.
    pub mac: Option<Mac>,
    /// Whether the interface is switched on.
    pub up: bool,
    /// Whether the interface is connected, that is, has carrier.
    pub connected: bool,
    /// The interface's IP addresses, each with its prefix length.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The interface's addresses that failed duplicate address detection,
    /// because another host on the segment has them.
    pub unusable: Vec<IpAddr>,
    /// The interface's addresses that carry the agent's mark.
    pub marked: Vec<IpAddr>,
}

impl Interface {
    /// Returns the interface as a [`Card`], or `None` if the interface is not
    /// on an Ethernet segment.
    pub fn card(&self) -> Option<Card> {
        self.mac.map(|mac| Card {
            index: self.index,
            mac,
            up: self.up && self.connected,
        })
    }

    /// Whether the interface has the given address.
    pub fn has(&self, address: IpAddr) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|(found, _)| *found == address)
    }
}

/// An interface on an Ethernet segment.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Card {
    /// The kernel's index of the interface.
    pub index: u32,
    /// The interface's own Ethernet address.
    pub mac: Mac,
    /// Whether the interface is up and connected.
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
