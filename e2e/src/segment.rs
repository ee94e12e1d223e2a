//! Wires that join hosts.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering};

use crate::host::{Host, ip_here};
use crate::layout::{MANAGEMENT_GATEWAY, WIRE_NETWORK};

/// An Ethernet segment: a switch without an address, which hosts are attached
/// to. It is a bridge in a namespace of its own.
#[derive(Debug)]
pub struct Segment {
    switch: Host,
    ports: AtomicU16,
}

impl Segment {
    /// Makes the segment. No other segment and no host may have its name.
    ///
    /// # Panics
    /// When the name is taken.
    pub fn new(name: &str) -> Self {
        let switch = Host::new(name);
        // Snooping would keep neighbour solicitations from ports that have not
        // yet reported their groups.
        switch.ip("link add br0 type bridge mcast_snooping 0
                   link set br0 up");
        Self {
            switch,
            ports: AtomicU16::new(0),
        }
    }

    /// Gives `host` a network card `device` on this segment, up, with an
    /// address such as `192.168.4.5/24`.
    ///
    /// # Panics
    /// When the host has such a card already, or the address is invalid.
    #[track_caller]
    pub fn attach(&self, host: &Host, device: &str, address: &str) {
        let port = self.ports.fetch_add(1, Ordering::Relaxed);
        self.switch.ip(&format!(
            "link add port{port} type veth peer name {device} netns {host}
             link set port{port} master br0 up",
            host = host.name(),
        ));
        // A duplicate-address check would leave an IPv6 address unusable for a
        // second; here it is known to be unique.
        let unchecked = if address.contains(':') { "nodad" } else { "" };
        host.ip(&format!(
            "address add {address} dev {device} {unchecked}
             link set {device} up"
        ));
    }

    /// The switch itself, for a test that listens on the wire.
    pub fn switch(&self) -> &Host {
        &self.switch
    }
}

/// Gives `host` a card `mgmt0` on the management network, from which it reaches
/// the API server and nothing else: its default route stays as it is.
///
/// # Panics
/// When the host has one already.
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
