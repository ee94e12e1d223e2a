//! Runs the agent's rounds as the agent's loop does, with the real kernel and a
//! real journal.

use std::{collections::BTreeSet, path::Path, sync::Arc, time::Duration};

use agent::{
    act::{self, Edges, Outcome, State},
    decide::desired::{Addresses, Desired, Wish},
    disk::journal::FileJournal,
    heartbeat::Heartbeat,
    host::{netlink::RouteSocket, surroundings::ThisHost, sysctls::SysctlFolder},
};
use anyhow::{Context, Result, ensure};
use ipvs::{DestinationKey, Kernel, OnConflict, ServiceKey, Socket, Timeouts, WantedTable};

use crate::no_host::Nowhere;

/// A director that has no entries in the kernel at first. The director manages
/// no VIPs, because `ipvsadm` and the compared libraries manage no VIPs either.
pub(crate) struct Director {
    state: State,
    pub(crate) kernel: Socket,
    links: RouteSocket,
    journal: FileJournal,
    sysctls: SysctlFolder,
    surroundings: ThisHost,
}

impl Director {
    /// Creates a director with a new journal in the folder `state_dir`. The
    /// director's state folder `state_dir` must be empty or absent.
    pub(crate) fn start(state_dir: &Path) -> Result<Self> {
        let (journal, remembered) = FileJournal::open(state_dir, "bench")?;
        Ok(Self {
            state: State::new(remembered),
            kernel: Socket::open()?,
            links: RouteSocket::open()?,
            journal,
            sysctls: sysctls(),
            surroundings: ThisHost::default(),
        })
    }

    /// Marks `services` as dirty, so that the next round plans them again.
    pub(crate) fn wish_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.state.wish_changed(services);
    }

    /// Runs one round, which changes the kernel's table to `desired`.
    pub(crate) fn round(&mut self, desired: &Arc<Desired>) -> Result<()> {
        let mut edges = Edges {
            kernel: &mut self.kernel,
            links: &mut self.links,
            journal: &mut self.journal,
            sysctls: &mut self.sysctls,
            segments: &mut Nowhere,
            heartbeat: &Heartbeat::default(),
            surroundings: &mut self.surroundings,
        };
        let outcome = run(&mut self.state, &mut edges, desired)?;
        ensure!(
            outcome.failures.is_empty(),
            "the round failed: {:#?}",
            outcome.failures
        );
        Ok(())
    }

    /// Returns the weight that a destination has in the kernel.
    pub(crate) fn weight_of(
        &mut self,
        service: &ServiceKey,
        destination: &DestinationKey,
    ) -> Result<Option<u32>> {
        let found = self.kernel.service(service)?;
        let found = found.and_then(|service| service.destinations.get(destination).copied());
        Ok(found.map(|config| config.weight))
    }
}

/// Returns the folder with the sysctls of the lab's kernel.
pub(crate) fn sysctls() -> SysctlFolder {
    SysctlFolder("/proc/sys".into())
}

/// Runs one round of a director that has only an IPVS table to program. The
/// round has the same stages as in the agent's loop.
pub(crate) fn run(
    state: &mut State,
    edges: &mut Edges<'_>,
    desired: &Arc<Desired>,
) -> Result<Outcome> {
    let timeouts = Some(Timeouts::default());
    act::read(state, edges, timeouts, Duration::ZERO).context("the kernel did not answer")?;
    let wish = Wish {
        desired: desired.clone(),
        addresses: Addresses::default(),
        on_conflict: OnConflict::Adopt,
        timeouts,
        // The round sets no sysctl, because some benchmarks run outside the
        // lab.
        tuning: None,
        kept_sysctls: BTreeSet::new(),
    };
    act::run(state, edges, &wish, &desired.table, Duration::ZERO)
        .context("the kernel did not answer")
}

/// Returns a wanted state that contains only `table`.
pub(crate) fn desired(table: WantedTable) -> Arc<Desired> {
    Arc::new(Desired {
        table,
        ..Desired::default()
    })
}
