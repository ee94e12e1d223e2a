//! The product's own round, as the agent's loop runs it, on the real kernel
//! and the real journal.

use std::{path::Path, time::Duration};

use agent::{
    desired::Desired,
    host::{
        addresses::Holding, netlink::RouteSocket, surroundings::ThisHost, sysctls::SysctlFolder,
    },
    journal::FileJournal,
    round::{self, Edges, Removals, State, Wish},
    serving::Serving,
};
use anyhow::{Context, Result, ensure};
use crds::AddressRule;
use ipvs::{DestinationKey, Kernel, OnConflict, ServiceKey, Socket, Timeouts, WantedTable};

use crate::no_host::Nowhere;

/// A director that has nothing yet. Its virtual addresses are left out, as
/// neither `ipvsadm` nor the libraries know them.
pub(crate) struct Director {
    state: State,
    pub(crate) kernel: Socket,
    links: RouteSocket,
    journal: FileJournal,
    sysctls: SysctlFolder,
    surroundings: ThisHost,
}

impl Director {
    /// With a new journal in a folder that is empty or absent.
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

    /// Says that another table is wanted than in the last round, of these
    /// services.
    pub(crate) fn wish_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.state.wish_changed(services);
    }

    /// Makes the kernel's table this one, in one round.
    pub(crate) fn round(&mut self, desired: &Desired) -> Result<()> {
        let mut edges = Edges {
            kernel: &mut self.kernel,
            links: &mut self.links,
            journal: &mut self.journal,
            sysctls: &mut self.sysctls,
            segments: &mut Nowhere,
            surroundings: &mut self.surroundings,
        };
        let nothing = Unchecked::default();
        let wish = wish(desired, &nothing);
        let outcome = round::run(&mut self.state, &mut edges, &wish, Duration::ZERO)
            .context("the kernel did not answer")?;
        ensure!(
            outcome.failures.is_empty(),
            "the round failed: {:#?}",
            outcome.failures
        );
        Ok(())
    }

    /// A destination's weight, as the kernel has it.
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

/// No service has a health check.
#[derive(Default)]
pub(crate) struct Unchecked {
    serving: Serving,
    leaving: WantedTable,
    rule: AddressRule,
}

/// The lab's own sysctls.
pub(crate) fn sysctls() -> SysctlFolder {
    SysctlFolder("/proc/sys".into())
}

/// The wish of a director that was told nothing but its table.
pub(crate) fn wish<'a>(desired: &'a Desired, nothing: &'a Unchecked) -> Wish<'a> {
    Wish {
        desired,
        table: &desired.table,
        leaving: &nothing.leaving,
        serving: &nothing.serving,
        rule: &nothing.rule,
        holding: Holding::Undecided,
        removals: Removals::Guarded,
        on_conflict: OnConflict::Adopt,
        timeouts: Some(Timeouts::default()),
        // Some of it runs natively.
        tuning: None,
    }
}

/// What a director wants that is to have this table.
pub(crate) fn desired(table: WantedTable) -> Desired {
    Desired {
        table,
        ..Desired::default()
    }
}
