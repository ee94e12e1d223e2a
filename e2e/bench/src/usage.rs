//! Reads the kernel's counts of the processor time and memory of processes.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};

/// The number of clock ticks per second in /proc (`USER_HZ`). Linux uses the
/// number 100 on all current architectures.
const TICKS: f64 = 100.0;

/// Returns the seconds of processor time that all threads of a process have
/// used, in user mode and in the kernel.
pub(crate) fn processor_seconds(id: u32) -> Result<f64> {
    seconds(&read(id, "stat")?)
}

/// Returns the seconds of processor time of a process's existing threads, by
/// name. The times of threads with the same name are added up.
pub(crate) fn thread_seconds(id: u32) -> Result<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{id}/task"))? {
        let folder = entry?.path();
        // A missing file is not an error, because the thread may have ended
        // since its folder was listed.
        let Ok(name) = fs::read_to_string(folder.join("comm")) else {
            continue;
        };
        let Ok(stat) = fs::read_to_string(folder.join("stat")) else {
            continue;
        };
        *threads.entry(name.trim().to_owned()).or_default() += seconds(&stat)?;
    }
    Ok(threads)
}

fn seconds(stat: &str) -> Result<f64> {
    // Field 2 of /proc/PID/stat is the command's name, which may contain any
    // character. Field 3 follows the last `)`. The user time (utime) is field
    // 14, and the system time (stime) is field 15.
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

/// Returns a memory size of a process in MiB, from a field of /proc/PID/status
/// such as VmRSS.
pub(crate) fn mebibytes(id: u32, name: &str) -> Result<f64> {
    let status = read(id, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name} in {status}"))?;
    let kilobytes = line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB");
    Ok(kilobytes.parse::<f64>().context("kilobytes")? / 1024.0)
}

/// Returns the ids of a process and of all its descendants.
pub(crate) fn family(id: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A missing file is not an error, because the process may have ended
        // since its folder was listed.
        let Ok(stat) = read(child, "stat") else {
            continue;
        };
        let (_, fields) = stat.rsplit_once(')').context("/proc/PID/stat has a name")?;
        let parent = fields.split_whitespace().nth(1);
        parents.push((
            child,
            parent.context("a parent in /proc/PID/stat")?.parse()?,
        ));
    }
    let mut family = vec![id];
    let mut looked_at = 0;
    while let Some(parent) = family.get(looked_at).copied() {
        let children = parents.iter().filter(|(_, its)| *its == parent);
        family.extend(children.map(|(child, _): &(u32, u32)| *child));
        looked_at += 1;
    }
    Ok(family)
}

fn read(id: u32, file: &str) -> Result<String> {
    let path = format!("/proc/{id}/{file}");
    fs::read_to_string(&path).with_context(|| format!("reading {path}"))
}
