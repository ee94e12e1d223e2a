//! The state that the agent keeps between rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipvs::{ActualTable, DestinationKey, OnConflict, Op, Plan, ServiceKey, Timeouts};

use super::{
    doubt::{Doubt, Drifted, MOST_SINGLE_READINGS},
    repairs::Repairs,
    segment::Segment,
    subject,
    tuned::Tuned,
    unsettled::Unsettled,
    writes::Writes,
};
use crate::{
    act::retry::{Retry, Subject},
    decide::{
        addresses::AddressPlan,
        desired::Addresses,
        ours::{Change, Entry, Remembered},
        serving::Found,
    },
    host::reading::Reading,
};

/// How long a removed service counts as recently served. Connections from this
/// host to a removed service last for about 15 minutes more (tcp(7),
/// tcp_retries2).
const LATELY: Duration = Duration::from_secs(20 * 60);

/// The agent's knowledge of the host, kept between rounds.
#[derive(Debug, Default)]
pub struct State {
    /// The entries that are ours, and the intent in the journal.
    pub(super) ours: Remembered,
    /// The kernel's table as last read, with the changes that the kernel has
    /// acknowledged since, or none if the table is unknown.
    pub(super) believed: Option<ActualTable>,
    /// The part of the kernel's table that must be read again.
    pub(super) doubt: Doubt,
    /// The services that the next round must plan, because their wanted state
    /// or their known state in the kernel changed.
    pub(super) dirty: BTreeSet<ServiceKey>,
    /// Whether the next round must plan all services.
    pub(super) everything_is_dirty: bool,
    /// The services that the last round could not bring to their wanted state.
    pub(super) unfinished: BTreeSet<ServiceKey>,
    /// Entries of ours that the agent must repair because another process
    /// changed them.
    pub(super) drifted: BTreeSet<Drifted>,
    pub(super) repairs: Repairs,
    /// Strangers' destinations in our services.
    pub(super) strangers: BTreeMap<ServiceKey, Vec<DestinationKey>>,
    /// Wanted entries that the agent left alone because they belong to
    /// strangers. `None` stands for the service itself, and `Some` for a
    /// destination in the service.
    pub(super) left: BTreeMap<ServiceKey, Vec<Option<DestinationKey>>>,
    /// Services whose destinations are not in the wanted order.
    pub(super) misordered: BTreeSet<ServiceKey>,
    /// The plan for the virtual addresses. The agent made the plan from the
    /// last reading of the interfaces and the wanted state in `placed_for`.
    pub(super) placed: AddressPlan,
    pub(super) placed_for: Option<Addresses>,
    pub(super) segment: Segment,
    /// Whether the next round must look at the interfaces' addresses again.
    pub(super) are_addresses_unfinished: bool,
    /// The policy for strangers' entries that the last plan followed.
    pub(super) on_conflict: OnConflict,
    /// The wanted connection timeouts, if the kernel is known to have them.
    pub(super) timeouts_settled: Option<Timeouts>,
    /// The wanted connection timeouts, if the kernel refused them.
    pub(super) timeouts_refused: Option<Timeouts>,
    /// The kernel's connection timeouts, as read for the current round.
    pub(super) timeouts_found: Option<Timeouts>,
    /// The known state of the sysctls.
    pub(super) tuned: Tuned,
    /// The subjects that failed and wait for another attempt, each with the
    /// failed operation if there was one.
    pub(super) failures: BTreeMap<Subject, Failed>,
    pub(super) retry: Retry,
    /// Whether it is unknown which entries of the intent were created.
    pub(super) in_doubt: bool,
    /// The changes of ownership that are not yet in the journal.
    pub(super) unsettled: Unsettled,
    /// The services that the agent deleted lately, each with the time.
    left_at: BTreeMap<ServiceKey, Duration>,
    /// How often an address became ours or ceased to be ours.
    address_changes: u64,
    /// What the rounds wrote to this host, for the audit trail.
    pub(super) writes: Writes,
}

#[derive(Clone, Debug)]
pub(super) struct Failed {
    op: Option<Op>,
    pub(super) message: String,
}

impl State {
    /// Returns the state of an agent whose journal contains `remembered`.
    pub fn new(remembered: Remembered) -> Self {
        Self {
            in_doubt: !remembered.intent.is_empty(),
            ours: remembered,
            ..Self::default()
        }
    }

    /// Takes over the records of a journal that the agent could not open until
    /// now. The changes of ownership since the agent's start are applied on top
    /// of the journal's records.
    pub fn remember(&mut self, remembered: Remembered) {
        let since = std::mem::replace(self, Self::new(remembered));
        for change in since.unsettled.into_changes() {
            match change {
                // While the agent had no journal, it set no timeouts or sysctls
                // and created no device.
                Change::Own(Entry::Timeouts(_) | Entry::Sysctl(..) | Entry::Device(_))
                | Change::Disown(Entry::Timeouts(_) | Entry::Sysctl(..) | Entry::Device(_)) => {}
                Change::Own(entry) => self.own(entry),
                Change::Disown(entry) => self.disown(entry),
            }
        }
        self.segment = since.segment;
        self.repairs = since.repairs;
        self.writes.everything();
        self.address_changes += since.address_changes + 1;
    }

    /// Makes the next round read the kernel's whole table again.
    pub fn distrust(&mut self) {
        self.doubt = Doubt::Everything;
    }

    /// Makes the next round plan services whose wanted state changed. The round
    /// first reads strangers' and adopted services again, because their last
    /// reading may be old.
    pub fn wish_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let before = self.believed.as_ref();
        let is_believed = |key: &ServiceKey| before.is_some_and(|table| table.contains_key(key));
        let changed: BTreeSet<_> = services.into_iter().collect();
        let ours = &self.ours.table;
        let has_strangers = |key: &&ServiceKey| !ours.service(key) || ours.adopted.contains(*key);
        let doubtful = changed.iter().filter(has_strangers);
        let doubtful: Vec<_> = doubtful.filter(|key| is_believed(key)).copied().collect();
        self.doubt(doubtful);
        self.tuned.is_due |= !changed.is_empty();
        self.dirty.extend(changed);
    }

    /// Makes the next round read the given services again, except services that
    /// are ours. [`State::hint`] ignores most strangers' services, so the agent
    /// may not know a service that a stranger has created.
    pub fn look_at_strangers(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let services = services.into_iter();
        let strangers: Vec<_> = services
            .filter(|key| !self.ours.table.service(key))
            .collect();
        self.doubt(strangers);
    }

    /// Makes the next round read the adopted services among the given services
    /// again. Strangers' destinations in adopted services must stay.
    pub fn look_at_adopted(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let adopted = &self.ours.table.adopted;
        let services = services.into_iter();
        let adopted: Vec<_> = services.filter(|key| adopted.contains(key)).collect();
        self.doubt(adopted);
    }

    /// Whether a service is ours, or was ours at any time within the last
    /// [`LATELY`].
    pub fn is_served_lately(&self, service: &ServiceKey, now: Duration) -> bool {
        let left = self.left_at.get(service);
        self.ours.table.service(service) || left.is_some_and(|left| now < *left + LATELY)
    }

    /// Makes the next round read the given services again.
    pub fn look_at(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.doubt(services);
    }

    /// Returns the addresses that the agent added to interfaces, each with its
    /// interface. The result includes addresses that the agent may have added
    /// just before it died.
    pub fn our_addresses(&self) -> BTreeMap<IpAddr, String> {
        let mut ours = self.ours.addresses.clone();
        ours.extend(self.ours.intent.addresses.iter().cloned());
        ours
    }

    /// Returns a number that grows with each change of the addresses that are
    /// ours.
    pub fn address_changes(&self) -> u64 {
        self.address_changes
    }

    /// Makes the round plan the given services without reading them again.
    pub fn in_force_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let mut services = services.into_iter().peekable();
        self.tuned.is_due |= services.peek().is_some();
        self.dirty.extend(services);
    }

    /// Makes the round plan services in which only the weights changed. A round
    /// for new weights does not read the services again and does not check the
    /// sysctls.
    pub fn weights_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.dirty.extend(services);
    }

    /// Returns the kernel's table as last read, with the agent's changes since
    /// then. Returns `None` before the first reading.
    pub fn believed(&self) -> Option<&ActualTable> {
        self.believed.as_ref()
    }

    /// Returns what the rounds wrote to this host since the last call.
    pub fn take_writes(&mut self) -> Writes {
        std::mem::take(&mut self.writes)
    }

    /// Returns the sysctls of ours, each with the value to which this run set
    /// it. The value is `None` if this run has not looked at the sysctl yet.
    pub fn sysctls_made(&self) -> BTreeMap<String, Option<String>> {
        let names = self.ours.sysctls.keys();
        let made = |name: &String| self.tuned.made.get(name).cloned();
        names.map(|name| (name.clone(), made(name))).collect()
    }

    /// Returns the timeouts of connections that are ours, or `None` if this run
    /// has not looked at them yet. 0 is a timeout that is not ours.
    pub fn timeouts_made(&self) -> Option<Timeouts> {
        let before = self.ours.timeouts;
        let of = |before, wanted| if before == 0 { 0 } else { wanted };
        self.timeouts_settled.map(|wanted| Timeouts {
            tcp: of(before.tcp, wanted.tcp),
            tcp_fin: of(before.tcp_fin, wanted.tcp_fin),
            udp: of(before.udp, wanted.udp),
        })
    }

    /// Returns the entries that are ours, and the intent in the journal.
    pub fn ours(&self) -> &Remembered {
        &self.ours
    }

    /// Returns the services that the next round plans, or `None` if it plans
    /// all services.
    pub fn dirty(&self) -> Option<&BTreeSet<ServiceKey>> {
        (!self.everything_is_dirty).then_some(&self.dirty)
    }

    /// Returns the kernel's entry for a service, and whether the service is
    /// ours.
    pub fn found(&self, service: &ServiceKey) -> Found<'_> {
        Found {
            service: self.believed.as_ref().and_then(|table| table.get(service)),
            is_ours: self.ours.table.service(service),
        }
    }

    /// Whether an entry is ours and in the believed table. The entry is the
    /// service itself or, if `server` is given, a server of the service.
    pub fn stands(&self, service: &ServiceKey, server: Option<&DestinationKey>) -> bool {
        let ours = &self.ours.table;
        let found = self.believed.as_ref().and_then(|table| table.get(service));
        found.is_some_and(|found| match server {
            None => ours.service(service),
            Some(server) => {
                ours.destination(service, server) && found.destinations.contains_key(server)
            }
        })
    }

    /// Compares a reading of the kernel's table with the believed table. The
    /// next round reads a differing service again if the service is ours or was
    /// left to a stranger. If `reading` is complete, the next round plans
    /// everything. Returns whether a round is necessary.
    ///
    /// `is_old` says that the reading began before the last round ended. An old
    /// reading that differs in very many services is ignored, because the last
    /// round probably changed these services.
    pub fn hint(&mut self, reading: &Reading, is_old: bool) -> bool {
        let Some(believed) = &self.believed else {
            return false;
        };
        let concerns =
            |key: &ServiceKey| self.ours.table.service(key) || self.left.contains_key(key);
        let contradicted: BTreeSet<_> = reading
            .contradictions(believed)
            .into_iter()
            .filter(concerns)
            .collect();
        if is_old && contradicted.len() > MOST_SINGLE_READINGS {
            return false;
        }
        let is_complete = matches!(reading, Reading::Table(_));
        self.everything_is_dirty |= is_complete;
        let is_reason = is_complete || !contradicted.is_empty();
        self.doubt(contradicted);
        is_reason
    }

    pub(super) fn doubt(&mut self, keys: impl IntoIterator<Item = ServiceKey>) {
        if let Doubt::Services(doubtful) = &mut self.doubt {
            doubtful.extend(keys);
        }
    }

    /// True if this host has no entries of ours any longer, and the journal has
    /// recorded their removal. Sysctls of ours do not count as entries here.
    pub fn is_clear(&self) -> bool {
        let ours = &self.ours;
        ours.table.services.is_empty()
            && ours.addresses.is_empty()
            && ours.device.is_none()
            && ours.timeouts == Timeouts::default()
            && self.unsettled.is_empty()
    }

    /// Returns when the next failed operation is due for another attempt.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.retry.next_deadline()
    }

    /// Returns when the agent must check the sysctls again.
    pub fn next_look(&self) -> Option<Duration> {
        self.tuned.next_look()
    }

    pub(super) fn failed(
        &mut self,
        subject: Subject,
        op: Option<Op>,
        message: String,
        now: Duration,
    ) {
        if self.failures.get(&subject).map(|failed| &failed.message) != Some(&message) {
            tracing::warn!("{message}");
        }
        self.retry.failed(subject, now);
        self.failures.insert(subject, Failed { op, message });
    }

    pub(super) fn own(&mut self, entry: Entry) {
        self.change(Change::Own(entry));
    }

    /// Forgets an entry of ours, or a service of ours with all its
    /// destinations.
    pub(super) fn disown(&mut self, entry: Entry) {
        self.change(Change::Disown(entry));
    }

    fn change(&mut self, change: Change) {
        let (Change::Own(entry) | Change::Disown(entry)) = &change;
        self.address_changes += u64::from(matches!(entry, Entry::Address(..)));
        self.writes.changed_hands(entry);
        self.ours.apply(&change);
        self.unsettled.add(change);
    }

    /// Forgets that a service was adopted, because the agent has made the
    /// service itself by now.
    pub(super) fn made(&mut self, service: ServiceKey) {
        if self.ours.table.adopted.contains(&service) {
            self.disown(Entry::Adopted(service));
        }
    }

    /// Records operations that the kernel carried out. Consecutive operations
    /// on one service share a look-up, because there may be tens of thousands
    /// of operations.
    pub(super) fn done(&mut self, ops: &[&Op], now: Duration) {
        self.writes.operations(ops, self.believed.as_ref());
        let deleted = ops.iter().filter(|op| matches!(op, Op::DeleteService(_)));
        self.left_at.extend(deleted.map(|op| (op.service(), now)));
        if !self.ours.table.adopted.is_empty() {
            let made = ops.iter().filter(|op| matches!(op, Op::NewService(..)));
            made.for_each(|op| self.made(op.service()));
        }
        self.ours.table.acknowledge(ops);
        let changes = ops.iter().filter_map(|op| changed_hands(op));
        self.unsettled.extend(changes, ops.len());
        for run in ops.chunk_by(|a, b| a.service() == b.service()) {
            let service = run[0].service();
            if !self.failures.is_empty() {
                run.iter().for_each(|op| self.succeeded(subject(op)));
            }
            self.note_content(service, run);
            for op in run {
                if self.drifted.remove(&(service, op.destination())) {
                    self.repairs.note(op.to_string());
                }
            }
        }
    }

    fn note_content(&mut self, service: ServiceKey, run: &[&Op]) {
        let Some(table) = &mut self.believed else {
            return;
        };
        let is_whole = |op: &&&Op| matches!(op, Op::NewService(..) | Op::DeleteService(_));
        let whole = run.iter().filter(is_whole).count();
        run.iter()
            .filter(is_whole)
            .for_each(|op| op.apply_to(table));
        if whole < run.len()
            && let Some(found) = table.get_mut(&service)
        {
            found.destinations.reserve(run.len() - whole);
            run.iter().for_each(|op| op.apply_within(found));
        }
    }

    pub(super) fn succeeded(&mut self, subject: Subject) {
        self.failures.remove(&subject);
        self.retry.succeeded(subject);
    }

    /// Forgets the failures of operations that are no longer planned, because
    /// they belong to an old wanted state.
    pub(super) fn forget_old_wishes(&mut self, plan: &Plan) {
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

    /// Makes the next round plan the services of the given operations again.
    pub(super) fn postpone(&mut self, ops: &[Op]) {
        self.unfinished.extend(ops.iter().map(Op::service));
    }

    /// Ends a round. Forgets each failed operation that was due for another
    /// attempt but was not tried. Makes the next round plan the other failed
    /// services again.
    pub(super) fn end_round(&mut self, now: Duration) {
        self.retry.expire(now);
        self.left_at.retain(|_, left| now < *left + LATELY);
        let retry = &self.retry;
        self.failures.retain(|subject, _| retry.waits(*subject));
        let failed = self.failures.keys().filter_map(|subject| match subject {
            Subject::Service(service) | Subject::Destination(service, _) => Some(*service),
            _ => None,
        });
        self.unfinished.extend(failed);
        let unfinished = &self.unfinished;
        self.drifted
            .retain(|(service, _)| unfinished.contains(service));
        self.repairs.tell(now);
    }

    /// Whether an operation may be tried at `now`. While the creation of a
    /// service waits for another attempt, the service's destinations wait, too.
    pub(super) fn may_try(&self, op: &Op, now: Duration) -> bool {
        let service = op.service();
        self.retry.allows(subject(op), now)
            && (self.retry.allows(Subject::Service(service), now) || self.has(&service))
    }

    /// Whether the believed table has a service.
    pub(super) fn has(&self, service: &ServiceKey) -> bool {
        let table = self.believed.as_ref();
        table.is_some_and(|table| table.contains_key(service))
    }
}

/// Returns the change of ownership that an operation causes, if any.
fn changed_hands(op: &Op) -> Option<Change> {
    match *op {
        Op::NewService(service, _) => Some(Change::Own(Entry::Service(service))),
        Op::NewDestination(service, key, _) => Some(Change::Own(Entry::Destination(service, key))),
        Op::DeleteDestination(service, key) => {
            Some(Change::Disown(Entry::Destination(service, key)))
        }
        Op::DeleteService(service) => Some(Change::Disown(Entry::Service(service))),
        Op::SetService(..) | Op::SetDestination(..) => None,
    }
}
