//! Implements `ipvs-agent undo`, which takes this host out of service.
//!
//! ```text
//! connections end, if asked to ─▶ VIPs ─▶ services ─▶ timeouts, device ─▶ sysctls
//! ```
//!
//! The command `ipvs-agent undo` reads the journal, and runs rounds with an
//! empty wanted state. If the command is interrupted, its next run continues
//! where it stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use ipvs::{ActualTable, DestinationConfig, OnConflict, Timeouts, WantedService, WantedTable};
use jiff::Timestamp;

use crate::{
    act::{self, Edges, Outcome, Restored, State, Writes},
    claim::{Orders, Segments},
    clock::uptime,
    decide::{
        absence::Absence,
        addresses::Holding,
        departures::Place,
        desired::{Addresses, Desired, Wish},
        idle::Idle,
        ours::Remembered,
        retain::{Before, ClusterLooks, Removals, Retention, Traffic},
    },
    disk::{checkpoint::FILE as CHECKPOINT, journal::FileJournal},
    heartbeat::Heartbeat,
    host::{
        lock::{Lock, LockError},
        netlink::RouteSocket,
        reading::loads,
        surroundings::ThisHost,
        sysctls::SysctlFolder,
    },
    trail::{self, round::Round},
};

/// The time for which failed removals are retried.
const PATIENCE: Duration = Duration::from_secs(30);
/// The interval at which the remaining connections are counted.
const COUNT_INTERVAL: Duration = Duration::from_millis(500);
/// The interval at which the number of remaining connections is reported.
const TELL_INTERVAL: Duration = Duration::from_secs(5);

/// The options of `ipvs-agent undo`.
#[derive(Clone, Copy, Debug)]
pub struct Undo<'a> {
    /// The folder with the agent's journal.
    pub state_dir: &'a Path,
    /// The folder with the host's sysctls.
    pub sysctl_dir: &'a Path,
    /// The id of the machine's current boot.
    pub boot_id: &'a str,
    /// How long to wait for connections to end before the removal. While
    /// `ipvs-agent undo` waits, new connections get no server.
    pub wait: Duration,
}

/// Undoes the changes that agents made to this host, and reports each step.
///
/// # Errors
/// Returns an error if an agent runs on this host, if the journal or the kernel
/// cannot be used, or if a change cannot be undone. The error message says how
/// to solve the problem.
pub fn undo(undo: &Undo<'_>, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
    let lock = Lock::take().map_err(|error| match error {
        LockError::Taken => {
            let pid = Lock::owner().map(|pid| format!(" (pid {pid})"));
            anyhow::anyhow!(
                "an agent runs here{} and would put everything back: stop it first",
                pid.unwrap_or_default()
            )
        }
        error => error.into(),
    })?;
    if let Some(remark) = lock.remark() {
        say(remark);
    }
    let mut host = Host::open(undo)?;
    say(&summary(host.state.ours()));
    if !undo.wait.is_zero() {
        host.wait_for_connections(undo.wait, say)?;
    }
    host.clear(say)?;
    let restored = host.restore_sysctls();
    for line in &restored.done {
        say(line);
    }
    ensure!(
        restored.stuck.is_empty(),
        "not all sysctls could be restored: {}; use --sysctl-dir to name a folder where they can be written, and run this command again",
        restored.stuck.join("; ")
    );
    // The checkpoint is removed. Otherwise, an agent that starts without an API
    // server would write the checkpoint's objects to the kernel again.
    let checkpoint = undo.state_dir.join(CHECKPOINT);
    match fs::remove_file(&checkpoint) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            bail!("cannot remove {}: {error}", checkpoint.display())
        }
        _ => {}
    }
    if let Err(error) = record(undo.state_dir, host.state.take_writes()) {
        say(&format!(
            "the history in the state folder lacks this command: {error}"
        ));
    }
    say("nothing of the agent's is left on this host");
    Ok(())
}

/// Records in the audit trail that nothing is ours any longer.
fn record(state_dir: &Path, writes: Writes) -> std::io::Result<()> {
    let round = Round {
        at: Timestamp::now(),
        writes: writes.list,
        count: writes.count,
        is_whole: true,
        services: BTreeMap::new(),
        host: Some(trail::round::Host {
            is_whole: true,
            timeouts: Some(Timeouts::default()),
            ..trail::round::Host::default()
        }),
    };
    trail::writer::record_undo(state_dir, round)
}

fn summary(remembered: &Remembered) -> String {
    let services = &remembered.table.services;
    let destinations: usize = services.values().map(BTreeSet::len).sum();
    format!(
        "the agent's entries on this host: {} services with {destinations} destinations, {} virtual addresses, {} sysctls",
        services.len(),
        remembered.addresses.len(),
        remembered.sysctls.len()
    )
}

/// This host, with the agent's knowledge of the entries on it.
struct Host {
    state: State,
    retention: Retention,
    world: World,
    began: Instant,
}

/// The open handles to the kernel, the journal and the sysctls.
struct World {
    kernel: ipvs::Socket,
    links: RouteSocket,
    journal: FileJournal,
    sysctls: SysctlFolder,
    surroundings: ThisHost,
    segments: Nobody,
    heartbeat: Heartbeat,
}

impl World {
    fn edges(&mut self) -> Edges<'_> {
        Edges {
            kernel: &mut self.kernel,
            links: &mut self.links,
            journal: &mut self.journal,
            sysctls: &mut self.sysctls,
            surroundings: &mut self.surroundings,
            segments: &mut self.segments,
            heartbeat: &self.heartbeat,
        }
    }
}

impl Host {
    fn open(undo: &Undo<'_>) -> anyhow::Result<Self> {
        let (journal, remembered) = FileJournal::open(undo.state_dir, undo.boot_id)?;
        Ok(Self {
            state: State::new(remembered),
            retention: Retention::immediate(),
            world: World {
                kernel: ipvs::Socket::open()?,
                links: RouteSocket::open()?,
                journal,
                sysctls: SysctlFolder(undo.sysctl_dir.to_owned()),
                surroundings: ThisHost::default(),
                segments: Nobody,
                heartbeat: Heartbeat::default(),
            },
            began: Instant::now(),
        })
    }

    /// Runs one round with the stages of the agent's loop. `wish` computes the
    /// wanted state from two inputs: the entries that belong to the agent, and
    /// the kernel's table.
    fn round(&mut self, wish: fn(&Remembered, &ActualTable) -> Wish) -> anyhow::Result<Outcome> {
        let now = self.began.elapsed();
        let state = &mut self.state;
        let mut edges = self.world.edges();
        let outcome = act::read(state, &mut edges, Some(Timeouts::default()), now).and_then(|()| {
            let kernel = state.believed().expect("the kernel was read just now");
            let wish = wish(state.ours(), kernel);
            let before = Before {
                ours: state.ours(),
                kernel,
                changed: None,
                absence: &Absence::default(),
                looks: ClusterLooks::default(),
                uptime: uptime(),
                traffic: Traffic::None,
            };
            let retention = &mut self.retention;
            let wish = retention.retain(wish, before, Removals::Released, now);
            let ours: Vec<_> = state.ours().table.services.keys().copied().collect();
            state.in_force_changed(ours);
            let wish = wish.in_force;
            act::run(state, &mut edges, &wish, &wish.desired.table, now)
        });
        outcome.context("the kernel's table cannot be read or changed; run this command again")
    }

    /// Stops new connections to all servers, and waits until the connections
    /// have ended as the drain of a server does ([`Idle`]).
    fn wait_for_connections(
        &mut self,
        wait: Duration,
        say: &mut dyn FnMut(&str),
    ) -> anyhow::Result<()> {
        let outcome = self.round(quiesced)?;
        ensure!(
            outcome.failures.is_empty(),
            "some servers may still get new connections: {}. Run this command again, or without --wait",
            failures(&outcome)
        );
        let (began, mut told) = (Instant::now(), None::<Instant>);
        let mut idle = Idle::default();
        loop {
            let ours = &self.state.ours().table.services;
            let loads = loads(&mut self.world.kernel, ours.keys())?;
            idle.hear(began.elapsed(), loads);
            let servers = ours.iter();
            let places = servers.flat_map(|(key, servers)| servers.iter().map(|of| (*key, *of)));
            let places: Vec<Place> = places.collect();
            let left = places.iter().filter_map(|place| idle.left(place));
            let left: u64 = left.map(u64::from).sum();
            if places.iter().all(|place| idle.is_idle(place) == Some(true)) {
                say("no connection is left");
                return Ok(());
            }
            if began.elapsed() >= wait {
                say(&format!("{left} connections are left and are cut now"));
                return Ok(());
            }
            if told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
                let rest = wait.saturating_sub(began.elapsed()).as_secs();
                say(&format!(
                    "{left} connections are left; waiting for up to {rest} s more, and at least \
                     until no packet has come for 10 s"
                ));
                told = Some(Instant::now());
            }
            thread::sleep(COUNT_INTERVAL);
        }
    }

    /// Runs rounds with an empty wanted state, until only sysctls are left to
    /// restore.
    fn clear(&mut self, say: &mut dyn FnMut(&str)) -> anyhow::Result<()> {
        let began = self.began.elapsed();
        loop {
            let outcome = self.round(nothing)?;
            if self.state.is_clear() {
                say("released the virtual addresses, and removed the services");
                return Ok(());
            }
            if self.began.elapsed() > began + PATIENCE {
                bail!(
                    "could not remove everything that the agent made on this host: {}. Fix the cause, then run this command again",
                    failures(&outcome)
                );
            }
            let due = self.state.next_deadline().unwrap_or_default();
            let rest = due.saturating_sub(self.began.elapsed());
            thread::sleep(rest.min(PATIENCE));
        }
    }

    fn restore_sysctls(&mut self) -> Restored {
        let mut edges = self.world.edges();
        act::restore_sysctls(&mut self.state, &mut edges)
    }
}

/// Returns an empty wish, which makes the round remove all our entries.
fn nothing(_: &Remembered, _: &ActualTable) -> Wish {
    Wish {
        desired: Arc::default(),
        addresses: Addresses {
            holding: Holding::Release,
            ..Addresses::default()
        },
        on_conflict: OnConflict::Leave,
        timeouts: Some(Timeouts::default()),
        tuning: None,
        kept_sysctls: BTreeSet::new(),
    }
}

/// Returns a wish that keeps all entries that are ours, with weight 0 for every
/// server.
fn quiesced(ours: &Remembered, kernel: &ActualTable) -> Wish {
    let mut table = WantedTable::new();
    for (key, servers) in &ours.table.services {
        let Some(found) = kernel.get(key) else {
            continue;
        };
        let ours = found.destinations.iter();
        let ours = ours.filter(|(server, _)| servers.contains(*server));
        let quiesced = ours.map(|(server, config)| {
            let config = DestinationConfig {
                weight: 0,
                ..*config
            };
            (*server, config)
        });
        let service = WantedService {
            config: found.config.clone(),
            destinations: quiesced.collect(),
        };
        table.insert(*key, service);
    }
    let mut wish = nothing(ours, kernel);
    wish.desired = Arc::new(Desired {
        table,
        ..Desired::default()
    });
    wish.addresses.holding = Holding::Undecided;
    wish.timeouts = None;
    wish.keep_all_of(ours);
    wish
}

fn failures(outcome: &Outcome) -> String {
    let failures: Vec<_> = outcome.failures.values().map(String::as_str).collect();
    match failures.is_empty() {
        true => "the agent's journal still has entries".to_owned(),
        false => failures.join("; "),
    }
}

/// Ignores all orders about virtual addresses. An undo adds no address, so it
/// sends nothing to the segments.
struct Nobody;

impl Segments for Nobody {
    fn order(&mut self, _: Orders) {}
}
