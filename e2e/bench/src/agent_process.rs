//! What the agent's process costs, fed from the real API server.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result, ensure};
use e2e::{Host, Process, cluster, eventually, segment::attach_to_management};

use crate::{
    figure::{Figure, Target},
    objects,
    size::Size,
};

/// In which nobody does anything.
const IDLE: Duration = Duration::from_secs(60);
/// What the start has left to do is done by then.
const REST: Duration = Duration::from_secs(30);
const PATIENCE: Duration = Duration::from_secs(600);
/// Clock ticks a second in /proc, on every architecture that Linux runs on
/// today (`USER_HZ`).
const TICKS: f64 = 100.0;

/// A director whose agent has programmed a table and holds its VIPs.
struct Running {
    agent: Process,
    // Its network namespace ends with it.
    _host: Host,
}

impl Running {
    fn start(size: Size) -> Result<Self> {
        cluster::upgrade_chart();
        println!("{size}: creating the objects in the API server");
        objects::create(size)?;
        let host = Host::new("director");
        attach_to_management(&host);
        // A subnet that holds every VIP.
        host.ip("link add vips type dummy
                 address add 10.127.255.254/10 dev vips
                 link set vips up");
        let agent = cluster::start_agent(&host, "director");
        println!("  the agent begins");
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

    fn read(&self, file: &str) -> Result<String> {
        let path = format!("/proc/{}/{file}", self.agent.id());
        fs::read_to_string(&path).with_context(|| format!("reading {path}"))
    }

    /// Seconds of a processor that it has used.
    fn processor_seconds(&self) -> Result<f64> {
        let stat = self.read("stat")?;
        // After the name, which may hold anything, come the fields from the
        // third on: utime is the 14th, stime the 15th.
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has a name")?;
        let ticks: Vec<f64> = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        ensure!(ticks.len() == 2, "/proc/PID/stat is cut off: {stat}");
        Ok(ticks.iter().sum::<f64>() / TICKS)
    }

    /// A size in /proc/PID/status, such as VmRSS, in MiB.
    fn mebibytes(&self, name: &str) -> Result<f64> {
        let status = self.read("status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let line = line.with_context(|| format!("no {name} in {status}"))?;
        let kilobytes = line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB");
        Ok(kilobytes.parse::<f64>().context("kilobytes")? / 1024.0)
    }
}

pub(crate) fn measure_idle() -> Result<()> {
    let size = Size::new(1_000, 10);
    let running = Running::start(size)?;
    let before = running.processor_seconds()?;
    thread::sleep(IDLE);
    let used = running.processor_seconds()? - before;
    println!("  {used:.2} s of the processor in {} s", IDLE.as_secs());
    let share = used / IDLE.as_secs_f64() * 100.0;
    let name = format!("idle_{}", size.name());
    println!("{}", Figure::new(name, share, "%", Target::AtMost(3.0)));
    Ok(())
}

pub(crate) fn measure_memory() -> Result<()> {
    let size = Size::new(10_000, 5);
    let running = Running::start(size)?;
    for (name, field) in [("resident", "VmRSS"), ("peak", "VmHWM")] {
        let name = format!("memory_{}_{name}", size.name());
        let value = running.mebibytes(field)?;
        println!("{}", Figure::new(name, value, "MiB", Target::AtMost(150.0)));
    }
    Ok(())
}

/// Services and destinations in a host's kernel.
fn loaded(host: &Host) -> (u32, u32) {
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
