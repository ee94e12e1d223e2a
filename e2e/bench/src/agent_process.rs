//! Measures the processor time and memory of an agent that reads from a real
//! API server.

use std::{thread, time::Duration};

use anyhow::Result;
use e2e::{Host, Process, cluster, eventually, segment::attach_to_management};

use crate::{
    figure::{Figure, Target},
    objects,
    size::Size,
    usage::{mebibytes, processor_seconds, thread_seconds},
};

/// How long the benchmark measures an idle agent, while no object changes.
const IDLE: Duration = Duration::from_secs(60);
/// How long the agent may take to finish its startup before the measurement
/// begins.
const REST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(600);

/// A running director, whose agent has programmed a table and holds the table's
/// VIPs.
struct Running {
    agent: Process,
    // The director's host is kept here, because dropping the host removes its
    // network namespace.
    _host: Host,
}

impl Running {
    fn start(size: Size) -> Result<Self> {
        cluster::upgrade_chart();
        println!("{size}: creating the objects in the API server");
        objects::create(size)?;
        let host = Host::new("director");
        attach_to_management(&host);
        // The director needs an interface whose subnet contains every VIP.
        host.ip("link add vips type dummy
                 address add 10.127.255.254/10 dev vips
                 link set vips up");
        let agent = cluster::start_agent(&host, "director");
        println!("  the agent starts");
        eventually("the whole table in the kernel", PATIENCE, || {
            let expected = (size.services, size.services * size.servers);
            match loaded(&host) {
                found if found == expected => Ok(()),
                found => Err(format!("{found:?} of {expected:?}\n{}", agent.log())),
            }
        });
        println!("  the table is in the kernel");
        thread::sleep(REST);
        Ok(Self { agent, _host: host })
    }
}

pub(crate) fn measure_idle() -> Result<()> {
    let size = Size::new(1_000, 10);
    let running = Running::start(size)?;
    let id = running.agent.id();
    let (before, of_threads) = (processor_seconds(id)?, thread_seconds(id)?);
    thread::sleep(IDLE);
    let used = processor_seconds(id)? - before;
    println!("  {used:.2} s of processor time in {} s", IDLE.as_secs());
    for (name, after) in thread_seconds(id)? {
        let before = of_threads.get(&name).copied().unwrap_or_default();
        println!("    {name:<16} {:.2} s", after - before);
    }
    let share = used / IDLE.as_secs_f64() * 100.0;
    let name = format!("idle_{}", size.name());
    println!("{}", Figure::new(name, share, "%", Target::AtMost(3.0)));
    let resident = mebibytes(id, "VmRSS")?;
    let name = format!("idle_{}_resident", size.name());
    println!("{}", Figure::new(name, resident, "MiB", Target::Reported));
    Ok(())
}

pub(crate) fn measure_memory() -> Result<()> {
    let size = Size::new(10_000, 5);
    let running = Running::start(size)?;
    for (name, field) in [("resident", "VmRSS"), ("peak", "VmHWM")] {
        let name = format!("memory_{}_{name}", size.name());
        let value = mebibytes(running.agent.id(), field)?;
        println!("{}", Figure::new(name, value, "MiB", Target::AtMost(150.0)));
    }
    Ok(())
}

/// Counts the IPVS services and destinations in a host's kernel.
pub(crate) fn loaded(host: &Host) -> (u32, u32) {
    let table = host.run("cat /proc/net/ip_vs");
    let mut counts = (0, 0);
    for line in table.lines().skip(3) {
        match line.starts_with("  -> ") {
            true => counts.1 += 1,
            false => counts.0 += 1,
        }
    }
    counts
}
