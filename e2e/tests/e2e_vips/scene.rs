//! Directors on a segment, and who of them has which address.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use e2e::{Host, Process, cluster::start_agent_with_manifests, layout};

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

/// Looks again and again who of some hosts has which address, on a thread.
pub(crate) struct Watch {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// Addresses that two hosts had at the same time.
    pub(crate) doubled: BTreeSet<String>,
    /// How often it was looked.
    pub(crate) times: usize,
    /// For how long at most it was not looked.
    pub(crate) longest: Duration,
}

impl Watch {
    pub(crate) fn start(hosts: &[&Host]) -> Self {
        let hosts: Vec<Host> = hosts.iter().map(|host| (*host).clone()).collect();
        let ends = Arc::new(AtomicBool::new(false));
        let until = ends.clone();
        let thread = thread::spawn(move || {
            let mut seen = Seen::default();
            let mut last = Instant::now();
            while !until.load(Ordering::SeqCst) {
                let mut all = BTreeSet::new();
                for host in &hosts {
                    for (address, _) in addresses(host) {
                        if !all.insert(address.clone()) {
                            seen.doubled.insert(address);
                        }
                    }
                }
                seen.times += 1;
                seen.longest = seen.longest.max(last.elapsed());
                last = Instant::now();
                thread::sleep(Duration::from_millis(20));
            }
            seen
        });
        Self { ends, thread }
    }

    pub(crate) fn end(self) -> Seen {
        self.ends.store(true, Ordering::SeqCst);
        self.thread.join().expect("looking does not fail")
    }
}

/// The Ethernet address of a host's card.
pub(crate) fn mac(host: &Host, card: &str) -> String {
    let link = host.run(&format!("ip -brief link show {card}"));
    let mac = link.split_whitespace().nth(2).expect("name, state, MAC");
    mac.to_owned()
}
