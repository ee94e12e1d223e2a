//! Collects the properties of services and servers that sysctls depend on.

use std::{collections::BTreeSet, net::IpAddr};

use ipvs::{
    DestinationConfig, DestinationKey, ForwardingMethod, Protocol, ServiceConfig, ServiceKey,
};

/// The properties of all services and servers that decide which sysctls are
/// needed.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Whether the director has any service.
    pub services: bool,
    /// Whether a service has a health check.
    pub checks: bool,
    /// Whether a server is drained.
    pub drains: bool,
    /// The servers that are reached by NAT.
    pub nat_servers: BTreeSet<IpAddr>,
    /// Whether a service may carry TCP; a service with a firewall mark may
    /// carry any protocol.
    pub tcp: bool,
    /// Whether a service that may carry TCP has the scheduler mh.
    pub mh_tcp: bool,
    /// Whether any service has the scheduler mh.
    pub mh: bool,
}

impl Needs {
    /// Adds the properties of a service to the needs.
    pub fn service(&mut self, key: &ServiceKey, config: &ServiceConfig) {
        let may_be_tcp = match key {
            ServiceKey::Address { protocol, .. } => *protocol == Protocol::TCP,
            ServiceKey::FirewallMark { .. } => true,
        };
        let is_mh = config.scheduler == "mh";
        self.services = true;
        self.tcp |= may_be_tcp;
        self.mh |= is_mh;
        self.mh_tcp |= is_mh && may_be_tcp;
    }

    /// Adds the properties of a server to the needs. A loopback server does not
    /// count as a NAT server, because the host does not forward packets to
    /// itself.
    pub fn server(&mut self, key: &DestinationKey, config: &DestinationConfig) {
        if config.method == ForwardingMethod::Masquerade && !key.address.is_loopback() {
            self.nat_servers.insert(key.address);
        }
    }
}
