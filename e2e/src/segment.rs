//! Ethernet segments that connect the lab's hosts.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::host::{Host, ip_here};
use crate::layout::{MANAGEMENT_GATEWAY, WIRE_NETWORK};

/// An Ethernet segment: a switch without an address, to which hosts are
/// connected. The switch is a bridge in its own network namespace.
#[derive(Debug)]
pub struct Segment {
    switch: Host,
    ports: AtomicU16,
}

impl Segment {
    /// Creates a segment. `name` must differ from the names of all other
    /// segments and hosts.
    ///
    /// # Panics
    /// Panics if another segment or host has the name.
    pub fn new(name: &str) -> Self {
        let switch = Host::new(name);
        // Multicast snooping must be off. Otherwise the bridge would not
        // deliver neighbour solicitations to some hosts: those that have not
        // yet reported their multicast groups.
        switch.ip("link add br0 type bridge mcast_snooping 0
                   link set br0 up");
        Self {
            switch,
            ports: AtomicU16::new(0),
        }
    }

    /// Adds the network card `device` to `host` and connects it to this
    /// segment. `attach` brings the network card up and gives it an address
    /// such as `192.168.4.5/24`.
    ///
    /// # Panics
    /// Panics if the host already has a network card named `device`, or if the
    /// address is invalid.
    #[track_caller]
    pub fn attach(&self, host: &Host, device: &str, address: &str) {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        self.switch.ip(&format!(
            "link add port{port} type veth peer name {device} netns {host}
             link set port{port} master br0 up",
            host = host.name(),
        ));
        // A duplicate-address check would make an IPv6 address unusable for a
        // second. Tests choose unique addresses, so no test needs the
        // duplicate-address check.
        let unchecked = if address.contains(':') { "nodad" } else { "" };
        host.ip(&format!(
            "address add {address} dev {device} {unchecked}
             link set {device} up"
        ));
    }

    /// Returns the host that acts as the segment's switch, for a test that
    /// captures packets on the segment.
    pub fn switch(&self) -> &Host {
        &self.switch
    }
}

/// Adds a network card `mgmt0` on the management network to `host`, and returns
/// the card's address. Through the card `mgmt0`, the host reaches only the API
/// server. `attach_to_management` does not change the host's default route.
///
/// # Panics
/// Panics if the host already has a network card `mgmt0`.
#[track_caller]
pub fn attach_to_management(host: &Host) -> Ipv4Addr {
    static ATTACHED: AtomicU16 = AtomicU16::new(1);
    let number = ATTACHED.fetch_add(1, Ordering::Relaxed);
    let address = Ipv4Addr::from(u32::from(MANAGEMENT_GATEWAY) + u32::from(number));
    ip_here(&format!(
        "link add mgmt{number} type veth peer name mgmt0 netns {host}
         link set mgmt{number} master mgmt up",
        host = host.name(),
    ))
    .unwrap_or_else(|failed| panic!("{failed}"));
    host.ip(&format!(
        "address add {address}/17 dev mgmt0
         link set mgmt0 up
         route add {WIRE_NETWORK} via {MANAGEMENT_GATEWAY} dev mgmt0"
    ));
    address
}
