//! A world in memory, for tests: a kernel, a host's interfaces and a disk that
//! outlive the agent that acts on them, and an agent that can die after any
//! call.

pub(crate) mod disk;
mod edges;
pub(crate) mod health;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io, mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use ipvs::{Errno, Op, ServiceKey, Timeouts, model_kernel::ModelKernel};

pub(crate) use self::table::{config, named, server, service, spelled, tcp, weight, wish};

use self::{disk::ModelFile, table::lines};
use crate::{
    claim::Orders,
    decide::ours::{Change, Entry, Intent, Remembered},
    disk::journal::JournalError,
    host::{
        interface::{Interface, Mac},
        listeners::Listener,
        netlink::LinkError,
    },
};

/// A host that forwards what NAT servers on eth1 send, so that only services
/// with checks need a sysctl.
const SYSCTLS: [(&str, &str); 6] = [
    ("net.ipv4.vs.expire_nodest_conn", "0"),
    ("net.ipv4.vs.expire_quiescent_template", "0"),
    ("net.ipv4.vs.conn_reuse_mode", "1"),
    ("net.ipv4.conf.eth1.forwarding", "1"),
    ("net.ipv4.conf.eth1.send_redirects", "0"),
    ("net.ipv4.conf.all.send_redirects", "0"),
];

/// What an agent did to the world.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Effect {
    /// An operation on the kernel's table, and why the kernel refused it, if it
    /// did.
    Kernel(Op, Option<Errno>),
    /// New timeouts of connections.
    Timeouts(Timeouts),
    /// A sysctl and its new value.
    Sysctl(String, String),
    /// An address was added to an interface.
    Added(IpAddr, String),
    /// An address was removed from an interface.
    Removed(IpAddr, String),
    /// A device was made, with this name.
    Made(String),
    /// A device was removed, with this name.
    Unmade(String),
    /// An intent was written to the disk.
    Intended,
    /// A settlement was written to the disk.
    Settled,
    /// The cluster was written to the disk.
    Remembered,
}

/// Spelled as `-A -t 192.0.2.10:80 -s wrr`, `+ 192.0.2.10 eth0`, `intend`.
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

/// What was committed to the journal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Disk {
    pub(crate) owned: BTreeSet<Entry>,
    pub(crate) intent: Intent,
    pub(crate) cluster: Option<String>,
}

impl Disk {
    /// Applies what [`Journal::settle`] should write.
    pub(crate) fn settle(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Own(entry) => {
                    self.owned.insert(entry.clone());
                }
                Change::Disown(gone) => self.owned.retain(|entry| match (gone, entry) {
                    (Entry::Service(service), Entry::Destination(of, _)) => service != of,
                    _ => entry != gone,
                }),
            }
        }
        self.intent = Intent::default();
    }

    /// Returns what a new agent reads from it.
    pub(crate) fn remembered(&self) -> Remembered {
        let mut remembered = Remembered {
            intent: self.intent.clone(),
            cluster: self.cluster.clone(),
            ..Remembered::default()
        };
        for entry in &self.owned {
            remembered.apply(&Change::Own(entry.clone()));
        }
        remembered
    }
}

/// Everything that outlives an agent.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kernel: ModelKernel,
    pub(crate) interfaces: Vec<Interface>,
    /// Other hosts on the host's segments.
    pub(crate) neighbors: Vec<(Mac, IpAddr)>,
    /// The addresses whose MAC addresses are being looked up.
    pub(crate) looked_for: Vec<IpAddr>,
    /// The latest orders to the segments.
    pub(crate) orders: Orders,
    pub(crate) disk: Disk,
    /// The file of the real journal, for tests that use it.
    pub(crate) file: ModelFile,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// The sockets on which the host's programs listen.
    pub(crate) listeners: Vec<Listener>,
    /// How often the listeners were read.
    pub(crate) listeners_read: usize,
    /// While set, the listeners cannot be read.
    pub(crate) listeners_hidden: bool,
    /// The sysctls that cannot be written.
    pub(crate) read_only: BTreeSet<String>,
    /// The interface that leads to each address that is in no subnet.
    pub(crate) routes: BTreeMap<IpAddr, u32>,
    /// The interfaces with a default route from a router advertisement.
    pub(crate) advertised: BTreeSet<u32>,
    /// Whether connection tracking has called packets invalid.
    pub(crate) calls_packets_invalid: bool,
    /// While set, no address can be read.
    pub(crate) links_broken: bool,
    /// While set, no address can be added or removed.
    pub(crate) addresses_refused: bool,
    /// While set, nothing can be committed.
    pub(crate) disk_broken: bool,
    /// What the next reading of the table leaves out, as a dump does while
    /// another process removes an entry.
    pub(crate) skipped: Option<ServiceKey>,
    /// How many more calls the agent makes before it dies; an operation on the
    /// kernel's table counts as one. A dead agent has no effect.
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

/// A handle to the world; there may be many. Each is every edge of it.
#[derive(Clone, Debug)]
pub(crate) struct ModelWorld(Arc<Mutex<Parts>>);

impl ModelWorld {
    /// A host with eth0 in 192.0.2.0/24 and 2001:db8::/64, eth1 in
    /// 198.51.100.0/24, an empty table and an empty disk.
    pub(crate) fn new() -> Self {
        Self(Arc::new(Mutex::new(Parts {
            kernel: ModelKernel::default(),
            interfaces: vec![
                interface(1, "lo", &[("127.0.0.1", 8), ("::1", 128)]),
                interface(2, "eth0", &[("192.0.2.1", 24), ("2001:db8::1", 64)]),
                interface(3, "eth1", &[("198.51.100.254", 24)]),
            ],
            neighbors: Vec::new(),
            looked_for: Vec::new(),
            orders: Orders::new(),
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
            listeners_read: 0,
            listeners_hidden: false,
            links_broken: false,
            addresses_refused: false,
            disk_broken: false,
            skipped: None,
            life: None,
            log: Vec::new(),
        })))
    }

    pub(crate) fn parts(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().expect("no test panics while it has the lock")
    }

    /// Returns what was done since the last call, a line each.
    pub(crate) fn news(&self) -> Vec<String> {
        let log = mem::take(&mut self.parts().log);
        log.iter().map(ToString::to_string).collect()
    }

    /// Returns the kernel's table, a line for each entry, as `ipvsadm -Sn` has
    /// it.
    pub(crate) fn table(&self) -> Vec<String> {
        lines(&self.parts().kernel.table)
    }

    /// Returns the interfaces that have an address.
    pub(crate) fn interfaces_with(&self, address: IpAddr) -> Vec<String> {
        let parts = self.parts();
        let has = |interface: &&Interface| interface.addresses.iter().any(|(a, _)| *a == address);
        let found = parts.interfaces.iter().filter(has);
        found.map(|interface| interface.name.clone()).collect()
    }

    /// Puts an address on an interface, as another process would.
    pub(crate) fn put(&self, address: IpAddr, on: &str) {
        let mut parts = self.parts();
        let interface = parts.interfaces.iter_mut().find(|found| found.name == on);
        let addresses = &mut interface.expect("an interface of the model").addresses;
        if !addresses.iter().any(|(found, _)| *found == address) {
            addresses.push((address, full_length(address)));
        }
    }

    /// Takes an address from an interface, as another process would.
    pub(crate) fn take(&self, address: IpAddr, from: &str) {
        let mut parts = self.parts();
        let interface = parts.interfaces.iter_mut().find(|found| found.name == from);
        let addresses = &mut interface.expect("an interface of the model").addresses;
        addresses.retain(|(found, _)| *found != address);
    }
}

/// The error of a kernel's socket that is gone, or of a dead agent.
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
