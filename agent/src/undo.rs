//! Takes this host out of service: what `ipvs-agent undo` does.
//!
//! ```text
//! connections end, if asked to ─▶ VIPs ─▶ services ─▶ timeouts, device ─▶ sysctls
//! ```
//!
//! It goes by the journal, and by rounds in which nothing is wanted: what dies
//! in the middle goes on where it stopped when it is run again.

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use crds::AddressRule;
use ipvs::{DestinationConfig, Kernel, OnConflict, Op, Timeouts, WantedTable};

use crate::{
    checkpoint::FILE as CHECKPOINT,
    claim::{Orders, Segments},
    desired::Desired,
    host::{
        addresses::Holding, netlink::RouteSocket, surroundings::ThisHost, sysctls::SysctlFolder,
    },
    journal::{FileJournal, Remembered},
    lock::{Lock, LockError},
    round::{self, Edges, Outcome, Removals, State, Wish},
    serving::Serving,
};

/// What fails is tried again for so long.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often connections are counted.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);
/// How often it is said how many are left.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// What is to be undone, and how.
#[derive(Clone, Copy, Debug)]
pub struct Undo<'a> {
    /// The state folder.
    pub state_dir: &'a Path,
    /// Where the host's sysctls are.
    pub sysctl_dir: &'a Path,
    /// Of this boot.
    pub boot_id: &'a str,
    /// For how long connections may end by themselves first; new ones go to
    /// nobody meanwhile.
    pub wait: Duration,
}

/// Undoes what agents did to this host, and says each step.
///
/// # Errors
/// When an agent runs here, when the journal or the kernel cannot be used, or
/// when something stays: with what to do.
pub fn undo(undo: &Undo<'_>, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let _lock = Lock::take().map_err(|error| match (error, Lock::owner()) {
        (LockError::Taken, Some(pid)) => anyhow::anyhow!(
            "an agent runs here (pid {pid}) and would do all of it again: stop it first"
        ),
        (LockError::Taken, None) => {
            anyhow::anyhow!("an agent runs here and would do all of it again: stop it first")
        }
        (LockError::Io(error), _) => error.into(),
    })?;
    let (mut journal, remembered) = FileJournal::open(undo.state_dir, undo.boot_id)?;
    let mut kernel = ipvs::Socket::open()?;
    say(&summary(&remembered));
    if !undo.wait.is_zero() {
        wait_for_connections(&mut kernel, &remembered, undo.wait, say)?;
    }
    let mut state = State::new(remembered);
    let mut edges = Edges {
        kernel: &mut kernel,
        links: &mut RouteSocket::open()?,
        journal: &mut journal,
        sysctls: &mut SysctlFolder(undo.sysctl_dir.to_owned()),
        surroundings: &mut ThisHost::default(),
        segments: &mut Nobody,
    };
    clear(&mut state, &mut edges, say)?;
    let restored = round::restore_sysctls(&mut state, &mut edges);
    for line in &restored.done {
        say(line);
    }
    ensure!(
        restored.stuck.is_empty(),
        "not all sysctls could be restored: {}; give the folder where they can be written with --sysctl-dir, and run this again",
        restored.stuck.join("; ")
    );
    // An agent that is started without its API server would serve again.
    let checkpoint = undo.state_dir.join(CHECKPOINT);
    match fs::remove_file(&checkpoint) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", checkpoint.display())
        }
        _ => {}
    }
    say("nothing of the agent's is left on this host");
    Ok(())
}

fn summary(remembered: &Remembered) -> String {
    let services = &remembered.table.services;
    let destinations: usize = services.values().map(BTreeSet::len).sum();
    format!(
        "of the agent's here: {} services with {destinations} destinations, {} virtual addresses, {} sysctls",
        services.len(),
        remembered.addresses.len(),
        remembered.sysctls.len()
    )
}

/// Has destinations take no new connections, and waits until those that are
/// there have ended.
fn wait_for_connections(
    kernel: &mut ipvs::Socket,
    remembered: &Remembered,
    wait: Duration,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let table = kernel.table()?;
    let mut quiesce = Vec::new();
    for (service, destinations) in &remembered.table.services {
        let Some(found) = table.get(service) else {
            continue;
        };
        for key in destinations {
            if let Some(config) = found.destinations.get(key)
                && config.weight != 0
            {
                let config = DestinationConfig {
                    weight: 0,
                    ..*config
                };
                quiesce.push(Op::SetDestination(*service, *key, config));
            }
        }
    }
    let failures = kernel.apply(&quiesce)?;
    ensure!(
        failures.is_empty(),
        "the kernel refused to set {} weights to 0: run this again, or without --wait",
        failures.len()
    );
    let (began, mut told) = (Instant::now(), None::<Instant>);
    loop {
        let active = active_connections(kernel, remembered)?;
        if active == 0 {
            say("no connection is left");
            return Ok(());
        }
        if began.elapsed() >= wait {
            say(&format!("{active} connections are left, and are cut now"));
            return Ok(());
        }
        if told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
            let left = wait.saturating_sub(began.elapsed()).as_secs();
            say(&format!(
                "{active} connections are left; waiting for up to {left} s more"
            ));
            told = Some(Instant::now());
        }
        thread::sleep(COUNT_INTERVAL);
    }
}

fn active_connections(kernel: &mut ipvs::Socket, remembered: &Remembered) -> anyhow::Result<u64> {
    let mut active = 0;
    for (service, statistics) in kernel.statistics()? {
        let Some(ours) = remembered.table.services.get(&service) else {
            continue;
        };
        let ours = statistics
            .destinations
            .iter()
            .filter(|(key, _)| ours.contains(key));
        active += ours
            .map(|(_, found)| u64::from(found.connections.active))
            .sum::<u64>();
    }
    Ok(active)
}

/// Runs rounds in which nothing is wanted until nothing is left but sysctls.
fn clear(
    state: &mut State,
    edges: &mut Edges<'_>,
    say: &mut dyn FnMut(&str),
) -> anyhow::Result<()> {
    let (desired, table) = (Desired::default(), WantedTable::new());
    let (serving, rule) = (Serving::default(), AddressRule::Subnet);
    let wish = Wish {
        desired: &desired,
        table: &table,
        leaving: &table,
        serving: &serving,
        rule: &rule,
        holding: Holding::Release,
        removals: Removals::Released,
        on_conflict: OnConflict::Leave,
        timeouts: Some(Timeouts::default()),
        tuning: None,
    };
    let began = Instant::now();
    loop {
        let outcome = round::run(state, edges, &wish, began.elapsed())
            .context("the kernel's table cannot be read or changed; run this again")?;
        if state.is_clear() {
            say("released the virtual addresses, and removed the services");
            return Ok(());
        }
        if began.elapsed() > PATIENCE {
            bail!(
                "something of the agent's stays on this host: {}. Run this again when that is put right",
                failures(&outcome)
            );
        }
        let due = state.next_deadline().unwrap_or_default();
        thread::sleep(due.saturating_sub(began.elapsed()).min(PATIENCE));
    }
}

fn failures(outcome: &Outcome) -> String {
    let failures: Vec<_> = outcome.failures.values().map(String::as_str).collect();
    match failures.is_empty() {
        true => "its journal still names something".to_owned(),
        false => failures.join("; "),
    }
}

/// Nobody is to hear of any address.
struct Nobody;

impl Segments for Nobody {
    fn order(&mut self, _: Orders) {}
}
