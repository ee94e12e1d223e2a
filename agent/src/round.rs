//! One round: make this host what it is wanted to be, stage by stage.
//!
//! ```text
//! read ─▶ plan ─▶ intend ─▶ add and edit ─▶ addresses ─▶ remove ─▶ settle ─▶ Outcome
//! ```
//!
//! What fails is left to its own back-off and stops nothing else. Dying
//! between any two stages is safe: the intent says what may have been made.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipvs::{ActualTable, Kernel, Meaning, Op, Owned, Plan, ServiceKey};

use crate::{
    desired::Desired,
    host::{
        addresses::{self, AddressPlan, Holding, Missing, Placement},
        netlink::Links,
    },
    journal::{Change, Entry, Intent, Journal, Remembered},
    retry::{Retry, Subject},
};

/// The edges to the world that a round acts through.
pub struct Edges<'a> {
    /// The kernel's IPVS table.
    pub kernel: &'a mut dyn Kernel,
    /// The host's interfaces.
    pub links: &'a mut dyn Links,
    /// The journal.
    pub journal: &'a mut dyn Journal,
}

/// What is known between rounds.
#[derive(Debug, Default)]
pub struct State {
    /// What is ours in the IPVS table.
    owned: Owned,
    /// The addresses that we put on interfaces.
    addresses: BTreeMap<IpAddr, String>,
    /// The last reading plus what was acknowledged since; none when it has to
    /// be read again.
    believed: Option<ActualTable>,
    /// The kernel contradicted what is believed.
    stale: bool,
    /// What failed and waits, with the operation that failed where it was one.
    failures: BTreeMap<Subject, Failed>,
    retry: Retry,
    /// The intent that stands in the journal.
    intent: Intent,
    /// It is not known what of the intent was done.
    in_doubt: bool,
    /// What changed hands and does not stand in the journal yet.
    unsettled: Vec<Change>,
}

#[derive(Clone, Debug)]
struct Failed {
    op: Option<Op>,
    message: String,
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
    /// Virtual addresses that are wanted and here.
    pub held: BTreeMap<IpAddr, String>,
    /// Virtual addresses that are wanted and stay away.
    pub missing: BTreeMap<IpAddr, Missing>,
    /// Strangers' destinations inside services of ours.
    pub strangers: Vec<(ServiceKey, ipvs::DestinationKey)>,
}

impl State {
    /// The state of an agent that found this in its journal.
    pub fn new(remembered: Remembered) -> Self {
        Self {
            owned: remembered.table,
            addresses: remembered.addresses,
            in_doubt: !remembered.intent.is_empty(),
            intent: remembered.intent,
            ..Self::default()
        }
    }

    /// Has the next round read the kernel's table again.
    pub fn distrust(&mut self) {
        self.believed = None;
    }

    /// When something that failed is due again.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.retry.next_deadline()
    }

    fn failed(&mut self, subject: Subject, op: Option<Op>, message: String, now: Duration) {
        if self.failures.get(&subject).map(|failed| &failed.message) != Some(&message) {
            tracing::warn!("{message}");
        }
        self.retry.failed(subject, now);
        self.failures.insert(subject, Failed { op, message });
    }

    fn own(&mut self, entry: Entry) {
        match &entry {
            Entry::Service(service) => {
                self.owned.services.entry(*service).or_default();
            }
            Entry::Destination(service, destination) => {
                let services = &mut self.owned.services;
                services.entry(*service).or_default().insert(*destination);
            }
            Entry::Address(address, interface) => {
                self.addresses.insert(*address, interface.clone());
            }
        }
        self.unsettled.push(Change::Own(entry));
    }

    fn disown(&mut self, entry: Entry) {
        match &entry {
            Entry::Service(service) => {
                self.owned.services.remove(service);
            }
            Entry::Destination(service, destination) => {
                if let Some(destinations) = self.owned.services.get_mut(service) {
                    destinations.remove(destination);
                }
            }
            Entry::Address(address, _) => {
                self.addresses.remove(address);
            }
        }
        self.unsettled.push(Change::Disown(entry));
    }

    fn disown_service(&mut self, service: ServiceKey) {
        let destinations = self.owned.services.get(&service).cloned();
        for destination in destinations.into_iter().flatten() {
            self.disown(Entry::Destination(service, destination));
        }
        self.disown(Entry::Service(service));
    }

    /// Notes an operation that the kernel did.
    fn done(&mut self, op: &Op) {
        self.succeeded(subject(op));
        match op {
            Op::NewService(service, _) => self.own(Entry::Service(*service)),
            Op::NewDestination(service, destination, _) => {
                self.own(Entry::Destination(*service, *destination));
            }
            Op::DeleteDestination(service, destination) => {
                self.disown(Entry::Destination(*service, *destination));
            }
            Op::DeleteService(service) => self.disown_service(*service),
            Op::SetService(..) | Op::SetDestination(..) => {}
        }
        if let Some(table) = &mut self.believed {
            op.apply_to(table);
        }
    }

    fn succeeded(&mut self, subject: Subject) {
        self.failures.remove(&subject);
        self.retry.succeeded(subject);
    }

    /// Forgets the failure of every operation that is not planned any more:
    /// what was wrong with an old wish says nothing about a new one.
    fn forget_old_wishes(&mut self, plan: &Plan) {
        if self.failures.is_empty() {
            return;
        }
        let planned: BTreeMap<_, _> = plan.ops.iter().map(|op| (subject(op), op)).collect();
        let retry = &mut self.retry;
        self.failures.retain(|subject, failed| {
            let old = failed.op.is_some() && failed.op.as_ref() != planned.get(subject).copied();
            if old {
                retry.succeeded(*subject);
            }
            !old
        });
    }

    /// Forgets what was due in this round and was not tried.
    fn forget_untried(&mut self, now: Duration) {
        self.retry.expire(now);
        let retry = &self.retry;
        self.failures.retain(|subject, _| retry.waits(*subject));
    }

    /// Whether an operation need not wait. The destinations of a service that
    /// does not exist wait with it.
    fn may_try(&self, op: &Op, now: Duration) -> bool {
        let service = op.service();
        self.retry.allows(subject(op), now)
            && (self.has(&service) || self.retry.allows(Subject::Service(service), now))
    }

    /// Whether the kernel has a service, as far as is known.
    fn has(&self, service: &ServiceKey) -> bool {
        let table = self.believed.as_ref();
        table.is_some_and(|table| table.contains_key(service))
    }
}

/// Runs a round at `now`.
///
/// # Errors
/// When the kernel does not answer at all. Nothing is believed then, and what
/// the round may have made is covered by its intent.
pub fn run(
    state: &mut State,
    edges: &mut Edges<'_>,
    desired: &Desired,
    holding: Holding,
    now: Duration,
) -> Result<Outcome, ipvs::Error> {
    read(state, edges)?;
    let believed = state.believed.as_ref().expect("read above");
    let plan = ipvs::plan(&desired.table, believed, &state.owned);
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
    let addresses = place(state, edges, desired, holding, now);
    apply(state, edges, &removals, now)?;
    settle(state, edges, now);
    state.forget_untried(now);
    if std::mem::take(&mut state.stale) {
        state.distrust();
    }
    Ok(outcome(state, plan, addresses))
}

/// Reads the kernel's table if nothing is believed, and claims what an
/// unsettled intent made.
fn read(state: &mut State, edges: &mut Edges<'_>) -> Result<(), ipvs::Error> {
    if state.believed.is_some() {
        return Ok(());
    }
    let table = edges.kernel.table()?;
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
            None | Some((_, Meaning::AlreadyGone)) => state.done(op),
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
    desired: &Desired,
    holding: Holding,
    now: Duration,
) -> AddressPlan {
    let wanted = served_vips(state, desired);
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
    let mut plan = addresses::plan(&wanted, &interfaces, &state.addresses, holding);
    for address in &plan.forget {
        if let Some(interface) = state.addresses.get(address).cloned() {
            state.disown(Entry::Address(*address, interface));
        }
    }
    plan.add
        .retain(|placed| state.retry.allows(Subject::Vip(placed.address), now));
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
    for placed in &plan.remove {
        let (address, interface) = placed.named();
        match edges.links.remove(placed.index, address) {
            Ok(()) => {
                tracing::info!("released {address} on {interface}");
                state.succeeded(Subject::Vip(address));
                state.disown(Entry::Address(address, interface));
            }
            Err(error) => state.failed(Subject::Vip(address), None, error.to_string(), now),
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
        .filter_map(|key| match key {
            ServiceKey::Address { address, .. } => Some(*address),
            ServiceKey::FirewallMark { .. } => None,
        })
        .collect()
}

fn outcome(state: &State, plan: Plan, address_plan: AddressPlan) -> Outcome {
    Outcome {
        services: state.owned.services.len(),
        destinations: state.owned.services.values().map(BTreeSet::len).sum(),
        failures: state
            .failures
            .iter()
            .map(|(subject, failed)| (*subject, failed.message.clone()))
            .collect(),
        held: address_plan.held,
        missing: address_plan.missing,
        strangers: plan.strangers,
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
