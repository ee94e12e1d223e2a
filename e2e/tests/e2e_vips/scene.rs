//! Directors that read manifests, and a record of the addresses that each
//! director has had.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
    process::Command,
};

use e2e::{
    Host, Process,
    cluster::{PATIENCE, start_agent_with_manifests},
    eventually, layout,
};

/// Returns the manifests of a VirtualService without servers for each VIP.
pub(crate) fn services(vips: &[String]) -> String {
    let mut yaml = String::new();
    for (index, vip) in vips.iter().enumerate() {
        write!(
            yaml,
            "apiVersion: ipvs.dev/v1alpha1
kind: VirtualService
metadata: {{name: vip{index}}}
spec:
  vip: {{address: '{vip}', port: 80}}
  forwarding: {{method: DR}}
  realServerSelector: {{matchLabels: {{app: none}}}}
---
"
        )
        .expect("writing to a string never fails");
    }
    yaml
}

/// A director whose agent reads manifests from its own folder.
pub(crate) struct ByManifests {
    pub(crate) folder: PathBuf,
    pub(crate) agent: Process,
}

impl ByManifests {
    pub(crate) fn start(host: &Host) -> Self {
        let name = host.name();
        let folder = layout::file(&format!("manifests-{name}"));
        fs::create_dir_all(&folder).expect("the folder can be made");
        let agent = start_agent_with_manifests(host, name, &folder);
        agent.wait_for_log(&format!("director {name}"), PATIENCE);
        Self { folder, agent }
    }

    pub(crate) fn apply(&self, yaml: &str) {
        // The file is written under another name and then renamed, so that the
        // agent never reads half a file.
        let whole = self.folder.join("services.yaml");
        let part = self.folder.join("services.part");
        fs::write(&part, yaml).expect("the file can be written");
        fs::rename(&part, &whole).expect("the file can be renamed");
    }
}

/// Returns the VIPs of a host, each with its interface.
pub(crate) fn addresses(host: &Host) -> BTreeMap<String, String> {
    let list = host.run("ip -oneline address show");
    let lines = list.lines().filter_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        let (device, _, address) = (words.next()?, words.next()?, words.next()?);
        let (address, length) = address.split_once('/')?;
        matches!(length, "32" | "128").then(|| (address.to_owned(), device.to_owned()))
    });
    lines.filter(|(_, device)| device != "lo").collect()
}

/// A record of the addresses that some hosts gain and lose. The kernel reports
/// all changes on one socket, so the record is in the order of the changes.
pub(crate) struct Watch {
    monitor: Process,
    /// The addresses at the start of the watch, each with the numbers of the
    /// hosts that had the address.
    before: BTreeMap<String, BTreeSet<usize>>,
    /// The host in which `ip monitor` runs. This host's network namespace
    /// numbers the namespaces of the watched hosts.
    _watcher: Host,
}

/// An address that was added to or removed from a host.
struct Change {
    /// The number of the watched host, counted from 1.
    host: usize,
    address: String,
    came: bool,
}

impl Watch {
    pub(crate) fn start(hosts: &[&Host]) -> Self {
        let watcher = Host::new("watcher");
        for (index, host) in hosts.iter().enumerate() {
            watcher.run(&format!("ip netns set {} {}", host.name(), index + 1));
        }
        let mut command = Command::new("ip");
        command.args(["-oneline", "monitor", "all-nsid", "address"]);
        let monitor = Process::start(&watcher, "monitor", &mut command);
        // `ip monitor` does not report that it is ready. The test therefore
        // changes an address repeatedly, and stops when `ip monitor` reports a
        // change.
        for (index, host) in hosts.iter().enumerate() {
            eventually("the monitor to report a change", PATIENCE, || {
                host.ip("address add 127.9.9.9/32 dev lo
                         address delete 127.9.9.9/32 dev lo");
                let log = monitor.log();
                let mut heard = log.lines().filter_map(change);
                match heard.any(|change| change.host == index + 1) {
                    true => Ok(()),
                    false => Err("nothing so far"),
                }
            });
        }
        let mut before: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for (index, host) in hosts.iter().enumerate() {
            for address in addresses(host).into_keys() {
                before.entry(address).or_default().insert(index + 1);
            }
        }
        Self {
            monitor,
            before,
            _watcher: watcher,
        }
    }

    /// Returns the addresses that were added to any of the watched hosts.
    pub(crate) fn came(&self) -> BTreeSet<String> {
        let came = self.changes().into_iter().filter(|change| change.came);
        came.map(|change| change.address).collect()
    }

    /// Returns the addresses that two of the watched hosts had at the same
    /// time.
    pub(crate) fn doubled(&self) -> BTreeSet<String> {
        let mut held = self.before.clone();
        let mut doubled = BTreeSet::new();
        for change in self.changes() {
            let holders = held.entry(change.address.clone()).or_default();
            match change.came {
                true => holders.insert(change.host),
                false => holders.remove(&change.host),
            };
            if holders.len() > 1 {
                doubled.insert(change.address);
            }
        }
        doubled
    }

    fn changes(&self) -> Vec<Change> {
        let log = self.monitor.log();
        let changes = log.lines().filter_map(change);
        changes
            .filter(|change| !change.address.starts_with("127."))
            .collect()
    }
}

/// Parses a line of the output of `ip monitor`, such as `[nsid 1]Deleted 2: if2
/// inet 192.0.2.1/32 …`.
fn change(line: &str) -> Option<Change> {
    let (number, rest) = line.strip_prefix("[nsid ")?.split_once(']')?;
    let address = rest.split_whitespace().find_map(|word| {
        let (address, length) = word.split_once('/')?;
        matches!(length, "32" | "128").then(|| address.to_owned())
    });
    Some(Change {
        host: number.parse().ok()?,
        address: address?,
        came: !rest.starts_with("Deleted"),
    })
}
