//! Tests the agent with random sequences of events and faults. Once all faults
//! are healed, the host matches the wish, strangers' entries are unchanged, and
//! the disk records which entries are ours.
//!
//! The test decides the owner of an entry without looking at the plan. An entry
//! that another process creates usually belongs to a stranger. If an entry with
//! the same key was ours, the new entry may count as ours. Once a stranger's
//! entry is wanted, the agent must adopt it. The owner of an adopted entry is
//! unclear until it is certain that the disk has the record of the adoption. A
//! virtual address is never adopted.
//!
//! The test runs the real journal on a modelled disk. When the agent dies, the
//! modelled disk loses, keeps or tears unsynced writes, while the kernel's
//! table survives. A real disk loses writes only in a power failure, which also
//! clears the kernel's table.

mod calm;
mod disk;
mod steps;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

use ipvs::{DestinationKey, Errno, Family};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
    test_runner::RngAlgorithm,
};

use self::{
    calm::wanted,
    disk::{DiskJournal, MayHold},
    steps::{Death, Deed, Fault, Step, step},
};
use super::*;
use crate::{
    decide::ours::Intent,
    fixtures::{Effect, broken, config, disk::Fate, spelled, weight},
};

/// An IPVS scheduler that only strangers' services use in this test.
const THEIR_SCHEDULER: &str = "sed";
const THEIR_WEIGHT: u32 = 900;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Ours,
    Theirs,
    /// The owner of the entry is unclear. Either the agent may have adopted a
    /// stranger's entry, or an entry with the same key was ours.
    Unclear,
    /// Another process changed an entry of ours before the agent could record
    /// the entry as ours.
    Lost,
}

struct Story {
    world: ModelWorld,
    disk: MayHold,
    /// The number of reboots of the host so far.
    boots: usize,
    agent: Agent,
    wish: Desired,
    holding: Holding,
    /// The owner of every entry on the host, except the host's own addresses.
    whose: BTreeMap<Entry, Whose>,
    /// The services in the kernel that strangers created.
    strange: BTreeSet<ServiceKey>,
    /// The services in the kernel that other processes created when the owner
    /// was unclear. The agent may have adopted them.
    maybe_strange: BTreeSet<ServiceKey>,
    /// Whether an agent ended before it could record all entries that became
    /// ours.
    forgetful: bool,
}

impl Story {
    fn new() -> Self {
        let world = ModelWorld::new();
        let disk = MayHold::nothing();
        let opened = DiskJournal::open(&world, &disk, "0");
        let (journal, found) = opened.expect("the disk works");
        Self {
            agent: Agent::with(&world, Box::new(journal), found),
            world,
            disk,
            boots: 0,
            wish: Desired::default(),
            holding: Holding::Take,
            whose: BTreeMap::new(),
            strange: BTreeSet::new(),
            maybe_strange: BTreeSet::new(),
            forgetful: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wish(wish, holding) => (self.wish, self.holding) = (wish.0, holding),
            Step::Round(later, death) => self.round(later, death.as_ref()),
            Step::Restart => self.restart(),
            Step::Reboot(fates) => self.reboot(&fates),
            Step::Distrust => self.agent.state.distrust(),
            Step::Stranger(deed) => self.stranger(&deed),
            Step::Fault(fault) => self.fault(fault),
            Step::Heal => self.heal(),
            Step::Calm => self.check(),
        }
    }

    fn round(&mut self, later: Duration, death: Option<&Death>) {
        for entry in wanted(&self.wish) {
            if let Some(whose @ Whose::Theirs) = self.whose.get_mut(&entry) {
                *whose = Whose::Unclear;
            }
        }
        self.agent.now += later;
        self.world.parts().life = death.map(|death| death.calls);
        let forgets = self.has_unwritten();
        let _ = self.agent.try_round(&self.wish, self.holding);
        let died = self.world.parts().life.take() == Some(0);
        if let (true, Some(death)) = (died, death) {
            self.forgetful |= forgets || self.is_disk_full();
            self.bury(death);
        }
        self.audit();
    }

    /// Starts the next run of the agent after a death. Before that, one more
    /// run opens the journal for each item of `death.openings`. Each of these
    /// runs may die while it opens the journal.
    fn bury(&mut self, death: &Death) {
        self.world.parts().file.room = None;
        self.world.parts().file.crash(&death.fates);
        for calls in &death.openings {
            self.world.parts().life = Some(*calls);
            let _ = DiskJournal::open(&self.world, &self.disk, &self.boots.to_string());
            let died = self.world.parts().life.take() == Some(0);
            if died {
                self.world.parts().file.crash(&death.fates);
            }
        }
        self.start();
    }

    fn start(&mut self) {
        let opened = DiskJournal::open(&self.world, &self.disk, &self.boots.to_string());
        let (journal, found) = opened.expect("the disk works");
        let now = self.agent.now;
        self.agent = Agent::with(&self.world, Box::new(journal), found);
        self.agent.now = now;
    }

    /// Stops the agent cleanly and starts the next run of the agent.
    fn restart(&mut self) {
        self.forgetful |= self.has_unwritten();
        self.agent.journal = Box::new(self.world.clone());
        self.world.parts().file.room = None;
        self.start();
    }

    /// Simulates a power failure, in which the host loses the state of its
    /// kernel.
    fn reboot(&mut self, fates: &[Fate]) {
        let fresh = ModelWorld::new().parts().interfaces.clone();
        self.world.parts().interfaces = fresh;
        self.world.parts().kernel.table.clear();
        self.whose.clear();
        self.strange.clear();
        self.maybe_strange.clear();
        self.forgetful = false;
        self.boots += 1;
        self.disk.reboot();
        self.bury(&Death {
            calls: 0,
            fates: fates.to_vec(),
            openings: Vec::new(),
        });
    }

    fn is_disk_full(&self) -> bool {
        self.world.parts().file.room == Some(0)
    }

    /// Whether the agent has changes of ownership that the disk refused.
    fn has_unwritten(&self) -> bool {
        self.agent.state.failures.contains_key(&Subject::Journal)
    }

    /// Checks that the agent changed only entries that it may change. Then
    /// updates `whose` for the changed entries.
    fn audit(&mut self) {
        let effects = std::mem::take(&mut self.world.parts().log);
        for effect in effects {
            match effect {
                Effect::Kernel(op, None) => self.audit_op(&op),
                Effect::Added(address, interface) => {
                    let entry = Entry::Address(address, interface);
                    self.whose.entry(entry).or_insert(Whose::Ours);
                }
                Effect::Removed(address, interface) => {
                    let was = self.whose.remove(&Entry::Address(address, interface));
                    assert_ne!(was, None, "{address} is the host's own");
                    assert_ne!(was, Some(Whose::Theirs), "{address} is a stranger's");
                }
                Effect::Kernel(_, Some(_))
                | Effect::Timeouts(_)
                | Effect::Sysctl(..)
                | Effect::Made(_)
                | Effect::Unmade(_)
                | Effect::Intended
                | Effect::Settled
                | Effect::Remembered => {}
            }
        }
        let unclear = |(entry, whose): (&Entry, &Whose)| {
            let unclear = matches!(whose, Whose::Unclear | Whose::Lost);
            (unclear && !matches!(entry, Entry::Address(..))).then(|| entry.clone())
        };
        let unclear: Vec<_> = self.whose.iter().filter_map(unclear).collect();
        for entry in unclear {
            if self.whose(&entry) == Whose::Ours {
                self.whose.insert(entry, Whose::Ours);
            }
        }
        self.note_left_services();
    }

    fn audit_op(&mut self, op: &Op) {
        let entry = match op.destination() {
            Some(destination) => Entry::Destination(op.service(), destination),
            None => Entry::Service(op.service()),
        };
        if op.creates() {
            self.whose.insert(entry, Whose::Ours);
            return;
        }
        assert_ne!(
            self.whose[&entry],
            Whose::Theirs,
            "it is a stranger's: {op}"
        );
        if op.removes() {
            if let Entry::Service(service) = entry
                && self.strange.remove(&service)
            {
                self.assert_nothing_in_it_is_theirs(&service);
            }
            self.forget(&entry);
        }
    }

    fn assert_nothing_in_it_is_theirs(&self, service: &ServiceKey) {
        for (entry, whose) in &self.whose {
            let is_in = matches!(entry, Entry::Destination(of, _) if of == service);
            assert!(
                !is_in || *whose != Whose::Theirs,
                "{service} is deleted with a stranger's {entry:?} in it"
            );
        }
    }

    /// Finds the adopted services that the agent gave up, and marks them as
    /// lost. The agent gives up an adopted service if strangers have
    /// destinations in the service.
    fn note_left_services(&mut self) {
        let ours = &self.agent.state.ours.table;
        let is_left = |service: &ServiceKey| {
            let table = &self.world.parts().kernel.table;
            let may_be_adopted =
                self.strange.contains(service) || self.maybe_strange.contains(service);
            may_be_adopted
                && !ours.service(service)
                && table
                    .get(service)
                    .is_some_and(|found| !found.destinations.is_empty())
        };
        let left: Vec<_> = self
            .whose
            .keys()
            .filter(|entry| matches!(entry, Entry::Service(service) if is_left(service)))
            .cloned()
            .collect();
        for entry in left {
            if self.whose[&entry] != Whose::Theirs {
                self.whose.insert(entry, Whose::Lost);
            }
        }
    }

    fn forget(&mut self, gone: &Entry) {
        if let Entry::Service(service) = gone {
            self.strange.remove(service);
            self.maybe_strange.remove(service);
        }
        self.whose.retain(|entry, _| match (gone, entry) {
            (Entry::Service(service), Entry::Destination(of, _)) => service != of,
            _ => entry != gone,
        });
    }

    /// Returns the owner of an entry that another process creates now.
    fn whose(&self, entry: &Entry) -> Whose {
        let disks = self.disk.all();
        let on_disk = disks.iter().all(|disk| disk.owned.contains(entry));
        let not_on_disk = disks.iter().all(|disk| !disk.owned.contains(entry));
        let in_mind = match entry {
            Entry::Service(service) => self.agent.state.ours.table.service(service),
            Entry::Destination(service, key) => {
                self.agent.state.ours.table.destination(service, key)
            }
            Entry::Address(address, on) => self.agent.state.ours.addresses.get(address) == Some(on),
            _ => false,
        };
        let intended = |intent: &Intent| match entry {
            Entry::Address(address, on) => intent.addresses.contains(&(*address, on.clone())),
            // In this test, no stranger's service or destination has the configuration of an
            // entry that the agent intends to create.
            _ => false,
        };
        let intended = intended(&self.agent.state.ours.intent)
            || disks.iter().any(|disk| intended(&disk.intent));
        match in_mind {
            true if on_disk && !self.is_known_to_be_gone(entry) => Whose::Ours,
            false if not_on_disk && !intended => Whose::Theirs,
            _ => Whose::Unclear,
        }
    }

    /// Whether the agent knows that the entry is no longer in the kernel. The
    /// agent may then forget the entry.
    fn is_known_to_be_gone(&self, entry: &Entry) -> bool {
        let Some(table) = &self.agent.state.believed else {
            return false;
        };
        match entry {
            Entry::Service(service) => !table.contains_key(service),
            Entry::Destination(service, key) => !table
                .get(service)
                .is_some_and(|found| found.destinations.contains_key(key)),
            _ => false,
        }
    }

    fn stranger(&mut self, deed: &Deed) {
        let (Deed::Make(entry) | Deed::Change(entry) | Deed::Remove(entry)) = deed;
        let there = self.whose.contains_key(entry);
        let whose = self.whose(entry);
        if matches!(deed, Deed::Make(_)) == there || !self.can(deed) {
            return;
        }
        match deed {
            Deed::Make(_) => {
                match (entry, whose) {
                    (Entry::Service(service), Whose::Theirs) => self.strange.insert(*service),
                    (Entry::Service(service), Whose::Unclear) => {
                        self.maybe_strange.insert(*service)
                    }
                    _ => false,
                };
                self.whose.insert(entry.clone(), whose);
            }
            Deed::Change(_) => self.lose(entry, whose),
            Deed::Remove(_) => self.forget(entry),
        }
    }

    /// Carries out a change by another process, and returns whether the change
    /// was possible.
    fn can(&self, deed: &Deed) -> bool {
        let (Deed::Make(entry) | Deed::Change(entry) | Deed::Remove(entry)) = deed;
        if let Entry::Address(address, on) = entry {
            match deed {
                Deed::Make(_) => self.world.put(*address, on),
                Deed::Change(_) => return false,
                Deed::Remove(_) => self.world.take(*address, on),
            }
            return true;
        }
        let table = &mut self.world.parts().kernel.table;
        match (deed, entry) {
            (Deed::Remove(_), Entry::Service(key)) => table.remove(key).is_some(),
            (_, Entry::Service(key)) => {
                let theirs = service(THEIR_SCHEDULER, &[]);
                table.entry(*key).or_insert(theirs).config = config(THEIR_SCHEDULER);
                true
            }
            (_, Entry::Destination(of, key)) => {
                let Some(service) = table.get_mut(of) else {
                    return false;
                };
                match deed {
                    Deed::Remove(_) => service.destinations.shift_remove(key),
                    _ => service.destinations.insert(*key, weight(THEIR_WEIGHT)),
                };
                true
            }
            _ => false,
        }
    }

    /// Marks an entry as lost if another process changed the entry before the
    /// agent recorded it as ours. The agent recognizes an unrecorded entry only
    /// by its configuration. The agent recognizes a destination only if it also
    /// recognizes the destination's service.
    fn lose(&mut self, changed: &Entry, now: Whose) {
        if now == Whose::Ours {
            return;
        }
        for (entry, whose) in &mut self.whose {
            let within = match (changed, entry) {
                (Entry::Service(service), Entry::Destination(of, _)) => service == of,
                (changed, entry) => changed == entry,
            };
            if within && *whose == Whose::Ours {
                *whose = Whose::Lost;
            }
        }
    }

    fn fault(&mut self, fault: Fault) {
        let mut parts = self.world.parts();
        match fault {
            Fault::Refusals(one_in, errno) => {
                let mut asked = 0;
                parts.kernel.fail_with = Some(Box::new(move |_| {
                    asked += 1;
                    (asked % one_in == 0).then_some(errno)
                }));
            }
            Fault::Kernel => parts.kernel.broken = Some(broken),
            Fault::Replies => parts.kernel.lose_replies = true,
            Fault::Interfaces => parts.links_broken = true,
            Fault::Addresses => parts.addresses_refused = true,
            Fault::Disk(room) => parts.file.room = Some(room),
        }
    }

    fn heal(&mut self) {
        let mut parts = self.world.parts();
        parts.kernel.fail_with = None;
        parts.kernel.broken = None;
        parts.kernel.lose_replies = false;
        parts.links_broken = false;
        parts.addresses_refused = false;
        parts.file.room = None;
    }
}

/// Runs as many cases as PROPTEST_CASES asks for, but at least 10,000.
fn walks() -> ProptestConfig {
    let asked = ProptestConfig::default();
    ProptestConfig {
        cases: asked.cases.max(10_000),
        rng_algorithm: RngAlgorithm::XorShift,
        ..asked
    }
}

proptest! {
    #![proptest_config(walks())]

    #[test]
    fn when_things_calm_down_all_is_as_wanted_and_strangers_things_are_theirs(
        steps in vec(step(), 0..40),
    ) {
        let mut story = Story::new();
        for step in steps {
            story.step(step);
        }
        story.check();
    }
}
