//! The random steps of the property test, and how often each occurs.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
    /// A new wanted table, and whether this host should have the VIPs.
    Wish(Wish, Holding),
    /// After the given time, a round runs, and the agent may die in the round.
    Round(Duration, Option<Death>),
    /// The agent stops cleanly and starts again.
    Restart,
    /// The host loses its power and boots again.
    Reboot(Vec<Fate>),
    /// The next round reads the kernel's table again.
    Distrust,
    /// Another process creates, changes or removes an entry.
    Stranger(Deed),
    /// A part of the host fails from now on.
    Fault(Fault),
    /// Every part of the host that failed works again.
    Heal,
    /// All faults are healed, and the test checks the conditions that must hold
    /// without faults.
    Calm,
}

/// The wanted table, which a failing test prints in ipvsadm's syntax.
#[derive(Clone)]
pub(super) struct Wish(pub(super) Desired);

impl fmt::Debug for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&spelled(&self.0.table), f)
    }
}

#[derive(Clone, Debug)]
pub(super) enum Deed {
    Make(Entry),
    Change(Entry),
    Remove(Entry),
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// The kernel refuses one of every N operations with an error.
    Refusals(usize, Errno),
    /// The kernel does not answer at all.
    Kernel,
    /// The kernel's answers to one batch of operations are lost.
    Replies,
    Interfaces,
    Addresses,
    /// The disk is full after the given number of further writes.
    Disk(usize),
}

/// How and when an agent dies.
#[derive(Clone, Debug)]
pub(super) struct Death {
    /// The number of calls after which the agent dies.
    pub(super) calls: usize,
    /// What happens to each unsynced write of the agent.
    pub(super) fates: Vec<Fate>,
    /// The next runs, which only open the journal. Each item is the number of
    /// calls after which one of these runs dies.
    pub(super) openings: Vec<usize>,
}

/// Chooses one of five services: two services on one VIP, one on another VIP,
/// one on a VIP without a subnet, and one without a VIP.
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
        1 => Just(Holding::Wait),
        1 => Just(Holding::TakeOver),
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
        (0..20usize).prop_map(Fault::Disk),
    ]
}

fn fates() -> impl Strategy<Value = Vec<Fate>> {
    let torn = (select(vec![1, 64, 512]), any::<u64>());
    let fate = prop_oneof![
        2 => Just(Fate::Kept),
        1 => Just(Fate::Lost),
        1 => torn.prop_map(|(piece, mask)| Fate::Torn(piece, mask)),
    ];
    vec(fate, 1..6)
}

fn death() -> impl Strategy<Value = Death> {
    (0..60usize, fates(), vec(0..20usize, 0..2)).prop_map(|(calls, fates, openings)| Death {
        calls,
        fates,
        openings,
    })
}

pub(super) fn step() -> impl Strategy<Value = Step> {
    let later = (0..3000u64).prop_map(Duration::from_millis);
    prop_oneof![
        8 => (a_wish(), holding()).prop_map(|(wish, holding)| Step::Wish(Wish(wish), holding)),
        16 => (later, option::weighted(0.4, death()))
            .prop_map(|(later, death)| Step::Round(later, death)),
        2 => Just(Step::Distrust),
        8 => deed().prop_map(Step::Stranger),
        4 => fault().prop_map(Step::Fault),
        4 => Just(Step::Heal),
        1 => Just(Step::Calm),
        1 => Just(Step::Restart),
        1 => fates().prop_map(Step::Reboot),
    ]
}
