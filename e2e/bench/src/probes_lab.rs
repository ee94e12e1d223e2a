//! What a probe costs, ours beside keepalived's: each with the same table and
//! the same servers, on a host of its own in the lab, one after the other.

use std::{
    collections::BTreeMap, fs, net::Ipv4Addr, path::Path, process::Command, thread, time::Duration,
};

use anyhow::Result;
use e2e::{Host, Process, eventually, process::program, segment::Segment};

use crate::{
    agent_process::loaded,
    checked::{Checked, PERIOD_SECONDS, TIMEOUT_SECONDS, VIP_INTERFACE},
    contestant::scratch,
    figure::{Figure, Target},
    servers::{PORT, Servers},
    trace,
    usage::{family, processor_seconds},
};

const TABLE: Checked = Checked {
    groups: 100,
    services: 1,
    servers: 10,
    first: Ipv4Addr::new(172, 16, 0, 1),
};
/// Of the servers, all of which are on one host.
const NETWORK: &str = "172.16.0.0/12";
const PERIOD: Duration = Duration::from_secs(PERIOD_SECONDS as u64);
/// In which processor time is counted.
const COSTS: Duration = Duration::from_secs(60);
/// In which system calls are counted.
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

    /// What runs it, with everything that it needs in this folder.
    fn command(self, folder: &Path) -> Result<Command> {
        match self {
            Self::Ours => {
                let manifests = folder.join("manifests");
                fs::create_dir(&manifests)?;
                fs::write(manifests.join("table.yaml"), TABLE.manifest())?;
                let mut command = program("ipvs-agent");
                command.args(["--node-name", "ours"]);
                command.arg("--manifests").arg(manifests);
                command.arg("--state-dir").arg(folder.join("state"));
                Ok(command)
            }
            Self::Keepalived => {
                let config = folder.join("keepalived.conf");
                fs::write(&config, keepalived_config())?;
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

/// The same table, in keepalived's words.
fn keepalived_config() -> String {
    let services = TABLE.tables().map(|(vip, servers)| {
        let servers: String = servers
            .map(|number| {
                let address = TABLE.server(number).ip();
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

/// What probes cost a checker.
struct Cost {
    microseconds: f64,
    system_calls: f64,
}

pub(crate) fn measure() -> Result<()> {
    println!(
        "{} services x {} servers checked every {PERIOD_SECONDS} s:",
        TABLE.virtual_services(),
        TABLE.servers
    );
    let wire = Segment::new("wire");
    let farm = Host::new("farm");
    wire.attach(&farm, "eth0", "192.168.2.1/24");
    farm.ip(&format!("route add local {NETWORK} dev lo"));
    let mut servers = Servers::start(TABLE.first, TABLE.targets(), Some(&farm))?;
    let mut cost = |checker, address| cost(checker, address, &wire, &mut servers);
    let ours = cost(Checker::Ours, "192.168.2.2/24")?;
    let theirs = cost(Checker::Keepalived, "192.168.2.3/24")?;
    for (name, ours, theirs) in [
        ("processor", ours.microseconds, theirs.microseconds),
        ("system_calls", ours.system_calls, theirs.system_calls),
    ] {
        let name = format!("probes_lab_{name}_over_keepalived");
        println!(
            "{}",
            Figure::new(name, ours / theirs, "x", Target::AtMost(1.0))
        );
    }
    Ok(())
}

fn cost(checker: Checker, address: &str, wire: &Segment, servers: &mut Servers) -> Result<Cost> {
    let title = checker.title();
    let folder = scratch(title)?;
    let host = Host::new(title);
    wire.attach(&host, "eth0", address);
    host.ip(VIP_INTERFACE);
    host.ip(&format!("route add {NETWORK} via 192.168.2.1"));
    let process = Process::start(&host, title, &mut checker.command(&folder)?);
    eventually("the whole table in the kernel", PATIENCE, || {
        let expected = (TABLE.virtual_services(), TABLE.destinations());
        match loaded(&host) {
            found if found == expected => Ok(()),
            found => Err(format!("{found:?} of {expected:?}\n{}", process.log())),
        }
    });
    let all_twice = servers.connections()? + u64::from(2 * TABLE.targets());
    eventually("every server probed twice", PATIENCE, || {
        match servers.connections() {
            Ok(connections) if connections >= all_twice => Ok(()),
            other => Err(format!("{other:?} of {all_twice}\n{}", process.log())),
        }
    });
    thread::sleep(PERIOD);

    let processes = family(process.id())?;
    let used = || -> Result<f64> { processes.iter().map(|id| processor_seconds(*id)).sum() };
    let (connections, before) = (servers.connections()?, used()?);
    thread::sleep(COSTS);
    let microseconds = (used()? - before) * 1e6;
    let probes = servers.connections()? - connections;
    let microseconds = microseconds / probes as f64;
    println!(
        "  {title}: {probes} probes in {} s, {microseconds:.0} us of the processor each",
        COSTS.as_secs()
    );

    let connections = servers.connections()?;
    let calls = trace::count(&processes, CALLS)?;
    let probes = servers.connections()? - connections;
    let all: u64 = calls.values().sum();
    let system_calls = all as f64 / probes as f64;
    println!(
        "  {title}: {probes} probes in {} s under strace, {system_calls:.2} system calls each: {}",
        CALLS.as_secs(),
        named(&calls, probes)
    );
    fs::remove_dir_all(folder)?;
    Ok(Cost {
        microseconds,
        system_calls,
    })
}

/// What there is most of, a probe: `connect 1.00, close 1.00`.
fn named(calls: &BTreeMap<String, u64>, probes: u64) -> String {
    let mut calls: Vec<_> = calls.iter().collect();
    calls.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
    let calls = calls.iter().map(|(name, count)| {
        let each = **count as f64 / probes as f64;
        format!("{name} {each:.2}")
    });
    calls.collect::<Vec<_>>().join(", ")
}
