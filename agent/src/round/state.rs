//! What is known between rounds.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipvs::{ActualTable, Op, Owned, Plan, ServiceConfig, ServiceKey};

use super::subject;
use crate::{
    guard::Guard,
    journal::{Change, Entry, Intent, Remembered},
    retry::{Retry, Subject},
};

/// What is known between rounds.
#[derive(Debug, Default)]
pub struct State {
    /// What is ours in the IPVS table.
    pub(super) owned: Owned,
    /// The addresses that we put on interfaces.
    pub(super) addresses: BTreeMap<IpAddr, String>,
    /// The last reading plus what was acknowledged since; none when it has to
    /// be read again.
    pub(super) believed: Option<ActualTable>,
    /// The kernel contradicted what is believed.
    pub(super) stale: bool,
    /// What failed and waits, with the operation that failed where it was one.
    pub(super) failures: BTreeMap<Subject, Failed>,
    pub(super) retry: Retry,
    /// The intent that stands in the journal.
    pub(super) intent: Intent,
    /// It is not known what of the intent was done.
    pub(super) in_doubt: bool,
    /// What may be removed.
    pub(super) guard: Guard,
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

    /// Whether a reading of the kernel's services contradicts what is believed
    /// of those that are ours.
    pub fn contradicts(&self, services: &BTreeMap<ServiceKey, ServiceConfig>) -> bool {
        let believed = self.believed.iter().flatten();
        believed
            .filter(|(key, _)| self.owned.service(key))
            .any(|(key, service)| services.get(key) != Some(&service.config))
    }

    /// When something that failed is due again.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.retry.next_deadline()
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
        match &entry {
            Entry::Service(service) => self.owned.add(*service, None),
            Entry::Destination(service, destination) => {
                self.owned.add(*service, Some(*destination));
            }
            Entry::Address(address, interface) => {
                self.addresses.insert(*address, interface.clone());
            }
        }
        self.unsettled.push(Change::Own(entry));
    }

    pub(super) fn disown(&mut self, entry: Entry) {
        match &entry {
            Entry::Service(service) => self.owned.remove(service, None),
            Entry::Destination(service, destination) => {
                self.owned.remove(service, Some(destination));
            }
            Entry::Address(address, _) => {
                self.addresses.remove(address);
            }
        }
        self.unsettled.push(Change::Disown(entry));
    }

    pub(super) fn disown_service(&mut self, service: ServiceKey) {
        let destinations = self.owned.services.get(&service).cloned();
        for destination in destinations.into_iter().flatten() {
            self.disown(Entry::Destination(service, destination));
        }
        self.disown(Entry::Service(service));
    }

    /// Notes an operation that the kernel did.
    pub(super) fn done(&mut self, op: &Op) {
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

    /// Forgets what was due in this round and was not tried.
    pub(super) fn forget_untried(&mut self, now: Duration) {
        self.retry.expire(now);
        let retry = &self.retry;
        self.failures.retain(|subject, _| retry.waits(*subject));
    }

    /// Whether an operation need not wait. The destinations of a service that
    /// does not exist wait with it.
    pub(super) fn may_try(&self, op: &Op, now: Duration) -> bool {
        let service = op.service();
        self.retry.allows(subject(op), now)
            && (self.has(&service) || self.retry.allows(Subject::Service(service), now))
    }

    /// Whether the kernel has a service, as far as is known.
    pub(super) fn has(&self, service: &ServiceKey) -> bool {
        let table = self.believed.as_ref();
        table.is_some_and(|table| table.contains_key(service))
    }
}
