//! Measures how much time each part of the agent takes to load a table. The
//! measurement runs outside the lab, with a simulated kernel that accepts every
//! operation and does nothing. The profile shows where the load could be
//! faster.

use std::{
    collections::BTreeSet,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use agent::{
    act::{Edges, State},
    decide::{
        departures::Record,
        ours::{Change, Intent},
        refusals::Refused,
    },
    disk::journal::{FileJournal, Journal, JournalError},
    heartbeat::Heartbeat,
    host::{netlink::RouteSocket, surroundings::ThisHost},
};
use anyhow::Result;
use ipvs::{ActualTable, OnConflict, Owned, WantedTable};

use crate::{
    director,
    no_host::{Nothing, Nowhere},
    size::Size,
};

/// Loads a table several times, and prints the median time of each part of the
/// load.
pub(crate) fn measure(size: Size, state_dir: &Path) -> Result<()> {
    let mut samples = Vec::new();
    for number in 0..11 {
        let folder = state_dir.join(format!("profile-{}-{number}", std::process::id()));
        samples.push(sample(size, &folder)?);
        std::fs::remove_dir_all(folder)?;
    }
    println!("{size}, natively, without a kernel:");
    for part in 0..samples[0].len() {
        let name = samples[0][part].0;
        let mut taken: Vec<_> = samples.iter().map(|sample| sample[part].1).collect();
        taken.sort();
        println!("  {name:12} {:10.3} ms", taken[5].as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Measures the agent's planning time for the load of a table into an empty
/// kernel.
pub(crate) fn planning(wanted: &WantedTable) -> Duration {
    let (actual, owned) = (ActualTable::new(), Owned::default());
    let start = Instant::now();
    let plan = ipvs::plan(wanted, &actual, &owned, OnConflict::Adopt);
    let took = start.elapsed();
    drop(plan);
    took
}

pub(crate) type Parts = [(&'static str, Duration); 6];

pub(crate) fn sample(size: Size, folder: &Path) -> Result<Parts> {
    let desired = director::desired(size.wanted());
    let planning = planning(&desired.table);
    let (journal, remembered) = FileJournal::open(folder, "bench")?;
    let mut journal = Timed {
        journal,
        intending: Duration::ZERO,
        settling: Duration::ZERO,
    };
    let mut kernel = Nothing::default();
    let mut links = RouteSocket::open()?;
    let mut sysctls = director::sysctls();
    let mut surroundings = ThisHost::default();
    let mut state = State::new(remembered);
    let mut edges = Edges {
        kernel: &mut kernel,
        links: &mut links,
        journal: &mut journal,
        sysctls: &mut sysctls,
        segments: &mut Nowhere,
        heartbeat: &Heartbeat::default(),
        surroundings: &mut surroundings,
    };
    let start = Instant::now();
    director::run(&mut state, &mut edges, &desired)?;
    let all = start.elapsed();
    let known = planning + journal.intending + journal.settling + kernel.encoding;
    let rest = all.saturating_sub(known);
    Ok([
        ("all", all),
        ("plan", planning),
        ("encode", kernel.encoding),
        ("intend", journal.intending),
        ("settle", journal.settling),
        ("the rest", rest),
    ])
}

struct Timed {
    journal: FileJournal,
    intending: Duration,
    settling: Duration,
}

impl Journal for Timed {
    fn intend(&mut self, intent: &Intent) -> Result<(), JournalError> {
        let start = Instant::now();
        let outcome = self.journal.intend(intent);
        self.intending += start.elapsed();
        outcome
    }

    fn settle(&mut self, changes: &[Change]) -> Result<(), JournalError> {
        let start = Instant::now();
        let outcome = self.journal.settle(changes);
        self.settling += start.elapsed();
        outcome
    }

    fn remember_cluster(&mut self, cluster: &str) -> Result<(), JournalError> {
        self.journal.remember_cluster(cluster)
    }

    fn remember_taken_over(&mut self, addresses: &BTreeSet<IpAddr>) -> Result<(), JournalError> {
        self.journal.remember_taken_over(addresses)
    }

    fn remember_refused(&mut self, refused: &Refused) -> Result<(), JournalError> {
        self.journal.remember_refused(refused)
    }

    fn remember_drains(&mut self, record: &Record) -> Result<(), JournalError> {
        self.journal.remember_drains(record)
    }
}
