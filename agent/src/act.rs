//! One round: make this host what it should be, stage by stage.
//!
//! ```text
//! read ─▶ (decide) ─▶ sysctls ─▶ timeouts ─▶ plan ─▶ phases ─▶ intend
//!   ─▶ services ─▶ destinations ─▶ addresses ─▶ removals ─▶ settle ─▶ Outcome
//! ```
//!
//! [`read`] is the only place where the kernel's table is read. What is in
//! force is decided after it, and [`run`] does the rest. An operation that
//! fails is left to its own back-off and stops nothing else. The agent may die
//! between any two stages: the intent records what may have been made.

mod doubt;
mod phases;
mod place;
mod read;
mod record;
mod repairs;
pub mod retry;
mod segment;
mod state;
mod sysctls;
mod timeouts;
mod tuned;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipvs::{DestinationKey, Kernel, Meaning, OnConflict, Op, Plan, ServiceKey, WantedTable};

use crate::{
    act::retry::Subject,
    claim::Segments,
    decide::{
        addresses::{AddressPlan, Missing},
        desired::Wish,
        ours::Entry,
    },
    disk::journal::Journal,
    host::{
        interface::Mac, netlink::Links, surroundings::Surroundings, sysctls::Sysctls as HostSysctls,
    },
};

use self::phases::Phases;
pub use self::{
    read::read,
    repairs::Repairs,
    state::State,
    sysctls::{Restored, restore_all as restore_sysctls},
    tuned::Sysctls,
};

/// The outside world as a round acts on it.
pub struct Edges<'a> {
    /// The kernel's IPVS table.
    pub kernel: &'a mut dyn Kernel,
    /// The host's network interfaces.
    pub links: &'a mut dyn Links,
    /// The journal on the disk.
    pub journal: &'a mut dyn Journal,
    /// The host's sysctls, as they can be read and written.
    pub sysctls: &'a mut dyn HostSysctls,
    /// The parts of the host's network that sysctls depend on.
    pub surroundings: &'a mut dyn Surroundings,
    /// The segments that the host's interfaces are on.
    pub segments: &'a mut dyn Segments,
}

/// How this host differs from what is wanted, after a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// How many services of ours the kernel has.
    pub services: usize,
    /// How many destinations of ours the kernel has.
    pub destinations: usize,
    /// The failures that wait for their next attempt, each with its message.
    pub failures: BTreeMap<Subject, String>,
    /// The virtual addresses that are here, each with its interface: wanted, or
    /// not yet removable.
    pub vips: BTreeMap<IpAddr, String>,
    /// The addresses in `vips` that should be gone.
    pub stays: BTreeMap<IpAddr, String>,
    /// The wanted virtual addresses that are not here, each with the reason.
    pub missing: BTreeMap<IpAddr, Missing>,
    /// The virtual addresses that are here and that another host claims: its
    /// MAC address, and all addresses known to be on it.
    pub contested: BTreeMap<IpAddr, (Mac, Vec<IpAddr>)>,
    /// Strangers' destinations in services of ours.
    pub strangers: Vec<(ServiceKey, DestinationKey)>,
    /// Wanted entries that are strangers' and were left alone: services, and
    /// destinations in services of ours.
    pub left: Vec<(ServiceKey, Option<DestinationKey>)>,
    /// Services whose destinations are not in the wanted order, although their
    /// scheduler depends on it.
    pub misordered: BTreeSet<ServiceKey>,
    /// What another process changed and the agent put right.
    pub repairs: Repairs,
    /// The state of the sysctls.
    pub sysctls: Sysctls,
}

/// Makes this host what `wish` wants, at `now`, after [`read`]. `table` is the
/// wish's table with the weights that the health of the servers leaves them.
/// The round plans what changed since the last one: in the wish
/// ([`State::wish_changed`]), in the kernel as far as it was read, and what the
/// last rounds could not do. The first round plans everything.
///
/// # Errors
/// If the kernel does not answer at all. Nothing is believed then, and what the
/// round may have made is covered by its intent.
pub fn run(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish,
    table: &WantedTable,
    now: Duration,
) -> Result<Outcome, ipvs::Error> {
    state.removed.clear();
    sysctls::apply(state, edges, wish, now);
    timeouts::apply(state, edges, wish.timeouts, now)?;
    let is_everything_dirty = state.everything_is_dirty;
    let plan = plan(state, table, wish.on_conflict);
    let are_addresses_due = is_everything_dirty || concerns_services(&plan);
    state.forget_old_wishes(&plan);
    adopt_and_forget(state, &plan);
    let mut phases = Phases::of(plan.ops, |op| state.may_try(op, now));
    state.postpone(&phases.waiting);
    if !intend(state, edges, &phases, now) {
        let withheld = phases.withhold_creations(|op| needs_no_intent(op, state, wish));
        state.postpone(&withheld);
    }
    if apply(state, edges, &phases.services, now)? == Applied::InPart {
        // A service that could not be made may be another process's by now.
        // Destinations added to that one would not be ours to remove.
        phases.destinations.retain(|op| state.has(&op.service()));
    }
    apply(state, edges, &phases.destinations, now)?;
    let addresses = place::place(state, edges, wish, are_addresses_due, now);
    // A VIP that is still there without its service would answer with RST.
    let stuck = phases.withhold_removals_of(|vip| addresses.stays.contains_key(&vip));
    state.postpone(&stuck);
    apply(state, edges, &phases.removals, now)?;
    if phases.removes_services() {
        // Fewer sysctls may be needed now.
        state.tuned.is_due = true;
        sysctls::apply(state, edges, wish, now);
    }
    record::settle(state, edges, now);
    state.end_round(now);
    Ok(outcome(state, addresses))
}

/// Plans the services that are due.
fn plan(state: &mut State, table: &WantedTable, on_conflict: OnConflict) -> Plan {
    let is_everything_dirty = std::mem::take(&mut state.everything_is_dirty);
    let is_policy_new = state.on_conflict != on_conflict;
    state.on_conflict = on_conflict;
    let mut services = std::mem::take(&mut state.dirty);
    services.append(&mut state.unfinished);
    let believed = state.believed.as_ref().expect("the kernel was read");
    let owned = &state.ours.table;
    if is_everything_dirty || is_policy_new {
        let plan = ipvs::plan(table, believed, owned, on_conflict);
        state.keep_findings(&plan, None);
        plan
    } else {
        let plan = ipvs::plan_services(&services, table, believed, owned, on_conflict);
        state.keep_findings(&plan, Some(&services));
        plan
    }
}

/// Whether the plan changes which services are in the kernel, or which of them
/// are known to be ours: then other addresses may be wanted.
fn concerns_services(plan: &Plan) -> bool {
    let is_service = |op: &Op| matches!(op, Op::NewService(..) | Op::DeleteService(_));
    plan.ops.iter().any(is_service)
        || !plan.adopt.is_empty()
        || !plan.gone.services.is_empty()
        || !plan.left.is_empty()
}

/// Writes an intent for what will be created. Returns false if the disk does
/// not take it.
fn intend(state: &mut State, edges: &mut Edges<'_>, phases: &Phases, now: Duration) -> bool {
    // Adopted entries must be in the journal before they are edited: afterwards
    // nothing tells them from a stranger's.
    if phases.has_additions() {
        record::settle(state, edges, now);
    }
    record::intend(state, edges, record::created(phases.additions()), now)
}

/// Whether an operation may create its entry without an intent. Servers that
/// checks took out go back in whatever the disk does. If the record is lost,
/// the server is still in a service of ours, and wanted.
fn needs_no_intent(op: &Op, state: &State, wish: &Wish) -> bool {
    let service = op.service();
    let server = op.destination();
    server.is_some_and(|server| wish.desired.is_checked(&service, &server))
        && state.ours.table.service(&service)
}

/// Records what becomes ours, and forgets what is gone, without a write to the
/// kernel.
fn adopt_and_forget(state: &mut State, plan: &Plan) {
    for (service, destinations) in &plan.adopt.services {
        if !state.ours.table.service(service) {
            state.own(Entry::Service(*service));
        }
        for destination in destinations {
            state.own(Entry::Destination(*service, *destination));
        }
    }
    for service in &plan.gone.services {
        state.disown(Entry::Service(*service));
    }
    for (service, destination) in &plan.gone.destinations {
        state.disown(Entry::Destination(*service, *destination));
    }
}

/// Whether all operations succeeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Applied {
    All,
    InPart,
}

/// Applies operations, and records the result of each.
fn apply(
    state: &mut State,
    edges: &mut Edges<'_>,
    ops: &[Op],
    now: Duration,
) -> Result<Applied, ipvs::Error> {
    if ops.is_empty() {
        return Ok(Applied::All);
    }
    let failures: BTreeMap<_, _> = match edges.kernel.apply(ops) {
        Ok(failures) => failures
            .into_iter()
            .map(|failure| (failure.index, failure.errno))
            .collect(),
        Err(error) => {
            state.believed = None;
            state.in_doubt = true;
            return Err(error);
        }
    };
    let mut done = Vec::with_capacity(ops.len());
    for (index, op) in ops.iter().enumerate() {
        let errno = failures.get(&index).copied();
        match errno.map(|errno| (errno, errno.meaning(op))) {
            None | Some((_, Meaning::AlreadyGone)) => {
                done.push(op);
            }
            Some((errno, meaning)) => {
                if meaning == Meaning::Stale {
                    state.doubt([op.service()]);
                }
                let message = format!("cannot {op}: {}", errno.explain(op));
                state.failed(subject(op), Some(op.clone()), message, now);
            }
        }
    }
    state.done(&done);
    Ok(if done.len() == ops.len() {
        Applied::All
    } else {
        Applied::InPart
    })
}

fn outcome(state: &State, mut addresses: AddressPlan) -> Outcome {
    addresses.vips.extend(addresses.stays.clone());
    let each = |(service, destinations): (&ServiceKey, &Vec<DestinationKey>)| {
        let service = *service;
        let destinations = destinations.clone().into_iter();
        destinations.map(move |destination| (service, destination))
    };
    let left = |(service, entries): (&ServiceKey, &Vec<Option<DestinationKey>>)| {
        let service = *service;
        entries
            .clone()
            .into_iter()
            .map(move |entry| (service, entry))
    };
    Outcome {
        services: state.ours.table.services.len(),
        destinations: state.ours.table.services.values().map(BTreeSet::len).sum(),
        failures: state
            .failures
            .iter()
            .map(|(subject, failed)| (*subject, failed.message.clone()))
            .collect(),
        vips: addresses.vips,
        stays: addresses.stays,
        missing: addresses.missing,
        contested: addresses.contested,
        strangers: state.strangers.iter().flat_map(each).collect(),
        left: state.left.iter().flat_map(left).collect(),
        misordered: state.misordered.clone(),
        repairs: state.repairs.clone(),
        sysctls: state.tuned.report.clone(),
    }
}

fn subject(op: &Op) -> Subject {
    match op.destination() {
        Some(destination) => Subject::Destination(op.service(), destination),
        None => Subject::Service(op.service()),
    }
}

#[cfg(test)]
mod tests;
