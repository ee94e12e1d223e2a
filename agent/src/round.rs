//! One round: make this host what it is wanted to be, stage by stage.
//!
//! ```text
//! read ─▶ plan ─▶ intend ─▶ add and edit ─▶ addresses ─▶ remove ─▶ settle ─▶ Outcome
//! ```
//!
//! What fails is left to its own back-off and stops nothing else. Dying
//! between any two stages is safe: the intent says what may have been made.

mod state;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map},
    net::IpAddr,
    time::Duration,
};

use ipvs::{ActualTable, Kernel, Meaning, Op, Plan, ServiceKey};

use crate::{
    desired::Desired,
    host::{
        addresses::{self, AddressPlan, Holding, Missing, Placement},
        netlink::Links,
    },
    journal::{Entry, Intent, Journal},
    retry::Subject,
};

pub use self::state::State;

/// The edges to the world that a round acts through.
pub struct Edges<'a> {
    /// The kernel's IPVS table.
    pub kernel: &'a mut dyn Kernel,
    /// The host's interfaces.
    pub links: &'a mut dyn Links,
    /// The journal.
    pub journal: &'a mut dyn Journal,
}

/// What a round is to come to.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// What this host is to have.
    pub desired: &'a Desired,
    /// Whether it is to have the virtual addresses.
    pub holding: Holding,
    /// Whether what is not in `desired` is to go.
    pub removals: Removals,
}

/// Whether what is ours and not wanted is to go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Removals {
    /// Nothing goes: not all objects are known.
    NotYet,
    /// It goes, as far as the [`crate::guard`] lets it.
    Guarded,
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
    /// Strangers' destinations inside services of ours.
    pub strangers: Vec<(ServiceKey, ipvs::DestinationKey)>,
    /// Removals that the guard holds.
    pub removals_held: Vec<Op>,
}

/// Runs a round at `now`.
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
    let believed = state.believed.as_ref().expect("read above");
    let mut plan = ipvs::plan(&wish.desired.table, believed, &state.owned);
    let held = hold_back(state, &mut plan, wish.removals, now);
    state.forget_old_wishes(&plan);
    adopt_and_forget(state, &plan);

    let (mut additions, removals): (Vec<_>, Vec<_>) = plan
        .ops
        .iter()
        .filter(|op| state.may_try(op, now))
        .cloned()
        .partition(|op| !op.removes());

    // What was adopted stands in the journal before it is edited: nobody could
    // tell it from a stranger's afterwards.
    if !additions.is_empty() {
        settle(state, edges, now);
    }
    if !intend(state, edges, created(&additions), now) {
        additions.retain(|op| !op.creates());
    }
    let (services, mut destinations): (Vec<_>, Vec<_>) = additions
        .into_iter()
        .partition(|op| op.destination().is_none());
    apply(state, edges, &services, now)?;
    // A service that could not be made may be somebody else's by now, and what
    // is put into that one is not ours to remove.
    destinations.retain(|op| state.has(&op.service()));
    apply(state, edges, &destinations, now)?;
    let addresses = place(state, edges, wish, &held, now);
    // A VIP that is still there without its service would answer with RST.
    let stuck = |op: &Op| match op {
        Op::DeleteService(ServiceKey::Address { address, .. }) => {
            addresses.stays.contains_key(address)
        }
        _ => false,
    };
    let removals: Vec<_> = removals.into_iter().filter(|op| !stuck(op)).collect();
    apply(state, edges, &removals, now)?;
    settle(state, edges, now);
    state.forget_untried(now);
    if std::mem::take(&mut state.stale) {
        state.distrust();
    }
    Ok(Outcome {
        removals_held: held,
        ..outcome(state, plan, addresses)
    })
}

/// Takes the removals that are not to be done out of the plan, and gives those
/// that the guard holds.
fn hold_back(state: &mut State, plan: &mut Plan, removals: Removals, now: Duration) -> Vec<Op> {
    if removals == Removals::NotYet {
        plan.ops.retain(|op| !op.removes());
        return Vec::new();
    }
    let is_released = removals == Removals::Released;
    let wanted = plan.ops.iter().filter(|op| op.removes());
    if !state.guard.holds(wanted, &state.owned, is_released, now) {
        return Vec::new();
    }
    let (held, others) = plan.ops.drain(..).partition(Op::removes);
    plan.ops = others;
    held
}

/// Reads the kernel's table if nothing is believed, and claims what an
/// unsettled intent made.
fn read(state: &mut State, edges: &mut Edges<'_>) -> Result<(), ipvs::Error> {
    if state.believed.is_some() {
        return Ok(());
    }
    let mut table = edges.kernel.table()?;
    if state.owned.is_any_missing(&table) {
        // The kernel's dump skips an entry when somebody removes another one
        // meanwhile. What is in neither of two readings is gone.
        merge(&mut table, edges.kernel.table()?);
    }
    state.stale = false;
    if std::mem::take(&mut state.in_doubt) {
        for entry in state.intent.claims(&table) {
            match &entry {
                // A service that is not ours holds nothing of ours.
                Entry::Destination(service, _) if !state.owned.service(service) => {}
                _ => state.own(entry),
            }
        }
    }
    state.believed = Some(table);
    Ok(())
}

/// Adds what only the second reading has.
fn merge(table: &mut ActualTable, again: ActualTable) {
    for (key, service) in again {
        match table.entry(key) {
            btree_map::Entry::Vacant(free) => {
                free.insert(service);
            }
            btree_map::Entry::Occupied(mut known) => {
                let known = &mut known.get_mut().destinations;
                for (destination, config) in service.destinations {
                    known.entry(destination).or_insert(config);
                }
            }
        }
    }
}

/// What becomes ours and what is forgotten without any write to the kernel.
fn adopt_and_forget(state: &mut State, plan: &Plan) {
    for (service, destinations) in &plan.adopt.services {
        state.own(Entry::Service(*service));
        for destination in destinations {
            state.own(Entry::Destination(*service, *destination));
        }
    }
    for service in &plan.gone.services {
        state.disown_service(*service);
    }
    for (service, destination) in &plan.gone.destinations {
        state.disown(Entry::Destination(*service, *destination));
    }
}

fn created(additions: &[Op]) -> Intent {
    let mut intent = Intent::default();
    for op in additions {
        match op {
            Op::NewService(service, config) => intent.services.push((*service, config.clone())),
            Op::NewDestination(service, destination, config) => {
                intent.destinations.push((*service, *destination, *config));
            }
            _ => {}
        }
    }
    intent
}

/// Leaves an intent in the journal, unless there is nothing to create. False
/// when the disk did not take it.
fn intend(state: &mut State, edges: &mut Edges<'_>, intent: Intent, now: Duration) -> bool {
    if intent.is_empty() {
        return true;
    }
    // A new intent replaces the old one, so what the old one made must stand
    // in the journal before.
    if !settle(state, edges, now) || !state.retry.allows(Subject::Journal, now) {
        return false;
    }
    match edges.journal.intend(&intent) {
        Ok(()) => {
            state.intent = intent;
            state.succeeded(Subject::Journal);
            true
        }
        Err(error) => {
            state.failed(Subject::Journal, None, error.to_string(), now);
            false
        }
    }
}

/// Writes what changed hands, and drops the intent with it.
fn settle(state: &mut State, edges: &mut Edges<'_>, now: Duration) -> bool {
    if state.unsettled.is_empty() && state.intent.is_empty() {
        return true;
    }
    // Of the several writes of a round the first failure is the only attempt.
    if !state.retry.allows(Subject::Journal, now) {
        return false;
    }
    match edges.journal.settle(&state.unsettled) {
        Ok(()) => {
            state.unsettled.clear();
            state.intent = Intent::default();
            state.succeeded(Subject::Journal);
            true
        }
        Err(error) => {
            state.failed(Subject::Journal, None, error.to_string(), now);
            false
        }
    }
}

/// Applies operations, and notes for each what came of it.
fn apply(
    state: &mut State,
    edges: &mut Edges<'_>,
    ops: &[Op],
    now: Duration,
) -> Result<(), ipvs::Error> {
    if ops.is_empty() {
        return Ok(());
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
    for (index, op) in ops.iter().enumerate() {
        let errno = failures.get(&index).copied();
        match errno.map(|errno| (errno, errno.meaning(op))) {
            None | Some((_, Meaning::AlreadyGone)) => {
                state.done(op);
                if op.removes() {
                    state.guard.count(op, now);
                }
            }
            Some((errno, meaning)) => {
                state.stale |= meaning == Meaning::Stale;
                let message = format!("cannot {op}: {}", errno.explain(op));
                state.failed(subject(op), Some(op.clone()), message, now);
            }
        }
    }
    Ok(())
}

/// Puts virtual addresses on and takes them away, after the services that
/// answer on them were made and before they are removed: a VIP without its
/// service answers with RST.
fn place(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish<'_>,
    held: &[Op],
    now: Duration,
) -> AddressPlan {
    let mut wanted = served_vips(state, wish.desired);
    // A service that is held goes on being served.
    wanted.extend(held.iter().filter_map(|op| match op {
        Op::DeleteService(service) => vip(service),
        _ => None,
    }));
    if wanted.is_empty() && state.addresses.is_empty() {
        return AddressPlan::default();
    }
    let interfaces = match edges.links.interfaces() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            state.failed(Subject::Links, None, error.to_string(), now);
            return AddressPlan::default();
        }
    };
    state.succeeded(Subject::Links);
    let mut plan = addresses::plan(&wanted, &interfaces, &state.addresses, wish.holding);
    if wish.removals == Removals::NotYet {
        plan.remove.clear();
    }
    for address in &plan.forget {
        if let Some(interface) = state.addresses.get(address).cloned() {
            state.disown(Entry::Address(*address, interface));
        }
    }
    let may_try = |placed: &Placement| state.retry.allows(Subject::Vip(placed.address), now);
    plan.add.retain(may_try);
    let (remove, waiting): (Vec<_>, Vec<_>) = plan.remove.drain(..).partition(may_try);
    plan.stays.extend(waiting.iter().map(Placement::named));
    let intent = Intent {
        addresses: plan.add.iter().map(Placement::named).collect(),
        ..Intent::default()
    };
    if intend(state, edges, intent, now) {
        for placed in &plan.add {
            let (address, interface) = placed.named();
            match edges.links.add(placed.index, address) {
                Ok(()) => {
                    tracing::info!("holding {address} on {interface}");
                    state.succeeded(Subject::Vip(address));
                    plan.held.insert(address, interface.clone());
                    state.own(Entry::Address(address, interface));
                }
                Err(error) => state.failed(Subject::Vip(address), None, error.to_string(), now),
            }
        }
    }
    for placed in &remove {
        let (address, interface) = placed.named();
        match edges.links.remove(placed.index, address) {
            Ok(()) => {
                tracing::info!("released {address} on {interface}");
                state.succeeded(Subject::Vip(address));
                state.disown(Entry::Address(address, interface));
            }
            Err(error) => {
                state.failed(Subject::Vip(address), None, error.to_string(), now);
                plan.stays.insert(address, interface);
            }
        }
    }
    plan
}

/// The wanted addresses on which at least one service stands in the kernel.
fn served_vips(state: &State, desired: &Desired) -> BTreeSet<IpAddr> {
    desired
        .services
        .keys()
        .filter(|key| state.has(key))
        .filter_map(vip)
        .collect()
}

fn vip(service: &ServiceKey) -> Option<IpAddr> {
    match service {
        ServiceKey::Address { address, .. } => Some(*address),
        ServiceKey::FirewallMark { .. } => None,
    }
}

fn outcome(state: &State, plan: Plan, mut address_plan: AddressPlan) -> Outcome {
    address_plan.held.extend(address_plan.stays.clone());
    Outcome {
        services: state.owned.services.len(),
        destinations: state.owned.services.values().map(BTreeSet::len).sum(),
        failures: state
            .failures
            .iter()
            .map(|(subject, failed)| (*subject, failed.message.clone()))
            .collect(),
        held: address_plan.held,
        stays: address_plan.stays,
        missing: address_plan.missing,
        strangers: plan.strangers,
        removals_held: Vec::new(),
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
