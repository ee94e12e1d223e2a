//! What there is that may need a sysctl.

use std::{collections::BTreeSet, net::IpAddr};

use ipvs::{
    DestinationConfig, DestinationKey, ForwardingMethod, Protocol, ServiceConfig, ServiceKey,
};

/// What of the services matters to sysctls.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Needs {
    /// There is a service.
    pub services: bool,
    /// A service has a health check.
    pub checks: bool,
    /// The servers that are reached by NAT.
    pub nat_servers: BTreeSet<IpAddr>,
    /// A service may be of TCP; behind a firewall mark anything may come.
    pub tcp: bool,
    /// One of those is scheduled by mh.
    pub mh_tcp: bool,
    /// Any service is.
    pub mh: bool,
}

impl Needs {
    /// Takes in a service.
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

    /// Takes in a server. What it sends to itself a host does not forward.
    pub fn server(&mut self, key: &DestinationKey, config: &DestinationConfig) {
        if config.method == ForwardingMethod::Masquerade && !key.address.is_loopback() {
            self.nat_servers.insert(key.address);
        }
    }
}
