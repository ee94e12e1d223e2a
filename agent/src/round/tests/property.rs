//! Whatever happens, when things calm down the host is as it is wanted to be,
//! strangers' things are as strangers left them, and the disk says which is
//! which.
//!
//! Whose an entry is, is decided here without looking at the plan. What
//! somebody else made is theirs unless its key was ours, or until it is
//! wanted: then it is to be adopted, and while it is not known how far that
//! came it is nobody's in particular. A virtual address is never adopted.

use std::fmt;

use ipvs::{DestinationKey, Errno, Family};
use proptest::{
    collection::{btree_map, vec},
    option,
    prelude::*,
    sample::select,
};

use super::*;
use crate::fixtures::{Effect, broken, config, spelled, weight};
use crate::journal::Intent;

/// What nobody but a stranger writes.
const THEIR_SCHEDULER: &str = "sed";
const THEIR_WEIGHT: u32 = 900;

#[derive(Clone, Debug)]
enum Step {
    /// Other things are wanted from now on.
    Wish(Wish, Holding),
    /// A round, this much later; it may be the agent's last.
    Round(Duration, Option<usize>),
    /// The next round reads the table again.
    Distrust,
    /// Somebody else does something.
    Stranger(Deed),
    /// Something does not work from now on.
    Fault(Fault),
    /// Everything works again.
    Heal,
}

/// Spelled as ipvsadm does where a failing story is told.
#[derive(Clone)]
struct Wish(Desired);

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&spelled(&self.0.table), f)
    }
}

#[derive(Clone, Debug)]
enum Deed {
    Make(Entry),
    Change(Entry),
    Remove(Entry),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    /// One in so many operations is refused.
    Refusals(usize, Errno),
    /// The kernel does not answer at all.
    Kernel,
    /// The answers to one batch are lost.
    Replies,
    Interfaces,
    Addresses,
    Disk,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Whose {
    Ours,
    Theirs,
    /// Theirs, but wanted, or with a key that was ours.
    Unclear,
    /// Ours, and changed by somebody before we could write down that it is.
    Lost,
}

struct Story {
    world: ModelWorld,
    agent: Agent,
    wish: Desired,
    holding: Holding,
    /// Of everything that is there, but for the host's own addresses.
    whose: BTreeMap<Entry, Whose>,
    /// The agent died and had not been able to write down what is ours.
    forgetful: bool,
}

impl Story {
    fn new() -> Self {
        let world = ModelWorld::new();
        Self {
            agent: Agent::start(&world),
            world,
            wish: Desired::default(),
            holding: Holding::Take,
            whose: BTreeMap::new(),
            forgetful: false,
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Wish(wish, holding) => (self.wish, self.holding) = (wish.0, holding),
            Step::Round(later, life) => self.round(later, life),
            Step::Distrust => self.agent.state.distrust(),
            Step::Stranger(deed) => self.stranger(&deed),
            Step::Fault(fault) => self.fault(fault),
            Step::Heal => self.heal(),
        }
    }

    fn round(&mut self, later: Duration, life: Option<usize>) {
        for entry in wanted(&self.wish) {
            if let Some(whose @ Whose::Theirs) = self.whose.get_mut(&entry) {
                *whose = Whose::Unclear;
            }
        }
        self.agent.now += later;
        self.world.parts().life = life;
        let _ = self.agent.try_round(&self.wish, self.holding);
        let died = self.world.parts().life.take() == Some(0);
        if died {
            self.forgetful |= self.world.parts().disk_broken;
            self.world.parts().disk_broken = false;
            let now = self.agent.now;
            self.agent = Agent::start(&self.world);
            self.agent.now = now;
        }
        self.audit();
    }

    /// Takes in what the agent did, and objects if it was not its business.
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
                | Effect::Intended
                | Effect::Settled => {}
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
            self.forget(&entry);
        }
    }

    fn forget(&mut self, gone: &Entry) {
        self.whose.retain(|entry, _| match (gone, entry) {
            (Entry::Service(service), Entry::Destination(of, _)) => service != of,
            _ => entry != gone,
        });
    }

    /// Whose is what somebody else makes now.
    fn whose(&self, entry: &Entry) -> Whose {
        let disk = self.world.parts().disk.clone();
        let on_disk = disk.owned.contains(entry);
        let in_mind = match entry {
            Entry::Service(service) => self.agent.state.owned.service(service),
            Entry::Destination(service, key) => self.agent.state.owned.destination(service, key),
            Entry::Address(address, on) => self.agent.state.addresses.get(address) == Some(on),
            Entry::Timeouts(_) => false,
        };
        let intended = |intent: &Intent| match entry {
            Entry::Address(address, on) => intent.addresses.contains(&(*address, on.clone())),
            // Who else's has another configuration.
            _ => false,
        };
        let intended = intended(&disk.intent) || intended(&self.agent.state.intent);
        match (on_disk, in_mind) {
            (true, true) => Whose::Ours,
            (false, false) if !intended => Whose::Theirs,
            _ => Whose::Unclear,
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
            Deed::Make(_) => drop(self.whose.insert(entry.clone(), whose)),
            Deed::Change(_) => self.lose(entry, whose),
            Deed::Remove(_) => self.forget(entry),
        }
    }

    /// Does it, if it can be done.
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
            (_, Entry::Address(..) | Entry::Timeouts(_)) => false,
        }
    }

    /// What we made and did not write down is known by its configuration, and
    /// a service's servers by the service.
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
            Fault::Disk => parts.disk_broken = true,
        }
    }

    fn heal(&mut self) {
        let mut parts = self.world.parts();
        parts.kernel.fail_with = None;
        parts.kernel.broken = None;
        parts.kernel.lose_replies = false;
        parts.links_broken = false;
        parts.addresses_refused = false;
        parts.disk_broken = false;
    }

    /// A full comparison and the retries that it may need, with every module
    /// loaded and nothing in the way.
    fn calm(&mut self) {
        self.heal();
        self.world
            .parts()
            .kernel
            .schedulers
            .insert("twos".to_owned());
        self.agent.state.distrust();
        for _ in 0..4 {
            self.round(Duration::from_secs(61), None);
        }
    }

    fn check(&mut self) {
        self.calm();
        let outcome = self
            .agent
            .try_round(&self.wish, self.holding)
            .expect("the kernel answers");
        assert_eq!(outcome.failures, BTreeMap::new(), "nothing fails");
        assert_eq!(self.world.news(), [""; 0], "nothing is left to do");
        self.check_table(&outcome);
        self.check_addresses(&outcome);
        self.check_disk();
    }

    fn check_table(&self, outcome: &Outcome) {
        let table = &self.world.parts().kernel.table;
        let wanted = wanted(&self.wish);
        for (key, wish) in &self.wish.table {
            let found = table.get(key).expect("a wanted service is there");
            assert_eq!(found.config, wish.config, "{key}");
            for (server, config) in &wish.destinations {
                assert_eq!(
                    found.destinations.get(server),
                    Some(config),
                    "{key} {server}"
                );
            }
        }
        let mut there = BTreeSet::new();
        for (key, found) in table {
            there.insert((
                Entry::Service(*key),
                found.config.scheduler == THEIR_SCHEDULER,
            ));
            for (server, config) in &found.destinations {
                let theirs = config.weight == THEIR_WEIGHT;
                there.insert((Entry::Destination(*key, *server), theirs));
            }
        }
        for (entry, theirs) in &there {
            match self.whose[entry] {
                _ if wanted.contains(entry) => {}
                Whose::Lost => {}
                Whose::Theirs => assert!(theirs, "{entry:?} is as it was made"),
                Whose::Unclear => assert!(*theirs || self.forgetful, "{entry:?} is as it was made"),
                Whose::Ours => assert!(self.forgetful, "{entry:?} of ours was left behind"),
            }
        }
        let in_whose = self
            .whose
            .keys()
            .filter(|e| !matches!(e, Entry::Address(..)));
        let entries = there.iter().map(|(entry, _)| entry);
        assert!(entries.eq(in_whose), "nobody's thing went unseen");
        assert_eq!(outcome.services, self.wish.table.len());
        for (service, destination) in &outcome.strangers {
            let entry = Entry::Destination(*service, *destination);
            assert!(
                there.contains(&(entry.clone(), true))
                    || self.forgetful
                    || self.whose[&entry] == Whose::Lost
            );
        }
    }

    fn check_addresses(&self, outcome: &Outcome) {
        for &address in self.wish.vips.keys() {
            let has_subnet = address.to_string().starts_with("192.0.2.");
            if self.holding == Holding::Take && has_subnet {
                let on = self.world.interfaces_with(address);
                assert!(!on.is_empty(), "{address} is wanted");
                assert!(on.contains(&outcome.held[&address]));
            }
        }
        let fresh = ModelWorld::new().parts().interfaces.clone();
        let theirs = |interface: &str, address: &IpAddr| {
            let entry = Entry::Address(*address, interface.to_owned());
            self.whose.get(&entry).copied()
        };
        for (now, before) in self.world.parts().interfaces.iter().zip(&fresh) {
            for (address, length) in &now.addresses {
                let whose = theirs(&now.name, address);
                let wanted = self.wish.vips.contains_key(address);
                match whose {
                    None => assert!(before.addresses.contains(&(*address, *length))),
                    Some(Whose::Theirs | Whose::Unclear | Whose::Lost) => {}
                    Some(Whose::Ours) => assert!(
                        wanted && self.holding != Holding::Release || self.forgetful,
                        "{address} of ours was left behind"
                    ),
                }
            }
            for (address, _) in &before.addresses {
                let still = now.addresses.iter().any(|(found, _)| found == address);
                assert!(still, "the host's own {address} is there");
            }
        }
    }

    /// The disk says that all that is wanted and here is ours, but for
    /// addresses that others put there.
    fn check_disk(&self) {
        let disk = self.world.parts().disk.clone();
        assert!(disk.intent.is_empty(), "no round is unsettled");
        let mut ours = wanted(&self.wish);
        for (entry, whose) in &self.whose {
            if let Entry::Address(address, on) = entry {
                let unclear = *whose == Whose::Unclear || self.forgetful;
                let owned = disk.owned.contains(entry);
                assert!(
                    unclear || owned == (*whose == Whose::Ours),
                    "{address} on {on}"
                );
                if owned {
                    ours.insert(entry.clone());
                }
            }
        }
        assert_eq!(disk.owned, ours);
        let table = &self.world.parts().kernel.table;
        let plan = ipvs::plan(
            &self.wish.table,
            table,
            &disk.remembered().table,
            OnConflict::Adopt,
        );
        assert!(plan.is_empty() && plan.adopt.is_empty(), "{plan:?}");
        assert_eq!(plan.gone, ipvs::Gone::default());
    }
}

/// What is wanted of the kernel's table.
fn wanted(wish: &Desired) -> BTreeSet<Entry> {
    let mut entries = BTreeSet::new();
    for (key, service) in &wish.table {
        entries.insert(Entry::Service(*key));
        for (server, _) in &service.destinations {
            entries.insert(Entry::Destination(*key, *server));
        }
    }
    entries
}

/// Two services of one VIP, one of another, one of a VIP without a subnet,
/// and one without a VIP.
fn key() -> impl Strategy<Value = ServiceKey> {
    select(vec![
        tcp(WEB, 80),
        tcp(WEB, 443),
        tcp("192.0.2.11", 80),
        tcp("203.0.113.10", 80),
        ServiceKey::FirewallMark {
            family: Family::V4,
            mark: 7,
        },
    ])
}

fn a_wish() -> impl Strategy<Value = Desired> {
    let servers = btree_map(1..4u8, 0..3u32, 0..4);
    let schedulers = select(vec!["rr", "wrr", "wrr", "twos"]);
    btree_map(key(), (schedulers, servers), 0..4).prop_map(|services| {
        let servers: Vec<Vec<_>> = services
            .values()
            .map(|(_, servers)| {
                servers
                    .iter()
                    .map(|(last, value)| (*last, *value))
                    .collect()
            })
            .collect();
        let rows: Vec<_> = services
            .iter()
            .zip(&servers)
            .map(|((key, (scheduler, _)), servers)| (*key, *scheduler, servers.as_slice()))
            .collect();
        wish(&rows)
    })
}

fn holding() -> impl Strategy<Value = Holding> {
    prop_oneof![
        4 => Just(Holding::Take),
        1 => Just(Holding::Release),
        1 => Just(Holding::KeepOnly),
        1 => Just(Holding::Undecided),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let theirs = (1..4u8).prop_map(server as fn(u8) -> DestinationKey);
    let vip = select(vec![WEB, "192.0.2.11"]);
    let on = select(vec!["lo", "eth0", "eth1"]);
    prop_oneof![
        key().prop_map(Entry::Service),
        (key(), theirs).prop_map(|(service, key)| Entry::Destination(service, key)),
        (vip, on).prop_map(|(vip, on)| Entry::Address(ip(vip), on.to_owned())),
    ]
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => entry().prop_map(Deed::Make),
        1 => entry().prop_map(Deed::Change),
        2 => entry().prop_map(Deed::Remove),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let errno = select(vec![Errno::ENOMEM, Errno::EINVAL, Errno::EPERM]);
    prop_oneof![
        (1..4usize, errno).prop_map(|(one_in, errno)| Fault::Refusals(one_in, errno)),
        Just(Fault::Kernel),
        Just(Fault::Replies),
        Just(Fault::Interfaces),
        Just(Fault::Addresses),
        Just(Fault::Disk),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let later = (0..3000u64).prop_map(Duration::from_millis);
    prop_oneof![
        4 => (a_wish(), holding()).prop_map(|(wish, holding)| Step::Wish(Wish(wish), holding)),
        8 => (later, option::weighted(0.4, 0..25usize))
            .prop_map(|(later, life)| Step::Round(later, life)),
        1 => Just(Step::Distrust),
        4 => deed().prop_map(Step::Stranger),
        2 => fault().prop_map(Step::Fault),
        2 => Just(Step::Heal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

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
