//! What a process has used, as the kernel counts it.

use std::{collections::BTreeMap, fs};

use anyhow::{Context, Result, ensure};

/// Clock ticks a second in /proc, on every architecture that Linux runs on
/// today (`USER_HZ`).
const TICKS: f64 = 100.0;

/// Seconds of processor time that a process has used with all its threads, in
/// its own code and in the kernel.
pub(crate) fn processor_seconds(id: u32) -> Result<f64> {
    seconds(&read(id, "stat")?)
}

/// The processor time of each existing thread of a process, by name: threads of
/// the same name are added up.
pub(crate) fn thread_seconds(id: u32) -> Result<BTreeMap<String, f64>> {
    let mut threads = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{id}/task"))? {
        let folder = entry?.path();
        // The thread may have ended meanwhile.
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
pub(crate) fn mebibytes(id: u32, name: &str) -> Result<f64> {
    let status = read(id, "status")?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let line = line.with_context(|| format!("no {name} in {status}"))?;
    let kilobytes = line.trim_matches([':', '\t', ' ']).trim_end_matches(" kB");
    Ok(kilobytes.parse::<f64>().context("kilobytes")? / 1024.0)
}

/// Returns a process and all its descendants.
pub(crate) fn family(id: u32) -> Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(child) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // The process may have ended meanwhile.
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
