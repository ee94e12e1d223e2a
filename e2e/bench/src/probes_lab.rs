//! Measures the cost of a probe in our agent and in keepalived. Both programs
//! get the same table and the same servers. The programs run one after the
//! other, each on a separate host in the lab.

use std::{
    collections::BTreeMap, fs, net::Ipv4Addr, path::Path, process::Command, thread, time::Duration,
};

use anyhow::Result;
use e2e::{Host, Process, eventually, process::program, segment::Segment};

use crate::{
    agent_process::loaded,
    checked::{Checked, PERIOD_SECONDS, TIMEOUT_SECONDS, VIP_INTERFACE},
    figure::{Figure, Target},
    scratch::scratch,
    servers::{PORT, Servers},
    trace,
    usage::{family, thread_seconds},
};

const TABLE: Checked = Checked {
    groups: 100,
    services: 1,
    servers: 10,
    first: Ipv4Addr::new(172, 16, 0, 1),
};
/// A table with few probes, for measurements with strace. With more probes,
/// strace would make the agent and keepalived too slow to handle the probes one
/// by one.
const FEW: Checked = Checked {
    groups: 40,
    ..TABLE
};
/// The network of the probed servers. All servers are on one host.
const NETWORK: &str = "172.16.0.0/12";
const PERIOD: Duration = Duration::from_secs(PERIOD_SECONDS as u64);
/// How long the benchmark counts the processor time of the agent or keepalived.
const COSTS: Duration = Duration::from_secs(60);
/// How long the benchmark counts the system calls of the agent or keepalived.
const CALLS: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug)]
enum Checker {
    Ours,
    Keepalived,
}

impl Checker {
    fn title(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Keepalived => "keepalived",
        }
    }

    /// Writes the configuration of the agent or keepalived to `folder`, and
    /// returns the command that starts the program.
    fn command(self, table: Checked, folder: &Path) -> Result<Command> {
        match self {
            Self::Ours => {
                let manifests = folder.join("manifests");
                fs::create_dir(&manifests)?;
                fs::write(manifests.join("table.yaml"), table.manifest())?;
                let mut command = program("ipvs-agent");
                command.args(["--node-name", "ours"]);
                command.arg("--manifests").arg(manifests);
                command.arg("--state-dir").arg(folder.join("state"));
                Ok(command)
            }
            Self::Keepalived => {
                let config = folder.join("keepalived.conf");
                fs::write(&config, keepalived_config(table))?;
                let mut command = Command::new("keepalived");
                command.args(["--dont-fork", "--log-console", "--check"]);
                command.arg("--use-file").arg(config);
                command.arg("--pid").arg(folder.join("pid"));
                command
                    .arg("--checkers_pid")
                    .arg(folder.join("checkers-pid"));
                Ok(command)
            }
        }
    }
}

/// Returns `table` as keepalived's configuration.
fn keepalived_config(table: Checked) -> String {
    let services = table.tables().map(|(vip, servers)| {
        let servers: String = servers
            .map(|number| {
                let address = table.server(number).ip();
                format!(
                    " real_server {address} {PORT} {{\n  weight 1\n  \
                     TCP_CHECK {{\n   connect_timeout {TIMEOUT_SECONDS}\n  }}\n }}\n"
                )
            })
            .collect();
        format!(
            "virtual_server {vip} 80 {{\n delay_loop {PERIOD_SECONDS}\n lb_algo wrr\n lb_kind NAT\n \
             protocol TCP\n{servers}}}\n"
        )
    });
    services.collect()
}

pub(crate) fn measure() -> Result<()> {
    let mut scene = Scene::new()?;
    for (name, table, time, cost) in [
        ("processor", TABLE, COSTS, processor as Count),
        ("system_calls", FEW, CALLS, system_calls as Count),
    ] {
        println!(
            "{} services x {} servers checked every {PERIOD_SECONDS} s:",
            table.virtual_services(),
            table.servers
        );
        let ours = scene.cost(Checker::Ours, table, time, cost)?;
        let theirs = scene.cost(Checker::Keepalived, table, time, cost)?;
        let name = format!("probes_lab_{name}_over_keepalived");
        println!(
            "{}",
            Figure::new(name, ours / theirs, "x", Target::AtMost(1.0))
        );
    }
    Ok(())
}

/// A function that measures the resource use of processes during the given
/// time.
type Count = fn(&[u32], Duration) -> Result<Cost>;

/// The resources that processes used, in total and by thread or system call.
struct Cost {
    unit: &'static str,
    /// Maps the name of a thread to the thread's processor time, or the name of
    /// a system call to the number of calls.
    parts: BTreeMap<String, f64>,
}

fn processor(processes: &[u32], time: Duration) -> Result<Cost> {
    let used = || -> Result<BTreeMap<String, f64>> {
        let mut used = BTreeMap::new();
        for id in processes {
            for (name, seconds) in thread_seconds(*id)? {
                *used.entry(name).or_default() += seconds * 1e6;
            }
        }
        Ok(used)
    };
    let before = used()?;
    thread::sleep(time);
    let mut parts = used()?;
    for (name, used) in &mut parts {
        *used -= before.get(name).copied().unwrap_or_default();
    }
    Ok(Cost {
        unit: "us of processor time",
        parts,
    })
}

fn system_calls(processes: &[u32], time: Duration) -> Result<Cost> {
    let counts = trace::count(processes, time)?.into_iter();
    Ok(Cost {
        unit: "system calls",
        parts: counts.map(|(name, count)| (name, count as f64)).collect(),
    })
}

/// The probed servers, and the network segment that connects them with the
/// probing host.
struct Scene {
    wire: Segment,
    servers: Servers,
    hosts: u8,
}

impl Scene {
    fn new() -> Result<Self> {
        let wire = Segment::new("wire");
        let farm = Host::new("farm");
        wire.attach(&farm, "eth0", "192.168.2.1/24");
        farm.ip(&format!("route add local {NETWORK} dev lo"));
        let servers = Servers::start(TABLE.first, TABLE.targets(), Some(&farm))?;
        Ok(Self {
            wire,
            servers,
            hosts: 1,
        })
    }

    /// Runs the agent or keepalived on a new host, and returns the average cost
    /// of a probe.
    fn cost(
        &mut self,
        checker: Checker,
        table: Checked,
        time: Duration,
        count: Count,
    ) -> Result<f64> {
        let title = checker.title();
        let folder = scratch(title)?;
        let host = self.host(title);
        let mut command = checker.command(table, &folder)?;
        let process = Process::start(&host, title, &mut command);
        eventually("the whole table in the kernel", PATIENCE, || {
            let expected = (table.virtual_services(), table.destinations());
            match loaded(&host) {
                found if found == expected => Ok(()),
                found => Err(format!("{found:?} of {expected:?}\n{}", process.log())),
            }
        });
        let all_twice = self.servers.connections()? + u64::from(2 * table.targets());
        eventually("every server to be probed twice", PATIENCE, || {
            match self.servers.connections() {
                Ok(connections) if connections >= all_twice => Ok(()),
                other => Err(format!("{other:?} of {all_twice}\n{}", process.log())),
            }
        });
        thread::sleep(PERIOD);

        let processes = family(process.id())?;
        let before = self.servers.connections()?;
        let cost = count(&processes, time)?;
        let probes = (self.servers.connections()? - before) as f64;
        let due = f64::from(table.targets()) * time.as_secs_f64() / PERIOD.as_secs_f64();
        let each = cost.parts.values().sum::<f64>() / probes;
        println!(
            "  {title}: {probes} probes in {} s ({:.0} % of what is due), {each:.2} {} each: {}",
            time.as_secs(),
            probes / due * 100.0,
            cost.unit,
            named(&cost.parts, probes)
        );
        drop(process);
        fs::remove_dir_all(folder)?;
        Ok(each)
    }

    fn host(&mut self, name: &str) -> Host {
        self.hosts += 1;
        let host = Host::new(name);
        let address = format!("192.168.2.{}/24", self.hosts);
        self.wire.attach(&host, "eth0", &address);
        host.ip(VIP_INTERFACE);
        host.ip(&format!("route add {NETWORK} via 192.168.2.1"));
        host
    }
}

/// Lists the average cost per probe of each thread or system call, the largest
/// first, such as `connect 1.00, close 1.00`.
fn named(parts: &BTreeMap<String, f64>, probes: f64) -> String {
    let mut parts: Vec<_> = parts.iter().collect();
    parts.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    let parts = parts
        .iter()
        .map(|(name, count)| format!("{name} {:.2}", *count / probes));
    parts.collect::<Vec<_>>().join(", ")
}
