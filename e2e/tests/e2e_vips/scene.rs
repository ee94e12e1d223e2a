//! Directors on a segment, and who of them has which address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use e2e::{Host, Process, cluster::start_agent_with_manifests, eventually, layout};

/// A service without servers for each VIP, as YAML.
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
        .expect("a string takes it");
    }
    yaml
}

/// An agent that reads manifests from a folder of its own.
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
        agent.wait_for_log(&format!("director {name}"), Duration::from_secs(60));
        Self { folder, agent }
    }

    pub(crate) fn apply(&self, yaml: &str) {
        // Into its place at once: half a file is none.
        let whole = self.folder.join("services.yaml");
        let part = self.folder.join("services.part");
        fs::write(&part, yaml).expect("it can be written");
        fs::rename(&part, &whole).expect("it can be moved");
    }
}

/// Which VIPs are on a host, by its interface.
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

/// Notes when addresses come to some hosts and go from them, as their kernels
/// tell.
pub(crate) struct Watch(Vec<Process>);

/// A time as `ip` writes it, which sorts as text, and whether the address came.
type Changes = BTreeMap<String, Vec<(String, bool)>>;

impl Watch {
    pub(crate) fn start(hosts: &[&Host]) -> Self {
        let monitors = hosts.iter().map(|host| {
            let mut command = Command::new("ip");
            command.args(["-tshort", "-oneline", "monitor", "address"]);
            let monitor = Process::start(host, &format!("monitor-{}", host.name()), &mut command);
            // It says nothing of its own when it has begun.
            eventually("the monitor to hear", Duration::from_secs(30), || {
                host.ip("address add 127.9.9.9/32 dev lo
                         address delete 127.9.9.9/32 dev lo");
                match monitor.log().contains("127.9.9.9") {
                    true => Ok(()),
                    false => Err("nothing so far"),
                }
            });
            monitor
        });
        Self(monitors.collect())
    }

    /// The addresses that came to any of the hosts.
    pub(crate) fn came(&self) -> BTreeSet<String> {
        let all = self.0.iter().flat_map(|monitor| changes(&monitor.log()));
        let came = all.filter(|(_, times)| times.iter().any(|(_, came)| *came));
        came.map(|(address, _)| address).collect()
    }

    /// The addresses that two of the hosts had at the same time.
    pub(crate) fn doubled(&self) -> BTreeSet<String> {
        let changes: Vec<_> = self
            .0
            .iter()
            .map(|monitor| changes(&monitor.log()))
            .collect();
        let mut all: BTreeMap<&String, Vec<(&String, bool, usize)>> = BTreeMap::new();
        for (host, changes) in changes.iter().enumerate() {
            for (address, times) in changes {
                let times = times.iter().map(|(at, came)| (at, *came, host));
                all.entry(address).or_default().extend(times);
            }
        }
        let mut doubled = BTreeSet::new();
        for (address, mut times) in all {
            times.sort();
            let mut holders = BTreeSet::new();
            // Who lets it go first had it before.
            let first = times.first().expect("there is one");
            if !first.1 {
                holders.insert(first.2);
            }
            for (_, came, host) in times {
                match came {
                    true => holders.insert(host),
                    false => holders.remove(&host),
                };
                if holders.len() > 1 {
                    doubled.insert(address.clone());
                }
            }
        }
        doubled
    }
}

/// `[2026-11-27T20:31:00.123456] Deleted 2: eth0    inet 192.0.2.1/32 …`
fn changes(log: &str) -> Changes {
    let mut changes = Changes::new();
    for line in log.lines() {
        let Some((at, rest)) = line
            .strip_prefix('[')
            .and_then(|line| line.split_once("] "))
        else {
            continue;
        };
        let came = !rest.starts_with("Deleted");
        let address = rest.split_whitespace().find_map(|word| {
            let (address, length) = word.split_once('/')?;
            matches!(length, "32" | "128").then(|| address.to_owned())
        });
        if let Some(address) = address.filter(|address| !address.starts_with("127.")) {
            changes
                .entry(address)
                .or_default()
                .push((at.to_owned(), came));
        }
    }
    changes
}
