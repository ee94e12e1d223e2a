//! One round: make this host what it should be, stage by stage.
//!
//! ```text
//! read ─▶ (decide) ─▶ sysctls ─▶ timeouts ─▶ plan ─▶ phases ─▶ intend
//!   ─▶ services ─▶ destinations ─▶ addresses ─▶ removals ─▶ settle ─▶ Outcome
//! ```
//!
//! [`read`] is the only place where the kernel's table is read. What should be
//! in force is decided after it, and [`run`] does the rest. What fails is left
//! to its own back-off and stops nothing else. Dying between any two stages is
//! safe: the intent says what may have been made.

mod phases;
mod place;
mod read;
mod record;
mod repairs;
pub mod retry;
mod state;
mod sysctls;
mod timeouts;

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
    },
    disk::journal::{Entry, Journal},
    host::{
        interface::Mac, netlink::Links, surroundings::Surroundings, sysctls::Sysctls as HostSysctls,
    },
};

use self::phases::Phases;
pub use self::{
    read::read,
    repairs::Repairs,
    state::State,
    sysctls::{Restored, Sysctls, restore_all as restore_sysctls},
};

/// The edges to the world that a round acts through.
pub struct Edges<'a> {
    /// The kernel's IPVS table.
    pub kernel: &'a mut dyn Kernel,
    /// The host's interfaces.
    pub links: &'a mut dyn Links,
    /// The journal.
    pub journal: &'a mut dyn Journal,
    /// The host's sysctls.
    pub sysctls: &'a mut dyn HostSysctls,
    /// What the host's network is like around the table.
    pub surroundings: &'a mut dyn Surroundings,
    /// The segments that its interfaces are on.
    pub segments: &'a mut dyn Segments,
}

/// How this host differs from what is wanted, after a round.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Services of ours in the kernel.
    pub services: usize,
    /// Destinations of ours in the kernel.
    pub destinations: usize,
    /// What failed and is waiting for its next attempt.
    pub failures: BTreeMap<Subject, String>,
    /// Virtual addresses that are here: wanted, or not to be got rid of.
    pub vips: BTreeMap<IpAddr, String>,
    /// Of those, the ones that should be gone.
    pub stays: BTreeMap<IpAddr, String>,
    /// Virtual addresses that are wanted and stay away.
    pub missing: BTreeMap<IpAddr, Missing>,
    /// Virtual addresses that are here, and that somebody else says he has:
    /// by his Ethernet address, with all addresses that are known to be his.
    pub contested: BTreeMap<IpAddr, (Mac, Vec<IpAddr>)>,
    /// Strangers' destinations inside services of ours.
    pub strangers: Vec<(ServiceKey, DestinationKey)>,
    /// Wanted entries that are somebody else's, and left so: services, and
    /// destinations in services of ours.
    pub left: Vec<(ServiceKey, Option<DestinationKey>)>,
    /// Services whose destinations stand in another order than the wanted one,
    /// and whose scheduler goes by it.
    pub misordered: BTreeSet<ServiceKey>,
    /// What somebody else changed and was put right.
    pub repairs: Repairs,
    /// How the sysctls are.
    pub sysctls: Sysctls,
}

/// Makes this host what `wish` says, at `now`, after [`read`]. `table` is the
/// wish's table with the weights that the health of servers leaves them.
/// Planned is what changed since the last round: of the wish
/// ([`State::wish_changed`]), of the kernel as far as it was read, and what the
/// last rounds could not do. In the first round that is everything.
///
/// # Errors
/// When the kernel does not answer at all. Nothing is believed then, and what
/// the round may have made is covered by its intent.
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
        // A service that could not be made may be another process's by now, and
        // what is put into that one is not ours to remove.
        phases.destinations.retain(|op| state.has(&op.service()));
    }
    apply(state, edges, &phases.destinations, now)?;
    let addresses = place::place(state, edges, wish, are_addresses_due, now);
    // A VIP that is still there without its service would answer with RST.
    let stuck = phases.withhold_removals_of(|vip| addresses.stays.contains_key(&vip));
    state.postpone(&stuck);
    apply(state, edges, &phases.removals, now)?;
    if phases.removes_services() {
        // Less may be needed now.
        state.tuned.is_due = true;
        sysctls::apply(state, edges, wish, now);
    }
    record::settle(state, edges, now);
    state.end_round(now);
    Ok(outcome(state, addresses))
}

/// Plans what is due to be planned.
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

/// Whether other services will be in the kernel after this, or other ones are
/// known to be ours: then other addresses may be wanted.
fn concerns_services(plan: &Plan) -> bool {
    let is_service = |op: &Op| matches!(op, Op::NewService(..) | Op::DeleteService(_));
    plan.ops.iter().any(is_service)
        || !plan.adopt.is_empty()
        || !plan.gone.services.is_empty()
        || !plan.left.is_empty()
}

/// Leaves an intent for what will be created. False when the disk does not take
/// it.
fn intend(state: &mut State, edges: &mut Edges<'_>, phases: &Phases, now: Duration) -> bool {
    // What was adopted is in the journal before it is edited: nobody could tell
    // it from a stranger's afterwards.
    if phases.has_additions() {
        record::settle(state, edges, now);
    }
    record::intend(state, edges, record::created(phases.additions()), now)
}

/// What checks take out they put back, whatever the disk does. Should nobody
/// remember whose it is, it is in a service of ours, and is wanted.
fn needs_no_intent(op: &Op, state: &State, wish: &Wish) -> bool {
    let service = op.service();
    let server = op.destination();
    server.is_some_and(|server| wish.desired.is_checked(&service, &server))
        && state.ours.table.service(&service)
}

/// What becomes ours and what is forgotten without any write to the kernel.
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

/// What came of operations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Applied {
    All,
    InPart,
}

/// Applies operations, and notes for each what came of it.
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
