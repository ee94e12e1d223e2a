//! A world in memory, for tests: a kernel, a host's interfaces and a disk that
//! outlive the agent that acts on them, and an agent's life that can end after
//! any call.

pub(crate) mod disk;
pub(crate) mod health;
mod table;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io, mem,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard},
};

use ipvs::{
    ActualService, ActualTable, Errno, Failure, Info, Kernel, Op, ServiceKey, Timeouts,
    model_kernel::ModelKernel,
};

pub(crate) use self::table::{config, named, server, service, spelled, tcp, weight, wish};

use self::{disk::ModelFile, table::lines};
use crate::{
    claim::{Orders, Segments, packet::Mac},
    host::{
        addresses::Interface,
        listeners::{Listener, Listening},
        netlink::{LinkError, Links},
        surroundings::Surroundings,
        sysctls::Sysctls,
    },
    journal::{Change, Entry, Intent, Journal, JournalError, Remembered},
    sysctls::KernelVersion,
};

/// A host that forwards what NAT servers on eth1 send, so that only services
/// with checks need anything.
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
    /// To the kernel's table, and why the kernel refused.
    Kernel(Op, Option<Errno>),
    /// To the timeouts of connections.
    Timeouts(Timeouts),
    /// A sysctl and its new value.
    Sysctl(String, String),
    /// An address that is on an interface now.
    Added(IpAddr, String),
    /// An address that is not any more.
    Removed(IpAddr, String),
    /// A device that is there now.
    Made(String),
    /// A device that is not any more.
    Unmade(String),
    /// An intent on the disk.
    Intended,
    /// A settlement on the disk.
    Settled,
    /// The cluster, on the disk.
    Remembered,
}

/// As in `-A -t 192.0.2.10:80 -s wrr`, `+ 192.0.2.10 eth0`, `intend`.
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
    /// What [`Journal::settle`] is to come to.
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

    /// What a new agent reads from it.
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

/// All that outlives an agent.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) kernel: ModelKernel,
    pub(crate) interfaces: Vec<Interface>,
    /// Others on the host's segments.
    pub(crate) neighbors: Vec<(Mac, IpAddr)>,
    /// Those whose Ethernet addresses are being found out.
    pub(crate) looked_for: Vec<IpAddr>,
    /// What is to be done on the segments.
    pub(crate) orders: Orders,
    pub(crate) disk: Disk,
    /// The file of the real journal, for a test that uses that.
    pub(crate) file: ModelFile,
    pub(crate) sysctls: BTreeMap<String, String>,
    /// On what the host's programs listen.
    pub(crate) listeners: Vec<Listener>,
    /// How often that was asked for.
    pub(crate) listeners_read: usize,
    /// While set, it cannot be seen.
    pub(crate) listeners_hidden: bool,
    /// Sysctls that cannot be written.
    pub(crate) read_only: BTreeSet<String>,
    /// Which interface leads to an address that is in no subnet.
    pub(crate) routes: BTreeMap<IpAddr, u32>,
    /// Interfaces with a default route from a router advertisement.
    pub(crate) advertised: BTreeSet<u32>,
    /// Whether connection tracking has called packets invalid.
    pub(crate) calls_packets_invalid: bool,
    /// While set, no address can be read.
    pub(crate) links_broken: bool,
    /// While set, no address can be added or removed.
    pub(crate) addresses_refused: bool,
    /// While set, nothing can be committed.
    pub(crate) disk_broken: bool,
    /// What the next reading of the table leaves out, as a dump does during
    /// which somebody else removes an entry.
    pub(crate) skipped: Option<ServiceKey>,
    /// How many more calls the agent lives to make; an operation of the
    /// kernel's table counts as one. Dead, it has no effect any more.
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

/// The world, as many handles to it as one likes. Each is every edge of it.
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
        self.0.lock().expect("no test panics while it has it")
    }

    /// What was done since this was last asked, a line each.
    pub(crate) fn news(&self) -> Vec<String> {
        let log = mem::take(&mut self.parts().log);
        log.iter().map(ToString::to_string).collect()
    }

    /// The kernel's table, a line for each entry, as `ipvsadm -Sn` has it.
    pub(crate) fn table(&self) -> Vec<String> {
        lines(&self.parts().kernel.table)
    }

    /// The interfaces that have an address.
    pub(crate) fn interfaces_with(&self, address: IpAddr) -> Vec<String> {
        let parts = self.parts();
        let has = |interface: &&Interface| interface.addresses.iter().any(|(a, _)| *a == address);
        let found = parts.interfaces.iter().filter(has);
        found.map(|interface| interface.name.clone()).collect()
    }

    /// Puts an address on an interface, as somebody else would.
    pub(crate) fn put(&self, address: IpAddr, on: &str) {
        let mut parts = self.parts();
        let interface = parts.interfaces.iter_mut().find(|found| found.name == on);
        let addresses = &mut interface.expect("an interface of the model").addresses;
        if !addresses.iter().any(|(found, _)| *found == address) {
            addresses.push((address, full_length(address)));
        }
    }

    /// Takes an address from an interface, as somebody else would.
    pub(crate) fn take(&self, address: IpAddr, from: &str) {
        let mut parts = self.parts();
        let interface = parts.interfaces.iter_mut().find(|found| found.name == from);
        let addresses = &mut interface.expect("an interface of the model").addresses;
        addresses.retain(|(found, _)| *found != address);
    }
}

impl Kernel for ModelWorld {
    fn info(&mut self) -> Result<Info, ipvs::Error> {
        self.parts().kernel.info()
    }

    fn table(&mut self) -> Result<ActualTable, ipvs::Error> {
        let mut parts = self.parts();
        if !parts.lives() {
            return Err(broken());
        }
        let mut table = parts.kernel.table()?;
        if let Some(skipped) = parts.skipped.take() {
            table.remove(&skipped);
        }
        Ok(table)
    }

    fn service(&mut self, key: &ServiceKey) -> Result<Option<ActualService>, ipvs::Error> {
        let mut parts = self.parts();
        if !parts.lives() {
            return Err(broken());
        }
        parts.kernel.service(key)
    }

    fn timeouts(&mut self) -> Result<Timeouts, ipvs::Error> {
        let mut parts = self.parts();
        if !parts.lives() {
            return Err(broken());
        }
        parts.kernel.timeouts()
    }

    fn set_timeouts(&mut self, timeouts: Timeouts) -> Result<(), ipvs::Error> {
        let mut parts = self.parts();
        if !parts.lives() {
            return Err(broken());
        }
        parts.kernel.set_timeouts(timeouts)?;
        parts.log.push(Effect::Timeouts(timeouts));
        Ok(())
    }

    fn apply(&mut self, ops: &[Op]) -> Result<Vec<Failure>, ipvs::Error> {
        let mut parts = self.parts();
        let lost = mem::take(&mut parts.kernel.lose_replies);
        let mut failures = Vec::new();
        for (index, op) in ops.iter().enumerate() {
            if !parts.lives() {
                return Err(broken());
            }
            let refused = parts.kernel.apply(std::slice::from_ref(op))?;
            let errno = refused.first().map(|failure| failure.errno);
            parts.log.push(Effect::Kernel(op.clone(), errno));
            failures.extend(errno.map(|errno| Failure { index, errno }));
        }
        match lost {
            true => Err(ipvs::Error::RepliesLost),
            false => Ok(failures),
        }
    }
}

impl Links for ModelWorld {
    fn interfaces(&mut self) -> Result<Vec<Interface>, LinkError> {
        let mut parts = self.parts();
        let works = !parts.links_broken;
        parts.link(works)?;
        Ok(parts.interfaces.clone())
    }

    fn add(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let mut parts = self.parts();
        let works = !parts.addresses_refused;
        parts.link(works)?;
        let interface = parts.interface(index);
        if !interface.addresses.iter().any(|(a, _)| *a == address) {
            interface.addresses.push((address, full_length(address)));
        }
        let name = interface.name.clone();
        parts.log.push(Effect::Added(address, name));
        Ok(())
    }

    fn remove(&mut self, index: u32, address: IpAddr) -> Result<(), LinkError> {
        let mut parts = self.parts();
        let works = !parts.addresses_refused;
        parts.link(works)?;
        let interface = parts.interface(index);
        interface.addresses.retain(|(found, _)| *found != address);
        let name = interface.name.clone();
        parts.log.push(Effect::Removed(address, name));
        Ok(())
    }

    fn make_device(&mut self, name: &str) -> Result<(), LinkError> {
        let mut parts = self.parts();
        let works = !parts.addresses_refused;
        parts.link(works)?;
        let index = parts
            .interfaces
            .iter()
            .map(|interface| interface.index)
            .max();
        let device = interface(index.unwrap_or_default() + 1, name, &[]);
        parts.interfaces.push(device);
        parts.log.push(Effect::Made(name.to_owned()));
        Ok(())
    }

    fn remove_device(&mut self, name: &str) -> Result<(), LinkError> {
        let mut parts = self.parts();
        let works = !parts.addresses_refused;
        parts.link(works)?;
        parts.interfaces.retain(|interface| interface.name != name);
        parts.log.push(Effect::Unmade(name.to_owned()));
        Ok(())
    }

    fn neighbors(&mut self) -> Result<Vec<(Mac, IpAddr)>, LinkError> {
        let mut parts = self.parts();
        parts.link(true)?;
        Ok(parts.neighbors.clone())
    }

    fn look_for_neighbor(&mut self, _: u32, address: IpAddr) -> Result<(), LinkError> {
        let mut parts = self.parts();
        parts.link(true)?;
        parts.looked_for.push(address);
        Ok(())
    }
}

/// Nobody is on its segments.
impl Segments for ModelWorld {
    fn order(&mut self, orders: Orders) {
        let mut parts = self.parts();
        if parts.lives() {
            parts.orders = orders;
        }
    }
}

impl Listening for ModelWorld {
    fn listeners(&mut self) -> io::Result<Vec<Listener>> {
        let mut parts = self.parts();
        parts.listeners_read += 1;
        match parts.listeners_hidden {
            true => Err(io::Error::from_raw_os_error(nix::libc::ENOENT)),
            false => Ok(parts.listeners.clone()),
        }
    }
}

impl Sysctls for ModelWorld {
    fn read(&mut self, name: &str) -> io::Result<String> {
        let mut parts = self.parts();
        let lives = parts.lives();
        let found = parts.sysctls.get(name).cloned();
        found
            .filter(|_| lives)
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn write(&mut self, name: &str, value: &str) -> io::Result<()> {
        let mut parts = self.parts();
        if !parts.lives() || !parts.sysctls.contains_key(name) {
            return Err(io::ErrorKind::NotFound.into());
        }
        if parts.read_only.contains(name) {
            return Err(io::Error::from_raw_os_error(nix::libc::EROFS));
        }
        let value = value.to_owned();
        if name == crate::host::sysctls::ALL_IPV6_FORWARDING {
            // It takes every interface along.
            let with_it = parts.sysctls.iter_mut().filter(|(name, _)| {
                name.starts_with("net.ipv6.conf.") && name.ends_with(".forwarding")
            });
            with_it.for_each(|(_, old)| old.clone_from(&value));
        }
        parts.sysctls.insert(name.to_owned(), value.clone());
        parts.log.push(Effect::Sysctl(name.to_owned(), value));
        Ok(())
    }

    fn list(&mut self, name: &str) -> io::Result<Vec<String>> {
        let parts = self.parts();
        let below = parts.sysctls.keys().filter_map(|full| {
            let rest = full.strip_prefix(name)?.strip_prefix('.')?;
            rest.split('.').next().map(str::to_owned)
        });
        Ok(below.collect::<BTreeSet<_>>().into_iter().collect())
    }
}

impl Surroundings for ModelWorld {
    fn toward(&mut self, address: IpAddr) -> io::Result<Option<u32>> {
        Ok(self.parts().routes.get(&address).copied())
    }

    fn advertised(&mut self) -> io::Result<BTreeSet<u32>> {
        Ok(self.parts().advertised.clone())
    }

    fn calls_packets_invalid(&mut self) -> bool {
        self.parts().calls_packets_invalid
    }

    fn kernel(&mut self) -> Option<KernelVersion> {
        Some(KernelVersion(6, 1))
    }
}

impl Journal for ModelWorld {
    fn intend(&mut self, intent: &Intent) -> Result<(), JournalError> {
        let mut parts = self.parts();
        parts.write()?;
        parts.disk.intent = intent.clone();
        parts.log.push(Effect::Intended);
        Ok(())
    }

    fn settle(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let mut parts = self.parts();
        parts.write()?;
        parts.disk.settle(changes);
        parts.log.push(Effect::Settled);
        Ok(())
    }

    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError> {
        let mut parts = self.parts();
        parts.write()?;
        parts.disk.cluster = Some(cluster.to_owned());
        parts.log.push(Effect::Remembered);
        Ok(())
    }
}

/// The kernel's socket is gone, or the agent is.
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
