//! Tests of virtual addresses on Ethernet segments.

use crds::condition::Release;
use jiff::Timestamp;

use super::*;
use crate::{claim::machine::Order, event::claims::Verdict, host::interface::Card};

const RELEASE: Release<'static> = Release {
    group: "default",
    now: Timestamp::UNIX_EPOCH,
};
const MAC: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OTHER: Mac = Mac([2, 0, 0, 0, 0, 7]);

fn card() -> Card {
    Card {
        index: 2,
        mac: MAC,
        up: true,
    }
}

/// Returns a modelled host whose eth0 is on an Ethernet segment.
fn world() -> ModelWorld {
    let world = ModelWorld::new();
    world.parts().interfaces[1].mac = Some(MAC);
    world
}

fn web() -> Desired {
    wish(&[(tcp(WEB, 80), "wrr", &[(1, 1)])])
}

impl Agent {
    fn hear(&mut self, verdict: Verdict) {
        let verdicts = [(ip(WEB), verdict)].into();
        self.state.hear_claims(self.now, verdicts);
    }

    fn orders(&self) -> Vec<(IpAddr, Order)> {
        let orders = self.world.parts().orders.clone();
        orders.into_iter().collect()
    }
}

#[test]
fn a_vip_is_added_once_no_host_on_the_segment_answers_for_it() {
    let world = world();
    let mut agent = Agent::start(&world);
    let outcome = agent.round(&web());
    assert_eq!(outcome.missing[&ip(WEB)], Missing::Asking);
    assert_eq!(agent.orders(), [(ip(WEB), Order::Ask(card()))]);
    assert!(
        world.interfaces_with(ip(WEB)).is_empty(),
        "the VIP is not added before the verdict"
    );

    agent.hear(Verdict::Free(3));
    let outcome = agent.round(&web());
    assert_eq!(
        outcome.missing[&ip(WEB)],
        Missing::Asking,
        "a verdict of another segment does not count"
    );
    agent.hear(Verdict::Free(2));
    let outcome = agent.round(&web());
    assert_eq!(outcome.vips[&ip(WEB)], "eth0");
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    assert_eq!(agent.orders(), [(ip(WEB), Order::Hold(card(), 1))]);

    let outcome = agent.round(&wish(&[]));
    assert!(outcome.vips.is_empty(), "its last service went");
    assert_eq!(agent.orders(), [], "the VIP is no longer announced");
}

#[test]
fn a_vip_that_another_host_has_is_not_added_and_that_host_is_named() {
    let world = world();
    world.parts().neighbors = vec![(OTHER, ip("198.51.100.1")), (MAC, ip("192.0.2.9"))];
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Taken(OTHER));
    let known = std::mem::take(&mut world.parts().neighbors);
    let outcome = agent.round(&web());
    let nobody = Missing::Taken(OTHER, Vec::new());
    assert_eq!(
        outcome.missing[&ip(WEB)],
        nobody,
        "the other host is not known yet"
    );
    assert_eq!(
        world.parts().looked_for,
        [ip("198.51.100.1")],
        "the service's server may be the other host"
    );
    world.parts().neighbors = known;
    agent.state.links_changed();
    let outcome = agent.round(&web());
    let theirs = vec![ip("198.51.100.1")];
    assert_eq!(outcome.missing[&ip(WEB)], Missing::Taken(OTHER, theirs));
    assert!(world.interfaces_with(ip(WEB)).is_empty());
    let oddities: Vec<_> = crate::tell::report::oddities(&outcome, &[], &web(), None, RELEASE)
        .into_iter()
        .collect();
    let [said] = oddities.as_slice() else {
        panic!("one thing is odd: {oddities:?}")
    };
    let said = &said.text;
    assert!(said.contains("02:00:00:00:00:07 (real server "), "{said}");
}

#[test]
fn a_host_that_claims_a_held_vip_is_reported_and_does_not_get_it() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    agent.hear(Verdict::Contested(OTHER));
    let outcome = agent.round(&web());
    assert_eq!(outcome.vips[&ip(WEB)], "eth0");
    assert_eq!(outcome.contested[&ip(WEB)], (OTHER, Vec::new()));
    agent.hear(Verdict::Held);
    let outcome = agent.round(&web());
    assert!(
        outcome.contested.is_empty(),
        "the other host is no longer heard"
    );
}

#[test]
fn a_vip_that_another_process_removed_is_put_back_at_once_and_announced_again() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    agent.hear(Verdict::Held);
    world.take(ip(WEB), "eth0");
    agent.state.links_changed();
    let outcome = agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    assert_eq!(agent.orders(), [(ip(WEB), Order::Hold(card(), 2))]);
    assert_eq!(outcome.repairs.count, 1, "the repair is reported");
}

#[test]
fn a_restart_makes_no_claim_for_what_is_there() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    let mut next = Agent::start(&world);
    world.news();
    next.round(&web());
    assert_eq!(world.news(), [] as [String; 0], "nothing is done");
    assert_eq!(next.orders(), [(ip(WEB), Order::Hold(card(), 0))]);

    world.take(ip(WEB), "eth0");
    let mut next = Agent::start(&world);
    let outcome = next.round(&web());
    assert_eq!(
        outcome.missing[&ip(WEB)],
        Missing::Asking,
        "it vanished while no agent ran: another host may have it by now"
    );
}

#[test]
fn a_segment_that_cannot_be_listened_to_gets_no_vip() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.state.hear_hindered([(2, "no".to_owned())].into());
    let outcome = agent.round(&web());
    let why = Missing::Deaf("eth0".into(), "no".into());
    assert_eq!(outcome.missing[&ip(WEB)], why);
    agent.state.hear_hindered([].into());
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
}

#[test]
fn the_device_of_our_own_comes_with_the_first_vip_and_goes_with_the_last() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.rule = AddressRule::Dummy;
    agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["ipvs-vips"]);
    assert_eq!(agent.orders(), [], "the device is on no segment");
    agent.rule = AddressRule::Interface("eth1".into());
    agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth1"], "the VIP moved");
    let names = |world: &ModelWorld| {
        let parts = world.parts();
        let names = parts.interfaces.iter();
        names
            .map(|interface| interface.name.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        names(&world),
        ["lo", "eth0", "eth1"],
        "the device is removed"
    );
    agent.rule = AddressRule::Dummy;
    agent.round(&web());
    agent.round(&wish(&[]));
    assert_eq!(names(&world), ["lo", "eth0", "eth1"]);
}

#[test]
fn an_address_with_our_mark_is_ours_even_if_the_journal_does_not_have_it() {
    let world = world();
    world.put(ip("192.0.2.77"), "eth0");
    world.parts().interfaces[1].marked.push(ip("192.0.2.77"));
    let mut agent = Agent::start(&world);
    agent.round(&web());
    assert!(
        world.interfaces_with(ip("192.0.2.77")).is_empty(),
        "it is not wanted, and it is ours to remove"
    );
}

#[test]
fn a_device_that_cannot_be_made_is_reported_and_tried_again() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.rule = AddressRule::Dummy;
    world.parts().addresses_refused = true;
    let outcome = agent.round(&web());
    assert_eq!(outcome.missing[&ip(WEB)], Missing::NoDevice);
    assert!(outcome.failures.contains_key(&Subject::Device));
    world.parts().addresses_refused = false;
    agent.round_when_due(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["ipvs-vips"]);
}

#[test]
fn a_director_that_only_keeps_vips_puts_back_one_that_vanished_from_no_segment() {
    let world = ModelWorld::new();
    Agent::start(&world).round(&web());
    let mut agent = Agent::start(&world);
    agent.try_round(&web(), Holding::KeepOnly).unwrap();
    world.take(ip(WEB), "eth0");
    agent.state.links_changed();
    let outcome = agent.try_round(&web(), Holding::KeepOnly).unwrap();
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    assert_eq!(outcome.repairs.count, 1);
}

#[test]
fn in_mode_manual_a_vip_stays_and_leaves_when_another_host_answers_for_it() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    agent.hear(Verdict::Held);

    agent.rule = AddressRule::Manual;
    let outcome = agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    assert_eq!(outcome.vips[&ip(WEB)], "eth0");
    assert_eq!(outcome.kept[&ip(WEB)], Stay::Manual);
    assert_eq!(agent.orders(), [(ip(WEB), Order::Watch(card()))]);
    let oddities = crate::tell::report::oddities(&outcome, &[], &web(), None, RELEASE);
    let said = oddities.first().expect("what stays is listed");
    let said = &said.text;
    assert!(said.contains("192.0.2.10 stays on eth0"), "{said}");
    assert!(said.contains("spec.removals.allowUntil"), "{said}");

    agent.rule = AddressRule::Subnet;
    let outcome = agent.round(&web());
    assert!(outcome.kept.is_empty(), "back in mode Interface");
    assert_eq!(agent.orders(), [(ip(WEB), Order::Hold(card(), 1))]);

    agent.rule = AddressRule::Manual;
    agent.round(&web());
    agent.hear(Verdict::Taken(OTHER));
    let outcome = agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
    assert!(outcome.vips.is_empty() && outcome.kept.is_empty());
    assert_eq!(agent.orders(), []);
    assert!(!world.table().is_empty(), "the service stays");
}

#[test]
fn a_vip_whose_new_interface_does_not_exist_stays_announced_and_is_reported() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    agent.rule = AddressRule::Interface("eht0".into());
    let outcome = agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    assert_eq!(agent.orders(), [(ip(WEB), Order::Hold(card(), 1))]);
    let why = Missing::NoInterface("eht0".into());
    assert_eq!(outcome.kept[&ip(WEB)], Stay::NoPlace(why));
    agent.rule = AddressRule::Interface("eth0".into());
    let outcome = agent.round(&web());
    assert!(outcome.kept.is_empty(), "the typo was corrected");
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
}

#[test]
fn a_vip_that_was_taken_over_is_marked_on_the_disk_and_given_up_for_a_host_that_answers() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.try_round(&web(), Holding::TakeOver).expect("a round");
    agent.hear(Verdict::Free(2));
    world.parts().disk_broken = true;
    agent.try_round(&web(), Holding::TakeOver).expect("a round");
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0], "no mark, no VIP");
    world.parts().disk_broken = false;
    agent.hear(Verdict::Free(2));
    agent.try_round(&web(), Holding::TakeOver).expect("a round");
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    assert_eq!(world.parts().disk.taken_over, [ip(WEB)].into());

    // The next run recognizes the address by the agent's mark.
    let mut next = Agent::start(&world);
    next.try_round(&web(), Holding::Wait).expect("a round");
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
    next.hear(Verdict::Contested(OTHER));
    next.try_round(&web(), Holding::Wait).expect("a round");
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
    next.state.links_changed();
    next.try_round(&web(), Holding::Wait).expect("a round");
    assert!(world.parts().disk.taken_over.is_empty());
}

#[test]
fn a_vip_of_the_named_holder_is_not_given_up_for_a_host_that_answers() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.try_round(&web(), Holding::TakeOver).expect("a round");
    agent.hear(Verdict::Free(2));
    agent.try_round(&web(), Holding::TakeOver).expect("a round");
    agent.try_round(&web(), Holding::Take).expect("a round");
    assert!(world.parts().disk.taken_over.is_empty(), "it is the holder");
    agent.hear(Verdict::Contested(OTHER));
    agent.try_round(&web(), Holding::Take).expect("a round");
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
}

#[test]
fn a_vip_that_another_host_claims_during_the_round_is_not_added() {
    let world = world();
    let mut agent = Agent::start(&world);
    agent.round(&web());
    agent.hear(Verdict::Free(2));
    world.parts().claimed_meanwhile = true;
    let outcome = agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), [""; 0]);
    assert_eq!(outcome.missing[&ip(WEB)], Missing::Asking);
    world.parts().claimed_meanwhile = false;
    agent.hear(Verdict::Free(2));
    agent.round(&web());
    assert_eq!(world.interfaces_with(ip(WEB)), ["eth0"]);
}
