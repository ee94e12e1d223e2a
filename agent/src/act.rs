//! Runs one round: brings this host to the wanted state, stage by stage.
//!
//! ```text
//! read ─▶ (decide) ─▶ sysctls ─▶ timeouts ─▶ plan ─▶ phases ─▶ intend
//!   ─▶ services ─▶ destinations ─▶ addresses ─▶ removals ─▶ settle ─▶ Outcome
//! ```
//!
//! [`read`] is the only place that reads the kernel's table. After the reading,
//! the loop decides the state in force, and [`run`] does the rest of the round.
//! A failed operation waits for its own back-off and does not stop other
//! operations. The agent may die between any two stages. The intent in the
//! journal then shows which entries the round may have created.

mod doubt;
mod findings;
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
mod unsettled;
mod writes;

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
        addresses::{AddressPlan, Missing, Stay},
        desired::Wish,
        ours::Entry,
    },
    disk::journal::Journal,
    heartbeat::Heartbeat,
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
    writes::{Difference, MOST_WRITES, Writes},
};

/// The parts of the outside world that a round reads and changes.
pub struct Edges<'a> {
    /// The kernel's IPVS table.
    pub kernel: &'a mut dyn Kernel,
    /// The host's network interfaces.
    pub links: &'a mut dyn Links,
    /// The agent's journal on the disk.
    pub journal: &'a mut dyn Journal,
    /// Reads and writes the host's sysctls.
    pub sysctls: &'a mut dyn HostSysctls,
    /// The facts about the host's network that the wanted sysctls depend on:
    /// routes and connection tracking.
    pub surroundings: &'a mut dyn Surroundings,
    /// The Ethernet segments that the host's interfaces are connected to.
    pub segments: &'a mut dyn Segments,
    /// Shows to other threads that the round makes progress.
    pub heartbeat: &'a Heartbeat,
}

/// The state of this host after a round, and how the host differs from the
/// wanted state.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// The number of our services in the kernel.
    pub services: usize,
    /// The number of our destinations in the kernel.
    pub destinations: usize,
    /// The error message of each failed operation, by the operation's subject.
    /// The agent will try these operations again.
    pub failures: BTreeMap<Subject, String>,
    /// The virtual addresses on this host, each with its interface: wanted
    /// addresses, and addresses that cannot be removed yet.
    pub vips: BTreeMap<IpAddr, String>,
    /// The addresses in `vips` that should leave this host but cannot be
    /// removed yet, each with its interface.
    pub stays: BTreeMap<IpAddr, String>,
    /// The addresses in `vips` that stay on their interface although the group
    /// wants them elsewhere, each with the reason.
    pub kept: BTreeMap<IpAddr, Stay>,
    /// The wanted virtual addresses that are not on this host, each with the
    /// reason.
    pub missing: BTreeMap<IpAddr, Missing>,
    /// The virtual addresses on this host that another host also claims, each
    /// with the other host's MAC address and known IP addresses.
    pub contested: BTreeMap<IpAddr, (Mac, Vec<IpAddr>)>,
    /// Strangers' destinations in our services.
    pub strangers: Vec<(ServiceKey, DestinationKey)>,
    /// Wanted entries that the agent left alone because they belong to
    /// strangers: services, and destinations in our services.
    pub left: Vec<(ServiceKey, Option<DestinationKey>)>,
    /// Services whose destinations are in the wrong order, if their scheduler
    /// depends on the order.
    pub misordered: BTreeSet<ServiceKey>,
    /// The agent's repairs of changes that other processes made.
    pub repairs: Repairs,
    /// The state of the sysctls after the round.
    pub sysctls: Sysctls,
}

/// Brings this host to the state that `wish` describes. The caller must call
/// [`read`] first. `table` is the wanted table with the weights adjusted to the
/// servers' health. The round plans the services whose wish changed
/// ([`State::wish_changed`]), the services that were read again, and the
/// services that earlier rounds could not finish. The first round plans all
/// services.
///
/// # Errors
/// Returns an error if the kernel does not answer at all. If the kernel did not
/// answer, the next round reads the whole table. If the round fails, the intent
/// in the journal covers all entries that the round may have created.
pub fn run(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish,
    table: &WantedTable,
    now: Duration,
) -> Result<Outcome, ipvs::Error> {
    sysctls::apply(state, edges, wish, now);
    timeouts::apply(state, edges, wish.timeouts, now)?;
    edges.heartbeat.beat();
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
        // Another process may have created a service that this round could not
        // create. The agent must not add destinations to another process's
        // service, because it could not remove the destinations later.
        phases.destinations.retain(|op| state.has(&op.service()));
    }
    apply(state, edges, &phases.destinations, now)?;
    let addresses = place::place(state, edges, wish, are_addresses_due, now);
    edges.heartbeat.beat();
    // If a service is removed while its VIP stays, the host answers clients
    // with RST.
    let stuck = phases.withhold_removals_of(&plan.shared, |vip| addresses.stays.contains_key(&vip));
    state.postpone(&stuck);
    apply(state, edges, &phases.removals, now)?;
    leave_to_strangers(state, &plan.shared);
    if phases.removes_services() {
        // After services are removed, the remaining services may need fewer
        // sysctls.
        state.tuned.is_due = true;
        sysctls::apply(state, edges, wish, now);
    }
    record::settle(state, edges, now);
    state.end_round(now);
    Ok(outcome(state, addresses))
}

/// Plans the services in `state.dirty` and `state.unfinished`. Plans all
/// services if `state.everything_is_dirty` is true or `on_conflict` changed.
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

/// Whether the plan may change the wanted addresses. The wanted addresses may
/// change if the plan adds, removes or adopts services. They may also change if
/// services of ours disappeared from the kernel, or if the plan leaves entries
/// to strangers.
fn concerns_services(plan: &Plan) -> bool {
    let is_service = |op: &Op| matches!(op, Op::NewService(..) | Op::DeleteService(_));
    plan.ops.iter().any(is_service)
        || !plan.adopt.is_empty()
        || !plan.gone.services.is_empty()
        || !plan.left.is_empty()
}

/// Writes an intent for the entries that the round will create. Returns false
/// if the disk does not accept the intent.
fn intend(state: &mut State, edges: &mut Edges<'_>, phases: &Phases, now: Duration) -> bool {
    // The journal must list adopted entries before the agent edits them.
    // Without the record, the agent could not tell an edited entry from a
    // stranger's entry.
    if phases.has_additions() {
        record::settle(state, edges, now);
    }
    record::intend(state, edges, record::created(phases.additions()), now)
}

/// Whether an operation may create its entry without an intent. Servers that
/// health checks removed are added again without an intent, even if the disk
/// fails. It does no harm if the journal lacks such a server, because the
/// server is wanted and its service is ours.
fn needs_no_intent(op: &Op, state: &State, wish: &Wish) -> bool {
    let service = op.service();
    let server = op.destination();
    server.is_some_and(|server| wish.desired.is_checked(&service, &server))
        && state.ours.table.service(&service)
}

/// Records the entries that become ours by adoption, and forgets the entries
/// that are gone. This function changes only the agent's records and does not
/// write to the kernel.
fn adopt_and_forget(state: &mut State, plan: &Plan) {
    for (service, destinations) in &plan.adopt.services {
        if plan.adopt.adopted.contains(service) {
            state.own(Entry::Service(*service));
            state.own(Entry::Adopted(*service));
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

/// Forgets services in which none of our destinations is left. The services
/// stay in the kernel because they contain strangers' destinations.
fn leave_to_strangers(state: &mut State, shared: &[ServiceKey]) {
    for service in shared {
        let ours = state.ours.table.services.get(service);
        if ours.is_some_and(BTreeSet::is_empty) {
            tracing::info!(
                "{service} stays in the kernel: another program made it and has destinations in it"
            );
            state.disown(Entry::Service(*service));
        }
    }
}

/// Whether all operations of a batch succeeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Applied {
    All,
    InPart,
}

/// Applies operations to the kernel's table and records the result of each
/// operation.
fn apply(
    state: &mut State,
    edges: &mut Edges<'_>,
    ops: &[Op],
    now: Duration,
) -> Result<Applied, ipvs::Error> {
    if ops.is_empty() {
        return Ok(Applied::All);
    }
    edges.heartbeat.beat();
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
    state.done(&done, now);
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
        kept: addresses.kept,
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
