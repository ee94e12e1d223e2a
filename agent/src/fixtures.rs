//! A modelled world in memory, for tests. The kernel, interfaces and disk of
//! the modelled world outlive the agent, and the agent can die after any call.

pub(crate) mod api_server;
pub(crate) mod disk;
mod edges;
pub(crate) mod filling_disk;
pub(crate) mod health;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io, mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use ipvs::{Errno, Op, ServiceKey, Timeouts, model_kernel::ModelKernel};
use jiff::Timestamp;

pub(crate) use self::table::{config, named, server, service, spelled, tcp, weight, wish};

use self::{disk::ModelFile, table::lines};
use crate::{
    claim::Orders,
    decide::{
        departures::Record,
        ours::{Change, Entry, Intent, Remembered},
        permission::{ApiServerTime, Daytime},
        refusals::Refused,
    },
    disk::journal::JournalError,
    host::{
        interface::{Interface, Mac},
        listeners::Listener,
        netlink::LinkError,
        peers::Peer,
    },
    input::leases::Looks,
};

/// The sysctls of a modelled host that forwards the packets of NAT servers on
/// eth1. On this host, only services with health checks require a change of a
/// sysctl.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.vs.expire_nodest_conn", "0"),
    ("net.ipv4.vs.expire_quiescent_template", "0"),
    ("net.ipv4.vs.conn_reuse_mode", "1"),
    ("net.ipv4.conf.eth1.forwarding", "1"),
    ("net.ipv4.conf.eth1.send_redirects", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
];

/// The time of day of the modelled world, unless a test changes it.
pub(crate) const NOON: Timestamp = Timestamp::constant(1_800_000_000, 0);

/// One change that an agent made in the modelled world.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// An operation on the kernel's table, with the error if the kernel refused
    /// it.
    Kernel(Op, Option<Errno>),
    /// The kernel's connection timeouts were set to the given values.
    Timeouts(Timeouts),
    /// The named sysctl was set to the given value.
    Sysctl(String, String),
    /// An address was added to an interface.
    Added(IpAddr, String),
    /// An address was removed from an interface.
    Removed(IpAddr, String),
    /// A device with the given name was created.
    Made(String),
    /// A device with the given name was removed.
    Unmade(String),
    /// An intent was written to the disk.
    Intended,
    /// A round was settled on the disk.
    Settled,
    /// The id of the cluster was written to the disk.
    Remembered,
}

/// Formats effects as `-A -t 192.0.2.10:80 -s wrr`, `+ 192.0.2.10 eth0` or
/// `intend`.
impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kernel(op, None) => write!(f, "{op}"),
            Self::Kernel(op, Some(errno)) => write!(f, "{op}: {errno}"),
            Self::Timeouts(Timeouts { tcp, tcp_fin, udp }) => {
                write!(f, "--set {tcp} {tcp_fin} {udp}")
            }
            Self::Sysctl(name, value) => write!(f, "{name}={value}"),
            Self::Added(address, interface) => write!(f, "+ {address} {interface}"),
            Self::Removed(address, interface) => write!(f, "- {address} {interface}"),
            Self::Made(device) => write!(f, "+ {device}"),
            Self::Unmade(device) => write!(f, "- {device}"),
            Self::Intended => f.write_str("intend"),
            Self::Settled => f.write_str("settle"),
            Self::Remembered => f.write_str("remember the cluster"),
        }
    }
}

/// The committed content of the modelled journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Disk {
    pub(crate) owned: BTreeSet<Entry>,
    pub(crate) intent: Intent,
    pub(crate) cluster: Option<String>,
    pub(crate) taken_over: BTreeSet<IpAddr>,
    pub(crate) refused: Refused,
    pub(crate) before_boot: Option<BTreeSet<ServiceKey>>,
    pub(crate) drains: Record,
}

impl Disk {
    /// Applies the changes that [`Journal::settle`] must write.
    pub(crate) fn settle(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Own(entry) => {
                    // The journal records only one interface for each address.
                    if let Entry::Address(address, _) = entry {
                        let is_same = |owned: &Entry| matches!(owned, Entry::Address(found, _) if found == address);
                        self.owned.retain(|owned| !is_same(owned));
                    }
                    self.owned.insert(entry.clone());
                }
                Change::Disown(gone) => self.owned.retain(|entry| match (gone, entry) {
                    (Entry::Service(service), Entry::Destination(of, _) | Entry::Adopted(of)) => {
                        service != of
                    }
                    _ => entry != gone,
                }),
            }
        }
        self.intent = Intent::default();
    }

    /// Returns the journal's content after a reboot of the host.
    pub(crate) fn rebooted(&self) -> Self {
        let services = self.owned.iter().filter_map(|entry| match entry {
            Entry::Service(service) => Some(*service),
            _ => None,
        });
        let services: BTreeSet<_> = services.collect();
        let before_boot = match (services.is_empty(), &self.before_boot) {
            (true, Some(before)) => before.clone(),
            _ => services,
        };
        Self {
            refused: self.refused.clone(),
            before_boot: Some(before_boot),
            cluster: self.cluster.clone(),
            ..Self::default()
        }
    }

    /// Returns the records that a new run of the agent reads from this journal.
    pub(crate) fn remembered(&self) -> Remembered {
        let mut remembered = Remembered {
            intent: self.intent.clone(),
            cluster: self.cluster.clone(),
            taken_over: self.taken_over.clone(),
            refused: self.refused.clone(),
            before_boot: self.before_boot.clone(),
            drains: self.drains.clone(),
            ..Remembered::default()
        };
        for entry in &self.owned {
            remembered.apply(&Change::Own(entry.clone()));
        }
        remembered
    }
}

/// The parts of the modelled world that outlive an agent.
#[derive(Debug)]
pub(crate) struct Parts {
    /// The time of day that the agent reads.
    pub(crate) daytime: Daytime,
    /// The time since the modelled host started, which the agent reads.
    pub(crate) uptime: std::time::Duration,
    pub(crate) kernel: ModelKernel,
    pub(crate) interfaces: Vec<Interface>,
    /// The other hosts on the modelled host's segments.
    pub(crate) neighbors: Vec<(Mac, IpAddr)>,
    /// The IP addresses whose MAC addresses the agent has asked for.
    pub(crate) looked_for: Vec<IpAddr>,
    /// The agent's latest [`Orders`] about virtual addresses.
    pub(crate) orders: Orders,
    /// Whether another host claims each address after it was found free.
    pub(crate) claimed_meanwhile: bool,
    /// The directors whose Leases the agent reads.
    pub(crate) leases_asked: Looks,
    pub(crate) disk: Disk,
    /// The modelled file of the journal, for tests that use the real journal.
    pub(crate) file: ModelFile,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The listening sockets of the host's programs.
    pub(crate) listeners: Vec<Listener>,
    /// The remote addresses that the host's programs talk to.
    pub(crate) peers: BTreeSet<Peer>,
    /// How many times the agent read the listening sockets.
    pub(crate) listeners_read: usize,
    /// Whether reading the listening sockets fails.
    pub(crate) listeners_hidden: bool,
    /// The names of the sysctls that cannot be written.
    pub(crate) read_only: BTreeSet<String>,
    /// For each address outside the host's subnets, the interface that leads to
    /// the address.
    pub(crate) routes: BTreeMap<IpAddr, u32>,
    /// The indexes of the interfaces that have a default route from a router
    /// advertisement.
    pub(crate) advertised: BTreeSet<u32>,
    /// Whether connection tracking has counted invalid packets.
    pub(crate) calls_packets_invalid: bool,
    /// Whether reading the addresses of the host fails.
    pub(crate) links_broken: bool,
    /// Whether adding and removing addresses fails.
    pub(crate) addresses_refused: bool,
    /// The number of batches of operations on the kernel's table.
    pub(crate) batches: usize,
    /// The number of records of drains that were written to the disk.
    pub(crate) records: usize,
    /// Whether writing to the disk fails.
    pub(crate) disk_broken: bool,
    /// The service that the next reading of the kernel's table leaves out. A
    /// real dump may also leave out entries while another process removes an
    /// entry.
    pub(crate) skipped: Option<ServiceKey>,
    /// The number of calls that the agent makes before it dies. Each operation
    /// on the kernel's table counts as one call. A dead agent changes nothing
    /// in the modelled world.
    pub(crate) life: Option<usize>,
    pub(crate) log: Vec<Effect>,
}

impl Parts {
    fn lives(&mut self) -> bool {
        match &mut self.life {
            None => true,
            Some(0) => false,
            Some(calls) => {
                *calls -= 1;
                true
            }
        }
    }

    fn write(&mut self) -> Result<(), JournalError> {
        if self.lives() && !self.disk_broken {
            return Ok(());
        }
        Err(JournalError::Folder {
            path: "/state".into(),
            source: io::Error::from_raw_os_error(nix::libc::ENOSPC),
        })
    }

    fn link(&mut self, works: bool) -> Result<(), LinkError> {
        if self.lives() && works {
            return Ok(());
        }
        Err(LinkError::Open(io::Error::other("no route socket")))
    }

    fn interface(&mut self, index: u32) -> &mut Interface {
        self.interfaces
            .iter_mut()
            .find(|interface| interface.index == index)
            .expect("an interface that was listed")
    }
}

/// A handle to the modelled world. There may be many handles, and each handle
/// implements all of the agent's interfaces to the world.
#[derive(Clone, Debug)]
pub(crate) struct ModelWorld(Arc<Mutex<Parts>>);

impl ModelWorld {
    /// Returns a host with an empty table and an empty disk. The host's eth0 is
    /// in 192.0.2.0/24 and 2001:db8::/64, and its eth1 is in 198.51.100.0/24.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Parts {
            uptime: std::time::Duration::from_secs(3600),
            daytime: Daytime {
                here: NOON,
                api_server: ApiServerTime::Is(NOON),
            },
            kernel: ModelKernel::default(),
            interfaces: vec![
                interface(1, "lo", &[("127.0.0.1", 8), ("::1", 128)]),
                interface(2, "eth0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]),
                interface(3, "eth1", &[("198.51.100.254", 24)]),
            ],
            neighbors: Vec::new(),
            looked_for: Vec::new(),
            orders: Orders::new(),
            claimed_meanwhile: false,
            leases_asked: Looks::new(),
            sysctls: SYSCTLS
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            read_only: BTreeSet::new(),
            routes: BTreeMap::new(),
            advertised: BTreeSet::new(),
            calls_packets_invalid: false,
            disk: Disk::default(),
            file: ModelFile::default(),
            listeners: Vec::new(),
            peers: BTreeSet::new(),
            listeners_read: 0,
            listeners_hidden: false,
            links_broken: false,
            addresses_refused: false,
            batches: 0,
            records: 0,
            disk_broken: false,
            skipped: None,
            life: None,
            log: Vec::new(),
        })))
    }

    pub(crate) fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().expect("no test panics while it has the lock")
    }

    /// Returns the agent's effects since the last call, one per line.
    pub(crate) fn news(&self) -> Vec<String> {
        let log = mem::take(&mut self.parts().log);
        log.iter().map(ToString::to_string).collect()
    }

    /// Returns the kernel's table in the format of `ipvsadm -Sn`, one line for
    /// each entry.
    pub(crate) fn table(&self) -> Vec<String> {
        lines(&self.parts().kernel.table)
    }

    /// Returns the names of the interfaces that have an address.
    pub(crate) fn interfaces_with(&self, address: IpAddr) -> Vec<String> {
        let parts = self.parts();
        let has = |interface: &&Interface| interface.addresses.iter().any(|(a, _)| *a == address);
        let found = parts.interfaces.iter().filter(has);
        found.map(|interface| interface.name.clone()).collect()
    }

    /// Simulates another process that adds an address to an interface.
    pub(crate) fn put(&self, address: IpAddr, on: &str) {
        let mut parts = self.parts();
        let interface = parts.interfaces.iter_mut().find(|found| found.name == on);
        let addresses = &mut interface.expect("an interface of the model").addresses;
        if !addresses.iter().any(|(found, _)| *found == address) {
            addresses.push((address, full_length(address)));
        }
    }

    /// Simulates another process that removes an address from an interface.
    pub(crate) fn take(&self, address: IpAddr, from: &str) {
        let mut parts = self.parts();
        let interface = parts.interfaces.iter_mut().find(|found| found.name == from);
        let addresses = &mut interface.expect("an interface of the model").addresses;
        addresses.retain(|(found, _)| *found != address);
    }
}

/// Returns the error of a broken kernel socket. Every call of a dead agent
/// fails with the same error as a broken kernel socket.
pub(crate) fn broken() -> ipvs::Error {
    ipvs::Error::Io {
        doing: "talking to the model",
        source: io::Error::other("it is gone"),
    }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

pub(crate) fn interface(index: u32, name: &str, addresses: &[(&str, u8)]) -> Interface {
    Interface {
        index,
        name: name.to_owned(),
        loopback: name == "lo",
        up: true,
        connected: true,
        addresses: addresses
            .iter()
            .map(|(a, length)| (ip(a), *length))
            .collect(),
        ..Interface::default()
    }
}

fn full_length(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}
