//! What of the services and servers may need a sysctl.

use std::{collections::BTreeSet, net::IpAddr};

use ipvs::{
    DestinationConfig, DestinationKey, ForwardingMethod, Protocol, ServiceConfig, ServiceKey,
};

/// The properties of all services and servers that matter to sysctls.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// Whether there is any service.
    pub services: bool,
    /// Whether a service has a health check.
    pub checks: bool,
    /// The servers that are reached by NAT.
    pub nat_servers: BTreeSet<IpAddr>,
    /// Whether a service may be of TCP; behind a firewall mark any protocol may
    /// come.
    pub tcp: bool,
    /// Whether a service that may be of TCP is scheduled by mh.
    pub mh_tcp: bool,
    /// Whether any service is scheduled by mh.
    pub mh: bool,
}

impl Needs {
    /// Adds what a service needs.
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

    /// Adds what a server needs. A host does not forward what it sends to
    /// itself.
    pub fn server(&mut self, key: &DestinationKey, config: &DestinationConfig) {
        if config.method == ForwardingMethod::Masquerade && !key.address.is_loopback() {
            self.nat_servers.insert(key.address);
        }
    }
}
