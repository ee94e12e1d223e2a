//! The sizes of the tables that the benchmarks load.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use ipvs::{
    ActualService, ActualTable, DestinationConfig, DestinationKey, ForwardingMethod, OnConflict,
    Op, Owned, Protocol, ServiceConfig, ServiceFlags, ServiceKey, WantedService, WantedTable,
};

/// The first VIP of a benchmark's table. The VIPs are consecutive, because the
/// kernel hashes services by the last byte of the address (`ip_vs_ctl.c`,
/// `ip_vs_svc_hashkey`).
const VIPS: Ipv4Addr = Ipv4Addr::new(10, 64, 0, 1);
const SERVERS: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

/// The size of a benchmark's table: the number of services, and the number of
/// servers for each service. Each server belongs to only one service of the
/// table.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Size {
    pub(crate) services: u32,
    pub(crate) servers: u32,
}

impl Size {
    pub(crate) const fn new(services: u32, servers: u32) -> Self {
        Self { services, servers }
    }

    /// Returns the number of write operations that load a table of this size.
    pub(crate) fn operations(self) -> u32 {
        self.services * (1 + self.servers)
    }

    /// Returns the table size as it appears in the names of figures, such as
    /// `1000x10`.
    pub(crate) fn name(self) -> String {
        format!("{}x{}", self.services, self.servers)
    }

    /// Returns the VIP of each service, with the addresses of the service's
    /// servers.
    pub(crate) fn addresses(self) -> impl Iterator<Item = (Ipv4Addr, Vec<Ipv4Addr>)> {
        (0..self.services).map(move |service| {
            let first = service * self.servers;
            let servers = (first..first + self.servers).map(|server| nth(SERVERS, server));
            (nth(VIPS, service), servers.collect())
        })
    }

    /// Returns a wanted table of this size. Every service has TCP port 80, the
    /// scheduler wrr and NAT.
    pub(crate) fn wanted(self) -> WantedTable {
        self.addresses()
            .map(|(vip, servers)| {
                let key = ServiceKey::Address {
                    protocol: Protocol::TCP,
                    address: IpAddr::V4(vip),
                    port: 80,
                };
                let config = ServiceConfig {
                    scheduler: "wrr".to_owned(),
                    flags: ServiceFlags::default(),
                    timeout: 0,
                    prefix_length: 32,
                    persistence_engine: None,
                };
                let destinations = servers.into_iter().map(destination).collect();
                let wanted = WantedService {
                    config,
                    destinations,
                };
                (key, wanted)
            })
            .collect()
    }

    /// Returns the kernel's table after the wanted table was loaded, and the
    /// entries that the agent owns. The agent owns every entry of the table.
    pub(crate) fn loaded(self) -> (ActualTable, Owned) {
        let (mut table, mut owned) = (ActualTable::new(), Owned::default());
        for (key, wanted) in self.wanted() {
            let destinations = wanted.destinations.iter().map(|(key, _)| *key);
            owned.services.insert(key, destinations.collect());
            let service = ActualService {
                config: wanted.config,
                destinations: wanted.destinations.into_iter().collect(),
            };
            table.insert(key, service);
        }
        (table, owned)
    }

    /// Returns the write operations that load the table into an empty kernel.
    pub(crate) fn load(self) -> Vec<Op> {
        let (actual, owned) = (ActualTable::new(), Owned::default());
        ipvs::plan(&self.wanted(), &actual, &owned, OnConflict::Adopt).ops
    }

    /// Returns the wanted table in the format of `ipvsadm -S`.
    pub(crate) fn lines(self) -> String {
        self.load().iter().map(|op| format!("{op}\n")).collect()
    }
}

/// Writes the table size for people, such as `1000 services x 10 servers`.
impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} services x {} servers", self.services, self.servers)
    }
}

fn nth(first: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(first.to_bits() + n)
}

fn destination(address: Ipv4Addr) -> (DestinationKey, DestinationConfig) {
    let key = DestinationKey {
        address: IpAddr::V4(address),
        port: 80,
    };
    let config = DestinationConfig {
        method: ForwardingMethod::Masquerade,
        weight: 1,
        upper_threshold: 0,
        lower_threshold: 0,
    };
    (key, config)
}
