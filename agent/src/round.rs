//! One round: make this host what it is wanted to be, stage by stage.
//!
//! ```text
//! read ─▶ sysctls ─▶ plan ─▶ intend ─▶ add and edit ─▶ addresses ─▶ remove ─▶ settle ─▶ Outcome
//! ```
//!
//! What fails is left to its own back-off and stops nothing else. Dying
//! between any two stages is safe: the intent says what may have been made.

mod place;
mod read;
mod record;
mod repairs;
mod state;
mod sysctls;
mod timeouts;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crds::AddressRule;
use ipvs::{
    DestinationConfig, DestinationKey, Kernel, Meaning, OnConflict, Op, Plan, ServiceKey, Timeouts,
    WantedService, WantedTable,
};

use crate::{
    claim::{Segments, packet::Mac},
    desired::Desired,
    host::{
        addresses::{AddressPlan, Holding, Missing},
        netlink::Links,
        surroundings::Surroundings,
        sysctls::Sysctls as HostSysctls,
    },
    journal::{Entry, Journal},
    retry::Subject,
    serving::Serving,
    sysctls::Tuning,
};

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

/// What a round is to come to.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What this host is to have by the objects.
    pub desired: &'a Desired,
    /// The kernel's table as it is to be: that of `desired`, with the weights
    /// that the health of servers leaves them.
    pub table: &'a WantedTable,
    /// What is wanted no more and is checked still, as it is to be while its
    /// removal is held.
    pub leaving: &'a WantedTable,
    /// What decides on those.
    pub serving: &'a Serving,
    /// Where the virtual addresses go.
    pub rule: &'a AddressRule,
    /// Whether it is to have the virtual addresses.
    pub holding: Holding,
    /// Whether what is not in `desired` is to go.
    pub removals: Removals,
    /// What is to become of strangers' entries with keys that are wanted.
    pub on_conflict: OnConflict,
    /// The timeouts of connections; 0 is as it was before. None when it is not
    /// known what they are to be.
    pub timeouts: Option<Timeouts>,
    /// What the group says about sysctls. None when it is not known.
    pub tuning: Option<&'a Tuning>,
}

/// Whether what is ours and not wanted is to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removals {
    /// Nothing goes, and nothing of somebody else's is adopted and edited: not
    /// all objects are known.
    NotYet,
    /// It goes, as far as the [`crate::guard`] lets it.
    Guarded,
    /// None of it goes, whatever its size ([`crate::caution`]); a hold that
    /// lasts is the guard's from then on.
    Held {
        /// Whether it lasts.
        lasting: bool,
    },
    /// All of it goes: the administrator said so.
    Released,
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
    pub held: BTreeMap<IpAddr, String>,
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
    /// Removals that the guard holds.
    pub removals_held: Vec<Op>,
    /// How the sysctls are.
    pub sysctls: Sysctls,
}

/// Runs a round at `now`. Planned is what changed since the last one: of the
/// wish ([`State::wish_changed`]), of the kernel as far as it was read, and
/// what the last rounds could not do. In the first round that is everything.
///
/// # Errors
/// When the kernel does not answer at all. Nothing is believed then, and what
/// the round may have made is covered by its intent.
pub fn run(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish<'_>,
    now: Duration,
) -> Result<Outcome, ipvs::Error> {
    read(state, edges)?;
    sysctls::settle(state, edges, wish, now);
    if let Some(timeouts) = wish.timeouts {
        timeouts::settle(state, edges, timeouts, now)?;
    }
    let mut are_addresses_due = state.everything_is_dirty;
    let mut plan = plan(state, wish);
    let held = hold_back(state, &mut plan, wish, now);
    are_addresses_due |= concerns_services(&plan, &held);
    state.forget_old_wishes(&plan);
    adopt_and_forget(state, &plan);

    let mut additions = plan.ops;
    let waiting: Vec<_> = additions
        .extract_if(.., |op| !state.may_try(op, now))
        .collect();
    state.postpone(&waiting);
    // They come last in a plan.
    let removals = additions.split_off(additions.partition_point(|op| !op.removes()));
    additions.extend(edits_of_held(state, wish, &held, now));

    // What was adopted stands in the journal before it is edited: nobody could
    // tell it from a stranger's afterwards.
    if !additions.is_empty() {
        record::settle(state, edges, now);
    }
    if !record::intend(state, edges, record::created(&additions), now) {
        // What checks take out they put back, whatever the disk does. Should
        // nobody remember whose it is, it stands in a service of ours, and is
        // wanted.
        let is_in_ours = |op: &Op| state.ours.table.service(&op.service());
        let may_be = |op: &Op| is_decided(op, wish) && is_in_ours(op);
        let created: Vec<_> = additions
            .extract_if(.., |op| op.creates() && !may_be(op))
            .collect();
        state.postpone(&created);
    }
    let mut destinations = additions;
    let services: Vec<_> = destinations
        .extract_if(.., |op| op.destination().is_none())
        .collect();
    if apply(state, edges, &services, wish, now)? == Applied::InPart {
        // A service that could not be made may be somebody else's by now, and
        // what is put into that one is not ours to remove.
        destinations.retain(|op| state.has(&op.service()));
    }
    apply(state, edges, &destinations, wish, now)?;
    let addresses = place::place(state, edges, wish, &held, are_addresses_due, now);
    // A VIP that is still there without its service would answer with RST.
    let is_stuck = |op: &Op| match op {
        Op::DeleteService(ServiceKey::Address { address, .. }) => {
            addresses.stays.contains_key(address)
        }
        _ => false,
    };
    let (stuck, removals): (Vec<_>, Vec<_>) = removals.into_iter().partition(is_stuck);
    state.postpone(&stuck);
    apply(state, edges, &removals, wish, now)?;
    if removals.iter().any(|op| matches!(op, Op::DeleteService(_))) {
        // Less may be needed now.
        state.tuned.is_due = true;
        sysctls::settle(state, edges, wish, now);
    }
    record::settle(state, edges, now);
    state.end_round(now);
    let mut outcome = outcome(state, held, addresses);
    if wish.removals == Removals::NotYet {
        // It is in nobody's way yet.
        outcome.left.clear();
    }
    Ok(outcome)
}

/// Plans what is due to be planned.
fn plan(state: &mut State, wish: &Wish<'_>) -> Plan {
    // What an earlier life knew may be another's by now, and would go with the
    // wish if it was adopted.
    let on_conflict = match wish.removals {
        Removals::NotYet => OnConflict::Leave,
        Removals::Guarded | Removals::Held { .. } | Removals::Released => wish.on_conflict,
    };
    let is_everything_dirty = std::mem::take(&mut state.everything_is_dirty);
    let is_policy_new = state.on_conflict != on_conflict;
    state.on_conflict = on_conflict;
    let mut services = std::mem::take(&mut state.dirty);
    services.append(&mut state.unfinished);
    let believed = state.believed.as_ref().expect("read before");
    let (desired, owned) = (wish.table, &state.ours.table);
    if is_everything_dirty || is_policy_new {
        let plan = ipvs::plan(desired, believed, owned, on_conflict);
        state.keep_findings(&plan, None);
        plan
    } else {
        let plan = ipvs::plan_services(&services, desired, believed, owned, on_conflict);
        state.keep_findings(&plan, Some(&services));
        plan
    }
}

/// Takes the removals that are not to be done out of the plan, and gives those
/// that the guard holds. What a failed check takes out is none of its business:
/// the objects want it still, and the service's minimum guards that.
fn hold_back(state: &mut State, plan: &mut Plan, wish: &Wish<'_>, now: Duration) -> Vec<Op> {
    let removals = wish.removals;
    let is_guarded = |op: &Op| is_guarded(op, wish);
    let wanted = plan.ops.iter().filter(|op| is_guarded(op));
    let is_held = match removals {
        Removals::NotYet => true,
        Removals::Held { lasting } => {
            if lasting {
                state.guard.hold(wanted);
            }
            true
        }
        Removals::Guarded | Removals::Released => {
            let is_released = removals == Removals::Released;
            state
                .guard
                .holds(wanted, &state.ours.table, is_released, now)
        }
    };
    if !is_held {
        return Vec::new();
    }
    let held: Vec<_> = plan.ops.extract_if(.., |op| is_guarded(op)).collect();
    state.postpone(&held);
    match removals {
        Removals::NotYet => Vec::new(),
        _ => held,
    }
}

/// What health leaves of the weights of destinations whose removal is held.
fn edits_of_held(state: &State, wish: &Wish<'_>, held: &[Op], now: Duration) -> Vec<Op> {
    let Some(believed) = state.believed.as_ref().filter(|_| !wish.leaving.is_empty()) else {
        return Vec::new();
    };
    let mut edits = Vec::new();
    for op in held {
        let service = op.service();
        let (Some(leaving), Some(found)) = (wish.leaving.get(&service), believed.get(&service))
        else {
            continue;
        };
        let destinations = found.destinations.iter();
        let concerned = destinations.filter(|(key, _)| {
            op.destination()
                .is_none_or(|destination| destination == **key)
                && state.ours.table.destination(&service, key)
        });
        edits.extend(concerned.filter_map(|(key, config)| {
            let weight = match leaving.destinations.get(key) {
                Some(wanted) => wanted.weight,
                None if wish.serving.decides(&service, key) => 0,
                // An earlier life knew it, and nobody checks it now.
                None => config.weight,
            };
            let edited = DestinationConfig { weight, ..*config };
            (edited != *config).then_some(Op::SetDestination(service, *key, edited))
        }));
    }
    edits.retain(|op| state.may_try(op, now));
    edits
}

/// Whether an operation removes something that the objects want no more.
fn is_guarded(op: &Op, wish: &Wish<'_>) -> bool {
    op.removes() && !is_decided(op, wish)
}

/// Whether it is for checks to say if a destination that is wanted is there.
fn is_decided(op: &Op, wish: &Wish<'_>) -> bool {
    let Some(destination) = op.destination() else {
        return false;
    };
    let service = op.service();
    let is_leaving = |leaving: &WantedService| leaving.destinations.contains_key(&destination);
    wish.serving.decides(&service, &destination)
        && !wish.leaving.get(&service).is_some_and(is_leaving)
}

/// Whether other services stand in the kernel after this, or other ones are
/// known to be ours: then other addresses may be wanted.
fn concerns_services(plan: &Plan, held: &[Op]) -> bool {
    let is_service = |op: &Op| matches!(op, Op::NewService(..) | Op::DeleteService(_));
    plan.ops.iter().chain(held).any(is_service)
        || !plan.adopt.is_empty()
        || !plan.gone.services.is_empty()
        || !plan.left.is_empty()
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
    wish: &Wish<'_>,
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
                if is_guarded(op, wish) {
                    state.guard.count(op, now);
                }
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

fn outcome(state: &State, removals_held: Vec<Op>, mut addresses: AddressPlan) -> Outcome {
    addresses.held.extend(addresses.stays.clone());
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
        held: addresses.held,
        stays: addresses.stays,
        missing: addresses.missing,
        contested: addresses.contested,
        strangers: state.strangers.iter().flat_map(each).collect(),
        left: state.left.iter().flat_map(left).collect(),
        misordered: state.misordered.clone(),
        repairs: state.repairs.clone(),
        removals_held,
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
