//! What is known between rounds.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use ipvs::{ActualTable, DestinationKey, OnConflict, Op, Plan, ServiceKey, Timeouts};

use super::{
    place::Segment,
    read::{Doubt, Drifted, MOST_SINGLE_READINGS},
    repairs::Repairs,
    subject,
    sysctls::Tuned,
};
use crate::{
    act::retry::{Retry, Subject},
    decide::{addresses::AddressPlan, desired::Addresses, serving::Found},
    disk::journal::{Change, Entry, Remembered},
    host::reading::Reading,
};

/// What is known between rounds.
#[derive(Debug, Default)]
pub struct State {
    /// What is ours, and the intent that stands in the journal.
    pub(super) ours: Remembered,
    /// The last reading plus what was acknowledged since; none when nothing is
    /// known.
    pub(super) believed: Option<ActualTable>,
    /// What of it is to be read again.
    pub(super) doubt: Doubt,
    /// The services to be planned: what is wanted of them, or what is known of
    /// them, has changed.
    pub(super) dirty: BTreeSet<ServiceKey>,
    /// Everything is to be planned.
    pub(super) everything_is_dirty: bool,
    /// The services that are not as they are wanted after the last round.
    pub(super) unfinished: BTreeSet<ServiceKey>,
    /// What of ours somebody else changed, and is to be put right.
    pub(super) drifted: BTreeSet<Drifted>,
    pub(super) repairs: Repairs,
    /// Strangers' destinations in services of ours.
    pub(super) strangers: BTreeMap<ServiceKey, Vec<DestinationKey>>,
    /// Wanted entries that are somebody else's, and left so.
    pub(super) left: BTreeMap<ServiceKey, Vec<Option<DestinationKey>>>,
    /// Services whose destinations stand in another order than the wanted one.
    pub(super) misordered: BTreeSet<ServiceKey>,
    /// What the addresses were when they were last looked at, and for what.
    pub(super) placed: AddressPlan,
    pub(super) placed_for: Option<Addresses>,
    pub(super) segment: Segment,
    /// Not all of it could be done.
    pub(super) are_addresses_unfinished: bool,
    /// What was last planned for strangers' entries.
    pub(super) on_conflict: OnConflict,
    /// The wish that the timeouts were last made to fulfil.
    pub(super) timeouts_settled: Option<Timeouts>,
    /// The wish that the kernel refused.
    pub(super) timeouts_refused: Option<Timeouts>,
    /// What they are, read for this round.
    pub(super) timeouts_found: Option<Timeouts>,
    /// What is known of the sysctls.
    pub(super) tuned: Tuned,
    /// What failed and waits, with the operation that failed where it was one.
    pub(super) failures: BTreeMap<Subject, Failed>,
    pub(super) retry: Retry,
    /// It is not known what of the intent was done.
    pub(super) in_doubt: bool,
    /// The removals of the last round that the kernel acknowledged.
    pub(super) removed: Vec<Op>,
    /// What changed hands and does not stand in the journal yet.
    pub(super) unsettled: Vec<Change>,
}

#[derive(Clone, Debug)]
pub(super) struct Failed {
    op: Option<Op>,
    pub(super) message: String,
}

impl State {
    /// The state of an agent that found this in its journal.
    pub fn new(remembered: Remembered) -> Self {
        Self {
            in_doubt: !remembered.intent.is_empty(),
            ours: remembered,
            ..Self::default()
        }
    }

    /// Takes in a journal that could not be opened before: what has changed
    /// hands since stands behind what it remembers.
    pub fn remember(&mut self, remembered: Remembered) {
        let since = std::mem::replace(self, Self::new(remembered));
        for change in since.unsettled {
            match change {
                // Without a journal none was set or made.
                Change::Own(Entry::Timeouts(_) | Entry::Sysctl(..) | Entry::Device(_))
                | Change::Disown(Entry::Timeouts(_) | Entry::Sysctl(..) | Entry::Device(_)) => {}
                Change::Own(entry) => self.own(entry),
                Change::Disown(entry) => self.disown(entry),
            }
        }
        self.segment = since.segment;
        self.removed = since.removed;
        self.repairs = since.repairs;
    }

    /// Has the next round read the kernel's table again.
    pub fn distrust(&mut self) {
        self.doubt = Doubt::Everything;
    }

    /// Has the next round plan these services. What is believed of those that
    /// are not ours may be old: it is read again.
    pub fn wish_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let before = self.believed.as_ref();
        let is_believed = |key: &ServiceKey| before.is_some_and(|table| table.contains_key(key));
        let changed: BTreeSet<_> = services.into_iter().collect();
        let strangers = changed.iter().filter(|key| !self.ours.table.service(key));
        let doubtful: Vec<_> = strangers.filter(|key| is_believed(key)).copied().collect();
        self.doubt(doubtful);
        self.tuned.is_due |= !changed.is_empty();
        self.dirty.extend(changed);
    }

    /// Has the next round read these services again that are not ours: readings
    /// tell nothing of others' that came since the first.
    pub fn look_at_strangers(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let services = services.into_iter();
        let strangers: Vec<_> = services
            .filter(|key| !self.ours.table.service(key))
            .collect();
        self.doubt(strangers);
    }

    /// Has the next reading look at these services again, whosever they are.
    pub fn look_at(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.doubt(services);
    }

    /// The addresses that we put on interfaces, or may have put there just
    /// before the agent died, each with its interface.
    pub fn our_addresses(&self) -> BTreeMap<IpAddr, String> {
        let mut ours = self.ours.addresses.clone();
        ours.extend(self.ours.intent.addresses.iter().cloned());
        ours
    }

    /// Has the round plan these services, of which the kernel's part is known.
    pub fn in_force_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        let mut services = services.into_iter().peekable();
        self.tuned.is_due |= services.peek().is_some();
        self.dirty.extend(services);
    }

    /// Has the round plan these services, of which the kernel's part is known
    /// and nothing but weights changed.
    pub fn weights_changed(&mut self, services: impl IntoIterator<Item = ServiceKey>) {
        self.dirty.extend(services);
    }

    /// The kernel's table as it was read, and changed since; none before the
    /// first reading.
    pub fn believed(&self) -> Option<&ActualTable> {
        self.believed.as_ref()
    }

    /// What is ours.
    pub fn ours(&self) -> &Remembered {
        &self.ours
    }

    /// The services that the next round plans; none if it plans all.
    pub fn dirty(&self) -> Option<&BTreeSet<ServiceKey>> {
        (!self.everything_is_dirty).then_some(&self.dirty)
    }

    /// The removals of the last round that the kernel acknowledged.
    pub fn removed(&self) -> &[Op] {
        &self.removed
    }

    /// What the kernel has of a service.
    pub fn found(&self, service: &ServiceKey) -> Found<'_> {
        Found {
            service: self.believed.as_ref().and_then(|table| table.get(service)),
            is_ours: self.ours.table.service(service),
        }
    }

    /// Takes in a reading of the kernel's table as a hint: what contradicts
    /// what is believed of our services, or of those that we would have, is
    /// read again by the next round. After a reading of everything the next
    /// round plans everything. Whether there is reason for a round.
    ///
    /// `is_old` says that the reading began before the last round ended. Where
    /// it contradicts much, that round did it; the next reading will tell.
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

    /// Whether nothing on this host is ours but sysctls, and the journal says so.
    pub fn is_clear(&self) -> bool {
        let ours = &self.ours;
        ours.table.services.is_empty()
            && ours.addresses.is_empty()
            && ours.device.is_none()
            && ours.timeouts == Timeouts::default()
            && self.unsettled.is_empty()
    }

    /// When something that failed is due again.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.retry.next_deadline()
    }

    /// When the sysctls are to be looked at again.
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

    /// A service with all of its destinations.
    pub(super) fn disown(&mut self, entry: Entry) {
        self.change(Change::Disown(entry));
    }

    fn change(&mut self, change: Change) {
        self.ours.apply(&change);
        self.unsettled.push(change);
    }

    /// Notes operations that the kernel did. Those of one service, which come
    /// one after the other, are looked up once: there may be tens of thousands.
    pub(super) fn done(&mut self, ops: &[&Op]) {
        self.ours.table.acknowledge(ops);
        let removed = ops.iter().filter(|op| op.removes());
        self.removed.extend(removed.map(|op| Op::clone(op)));
        self.unsettled.reserve(ops.len());
        self.unsettled
            .extend(ops.iter().filter_map(|op| changed_hands(op)));
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

    /// Keeps of a plan what is to be told, in place of what was told of the
    /// same services before. All that there is if `services` is none.
    pub(super) fn keep_findings(&mut self, plan: &Plan, services: Option<&BTreeSet<ServiceKey>>) {
        match services {
            None => {
                self.strangers.clear();
                self.left.clear();
                self.misordered.clear();
            }
            Some(services) => {
                for key in services {
                    self.strangers.remove(key);
                    self.left.remove(key);
                    self.misordered.remove(key);
                }
            }
        }
        for (service, destination) in &plan.strangers {
            self.strangers
                .entry(*service)
                .or_default()
                .push(*destination);
        }
        for (service, destination) in &plan.left {
            self.left.entry(*service).or_default().push(*destination);
        }
        self.misordered.extend(&plan.misordered);
    }

    /// Whether a wanted service is somebody else's, and left so.
    pub(super) fn is_left(&self, service: &ServiceKey) -> bool {
        let left = self.left.get(service);
        left.is_some_and(|left| left.contains(&None))
    }

    pub(super) fn succeeded(&mut self, subject: Subject) {
        self.failures.remove(&subject);
        self.retry.succeeded(subject);
    }

    /// Forgets the failure of every operation that is not planned any more:
    /// what was wrong with an old wish says nothing about a new one.
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

    /// Has the next round plan the services of these operations again.
    pub(super) fn postpone(&mut self, ops: &[Op]) {
        self.unfinished.extend(ops.iter().map(Op::service));
    }

    /// Forgets what was due in this round and was not tried, and has the next
    /// one plan again what failed.
    pub(super) fn end_round(&mut self, now: Duration) {
        self.retry.expire(now);
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
        self.repairs.tell();
    }

    /// Whether an operation need not wait. The destinations of a service that
    /// does not exist wait with it.
    pub(super) fn may_try(&self, op: &Op, now: Duration) -> bool {
        let service = op.service();
        self.retry.allows(subject(op), now)
            && (self.retry.allows(Subject::Service(service), now) || self.has(&service))
    }

    /// Whether the kernel has a service, as far as is known.
    pub(super) fn has(&self, service: &ServiceKey) -> bool {
        let table = self.believed.as_ref();
        table.is_some_and(|table| table.contains_key(service))
    }
}

/// What an operation makes ours, or takes away.
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
