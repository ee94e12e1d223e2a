use super::*;
use crate::fixtures::{interface, ip};

/// The state of a director that plans its virtual addresses.
struct Case {
    wanted: BTreeSet<IpAddr>,
    rule: AddressRule,
    kept: BTreeMap<IpAddr, String>,
    ours: BTreeMap<IpAddr, String>,
    seen: BTreeSet<IpAddr>,
    is_released: bool,
    taken: BTreeSet<IpAddr>,
}

impl Case {
    fn of(wanted: &[IpAddr], rule: AddressRule) -> Self {
        Self {
            wanted: wanted.iter().copied().collect(),
            rule,
            kept: BTreeMap::new(),
            ours: BTreeMap::new(),
            seen: BTreeSet::new(),
            is_released: false,
            taken: BTreeSet::new(),
        }
    }

    fn ours(mut self, address: IpAddr, on: &str) -> Self {
        self.ours.insert(address, on.to_owned());
        self
    }

    fn seen(mut self, address: IpAddr) -> Self {
        self.seen.insert(address);
        self
    }

    fn plan(&self, host: &[Interface], holding: Holding) -> AddressPlan {
        let wanted = Wanted {
            addresses: &self.wanted,
            rule: &self.rule,
            holding,
            is_released: self.is_released,
            taken: &self.taken,
            kept: &self.kept,
            ours: &self.ours,
            seen: &self.seen,
        };
        plan(&wanted, host)
    }
}

fn subnet(wanted: &[IpAddr]) -> Case {
    Case::of(wanted, AddressRule::Subnet)
}

fn added(plan: &AddressPlan) -> Vec<&str> {
    let added = plan.add.iter();
    added.map(|placed| placed.interface.as_str()).collect()
}

fn director() -> Vec<Interface> {
    vec![
        interface(1, "lo", &[("127.0.0.1", 8), ("::1", 128)]),
        interface(2, "eth0", &[("192.168.4.5", 24), ("2001:db8::5", 64)]),
        interface(3, "eth1", &[("192.168.2.5", 24)]),
    ]
}

fn directors(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn the_vip_goes_on_the_interface_whose_subnet_holds_it() {
    for (vip, expected) in [
        ("192.168.4.15", Some("eth0")),
        ("192.168.2.15", Some("eth1")),
        ("2001:db8::15", Some("eth0")),
        ("10.9.9.9", None),
        ("127.0.0.9", None),
    ] {
        let plan = subnet(&[ip(vip)]).plan(&director(), Holding::Take);
        assert_eq!(
            plan.add.first().map(|placed| placed.interface.as_str()),
            expected,
            "the interface for {vip}"
        );
        assert_eq!(
            plan.missing.contains_key(&ip(vip)),
            expected.is_none(),
            "{vip} is reported only where it cannot go"
        );
    }
}

#[test]
fn an_address_that_was_there_before_us_is_used_and_never_removed() {
    let primary = ip("192.168.4.5");
    for holding in [Holding::Take, Holding::KeepOnly, Holding::Release] {
        let used = subnet(&[primary]).plan(&director(), holding);
        assert!(used.add.is_empty() && used.remove.is_empty(), "{holding:?}");
        assert_eq!(used.vips[&primary], "eth0", "{holding:?}");
    }
    let unused = subnet(&[]).plan(&director(), Holding::Take);
    assert_eq!(unused, AddressPlan::default(), "nothing of ours to remove");
}

#[test]
fn what_the_agent_added_goes_with_its_last_service_or_when_another_director_is_named() {
    let vip = ip("192.168.4.15");
    let mut host = director();
    host[1].addresses.push((vip, 32));
    let ours = |wanted: &[IpAddr]| subnet(wanted).ours(vip, "eth0");
    let unwanted = ours(&[]).plan(&host, Holding::Take);
    assert_eq!(unwanted.remove.len(), 1, "its last service is gone");
    let released = ours(&[vip]).plan(&host, Holding::Release);
    assert_eq!(released.remove.len(), 1, "another director is named");
    let kept = ours(&[vip]).plan(&host, Holding::KeepOnly);
    assert!(
        kept.remove.is_empty(),
        "no holder is named: the director that has it keeps it"
    );
    assert_eq!(kept.vips[&vip], "eth0");
}

#[test]
fn what_the_agent_added_and_another_process_moved_is_forgotten_and_not_removed() {
    let vip = ip("192.168.4.15");
    let mut host = director();
    host[2].addresses.push((vip, 32));
    let ours = |wanted: &[IpAddr]| subnet(wanted).ours(vip, "eth0");
    let plan = ours(&[]).plan(&host, Holding::Take);
    assert_eq!(plan.forget, [vip]);
    assert!(
        plan.remove.is_empty(),
        "the one on eth1 was not added by the agent"
    );
}

#[test]
fn one_director_alone_holds_and_of_several_only_the_named_one() {
    let alone = directors(&["a"]);
    let both = directors(&["a", "b"]);
    for (holder, known, is_live, expected) in [
        (None, Some(&alone), false, Holding::Take),
        (None, Some(&both), true, Holding::KeepOnly),
        (None, None, false, Holding::Undecided),
        (Some("a"), Some(&both), false, Holding::Take),
        (Some("b"), Some(&both), true, Holding::Release),
        (Some("b"), Some(&both), false, Holding::Wait),
        (Some("b"), None, false, Holding::Wait),
    ] {
        assert_eq!(
            holding(
                &AddressRule::Subnet,
                holder,
                "a",
                known,
                |name| name == "b" && is_live,
                false
            ),
            expected,
            "holder {holder:?}, directors {known:?}, b is live: {is_live}"
        );
    }
    let other = directors(&["b"]);
    assert_eq!(
        holding(
            &AddressRule::Subnet,
            None,
            "a",
            Some(&other),
            |_| true,
            true
        ),
        Holding::Undecided,
        "a does not see its own registration yet"
    );
}

#[test]
fn the_only_director_that_is_not_out_takes_over_on_a_segment() {
    let both = directors(&["a", "b"]);
    let on = |rule: AddressRule, holder, is_live: bool| {
        holding(&rule, holder, "a", Some(&both), |_| is_live, true)
    };
    let named = AddressRule::Interface("eth0".into());
    for rule in [AddressRule::Subnet, named] {
        assert_eq!(on(rule.clone(), Some("b"), false), Holding::TakeOver);
        assert_eq!(on(rule.clone(), None, false), Holding::TakeOver);
        assert_eq!(on(rule.clone(), Some("a"), false), Holding::Take);
        assert_eq!(on(rule, Some("b"), true), Holding::Release, "b is back");
    }
    for rule in [AddressRule::Dummy, AddressRule::Manual] {
        assert_eq!(on(rule, Some("b"), false), Holding::Wait);
    }
    let vip = ip("192.168.4.15");
    let plan = subnet(&[vip]).plan(&director(), Holding::TakeOver);
    assert_eq!(added(&plan), ["eth0"]);
    assert!(!plan.add[0].is_repair, "the segment is asked first");
    let mut contested = subnet(&[vip]).ours(vip, "eth0").seen(vip);
    contested.taken.insert(vip);
    for holding in [Holding::TakeOver, Holding::Wait, Holding::KeepOnly] {
        let plan = contested.plan(&director_with(vip), holding);
        assert_eq!(plan.remove.len(), 1, "{holding:?}: another host has it");
    }
}

#[test]
fn without_a_named_holder_no_director_takes_a_vip() {
    let vip = ip("192.168.4.15");
    let plan = subnet(&[vip]).plan(&director(), Holding::KeepOnly);
    assert!(plan.add.is_empty());
    assert_eq!(plan.missing[&vip], Missing::HolderNotNamed);
}

#[test]
fn on_devices_of_their_own_all_directors_hold_vips_unless_one_is_named() {
    let both = directors(&["a", "b"]);
    let dummy = |holder| {
        holding(
            &AddressRule::Dummy,
            holder,
            "a",
            Some(&both),
            |_| true,
            false,
        )
    };
    assert_eq!(dummy(None), Holding::Take);
    assert_eq!(dummy(Some("a")), Holding::Take);
    assert_eq!(dummy(Some("b")), Holding::Release);
}

#[test]
fn the_vip_goes_where_the_group_says() {
    let vip = ip("192.168.4.15");
    let named = Case::of(&[vip], AddressRule::Interface("eth1".into()));
    assert_eq!(added(&named.plan(&director(), Holding::Take)), ["eth1"]);
    let unknown = Case::of(&[vip], AddressRule::Interface("eth9".into()));
    assert_eq!(
        unknown.plan(&director(), Holding::Take).missing[&vip],
        Missing::NoInterface("eth9".into())
    );
    let manual = Case::of(&[vip], AddressRule::Manual).plan(&director(), Holding::Take);
    assert_eq!(
        manual,
        AddressPlan::default(),
        "in mode Manual another program adds it"
    );
    let dummy = Case::of(&[vip], AddressRule::Dummy);
    let before = dummy.plan(&director(), Holding::Take);
    assert!(before.needs_device && before.add.is_empty(), "{before:?}");
    assert_eq!(before.missing[&vip], Missing::NoDevice, "until it is made");
    let mut host = director();
    host.push(interface(9, DEVICE, &[]));
    assert_eq!(added(&dummy.plan(&host, Holding::Take)), [DEVICE]);
}

#[test]
fn what_the_agent_added_elsewhere_is_removed_there_first() {
    let vip = ip("192.168.4.15");
    for (rule, on, stays) in [
        (AddressRule::Subnet, "eth0", true),
        (AddressRule::Subnet, "eth1", true),
        (AddressRule::Subnet, DEVICE, false),
        (AddressRule::Interface("eth0".into()), "eth0", true),
        (AddressRule::Interface("eth0".into()), "eth1", false),
        (AddressRule::Dummy, DEVICE, true),
        (AddressRule::Dummy, "eth0", false),
        (AddressRule::Manual, "eth0", true),
    ] {
        let mut host = director();
        host.push(interface(9, DEVICE, &[]));
        let interface = host.iter_mut().find(|interface| interface.name == on);
        interface.unwrap().addresses.push((vip, 32));
        let case = Case::of(&[vip], rule.clone()).ours(vip, on).seen(vip);
        let plan = case.plan(&host, Holding::Take);
        assert_eq!(plan.vips.contains_key(&vip), stays, "{rule:?}, on {on}");
        assert_eq!(plan.remove.len(), usize::from(!stays), "{rule:?}, on {on}");
        let strangers = Case::of(&[vip], rule.clone()).plan(&host, Holding::Take);
        assert_eq!(
            strangers.vips[&vip], on,
            "{rule:?}: one that the agent did not add is used where it is"
        );
    }
}

#[test]
fn what_vanished_in_this_run_is_put_back_where_it_was_without_asking() {
    let vip = ip("192.168.4.15");
    let mut host = director();
    for interface in &mut host {
        interface.mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    }
    for holding in [Holding::Take, Holding::KeepOnly] {
        let asked = subnet(&[vip]).ours(vip, "eth1").plan(&host, holding);
        assert_eq!(
            asked.forget,
            [vip],
            "{holding:?}: it vanished before this run"
        );
        assert!(
            asked.add.iter().all(|placed| !placed.is_repair),
            "{holding:?}"
        );
        let case = subnet(&[vip]).ours(vip, "eth1").seen(vip);
        let plan = case.plan(&host, holding);
        assert_eq!(added(&plan), ["eth1"], "{holding:?}: where it was");
        assert!(plan.add[0].is_repair, "{holding:?}");
        assert!(plan.forget.is_empty(), "{holding:?}: it is still ours");
    }
    let released = subnet(&[vip]).ours(vip, "eth1").seen(vip);
    assert!(released.plan(&host, Holding::Release).add.is_empty());
}

#[test]
fn an_address_that_an_interface_cannot_use_is_absent() {
    let vip = ip("2001:db8::15");
    let mut host = director();
    host[1].unusable.push(vip);
    let plan = subnet(&[vip]).plan(&host, Holding::Take);
    assert!(plan.vips.is_empty() && plan.add.is_empty());
    assert_eq!(plan.missing[&vip], Missing::Unusable("eth0".into()));
}

#[test]
fn nothing_is_put_on_an_interface_that_is_down() {
    let vip = ip("2001:db8::15");
    let mut host = director();
    host[1].up = false;
    let case = subnet(&[vip]).ours(vip, "eth0").seen(vip);
    let plan = case.plan(&host, Holding::Take);
    assert_eq!(plan.missing[&vip], Missing::Down("eth0".into()));
    assert!(
        plan.forget.is_empty(),
        "it is still ours, and comes back with the link"
    );
}

/// Returns the interfaces of a director whose eth0 has the address `vip`.
fn director_with(vip: IpAddr) -> Vec<Interface> {
    let mut host = director();
    host[1].addresses.push((vip, 32));
    host
}

#[test]
fn a_vip_stays_where_it_is_until_its_new_interface_can_take_it() {
    let vip = ip("192.168.4.15");
    let to = |name: &str| {
        let rule = AddressRule::Interface(name.into());
        Case::of(&[vip], rule).ours(vip, "eth0").seen(vip)
    };
    let mut down = director_with(vip);
    down[2].up = false;
    let mut unplugged = director_with(vip);
    unplugged[2].mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    unplugged[2].connected = false;
    let mut refused = director_with(vip);
    refused[2].unusable.push(vip);
    for (host, name, why) in [
        (
            director_with(vip),
            "eht1",
            Missing::NoInterface("eht1".into()),
        ),
        (down, "eth1", Missing::Down("eth1".into())),
        (unplugged, "eth1", Missing::Down("eth1".into())),
        (refused, "eth1", Missing::Unusable("eth1".into())),
    ] {
        let plan = to(name).plan(&host, Holding::Take);
        assert_eq!(plan.remove, [], "{why:?}");
        assert_eq!(plan.vips[&vip], "eth0", "{why:?}");
        assert!(!plan.moves, "{why:?}");
        assert_eq!(plan.kept[&vip], Stay::NoPlace(why));
    }
    let plan = to("eth1").plan(&director_with(vip), Holding::Take);
    assert_eq!(plan.remove.len(), 1, "eth1 can take it");
    assert!(plan.moves && plan.kept.is_empty(), "{plan:?}");
}

#[test]
fn a_vip_stays_on_a_device_until_a_subnet_or_another_device_can_take_it() {
    let vip = ip("10.9.9.9");
    let mut host = director();
    host.push(interface(9, DEVICE, &[("10.9.9.9", 32)]));
    let plan = subnet(&[vip]).ours(vip, DEVICE).plan(&host, Holding::Take);
    assert_eq!(plan.remove, []);
    assert_eq!(plan.kept[&vip], Stay::NoPlace(Missing::NoSubnet));

    let vip = ip("192.168.4.15");
    let dummy = Case::of(&[vip], AddressRule::Dummy).ours(vip, "eth0");
    let plan = dummy.plan(&director_with(vip), Holding::Take);
    assert_eq!(plan.remove, []);
    assert_eq!(plan.kept[&vip], Stay::NoPlace(Missing::NoDevice));
    assert!(plan.needs_device, "the agent makes it first");
}

#[test]
fn a_director_that_could_not_take_a_vip_again_does_not_move_it() {
    let vip = ip("192.168.4.15");
    let case = Case::of(&[vip], AddressRule::Interface("eth1".into()))
        .ours(vip, "eth0")
        .seen(vip);
    let plan = case.plan(&director_with(vip), Holding::KeepOnly);
    assert_eq!(plan.remove, []);
    assert_eq!(plan.kept[&vip], Stay::NoPlace(Missing::HolderNotNamed));
}

#[test]
fn a_director_keeps_its_vips_while_the_named_holder_is_not_live_and_takes_none() {
    let vip = ip("192.168.4.15");
    let case = subnet(&[vip]).ours(vip, "eth0").seen(vip);
    let plan = case.plan(&director_with(vip), Holding::Wait);
    assert_eq!(plan.remove, []);
    assert_eq!(plan.vips[&vip], "eth0");
    assert!(plan.cards.is_empty(), "no Ethernet segment in this test");
    assert_eq!(plan.kept[&vip], Stay::NoHolder);
    let restored = case.plan(&director(), Holding::Wait);
    assert_eq!(added(&restored), ["eth0"], "it is put back");
    assert!(restored.add[0].is_repair);
    let absent = subnet(&[vip]).plan(&director(), Holding::Wait);
    assert_eq!(absent, AddressPlan::default(), "it was never here");
}

#[test]
fn in_mode_manual_our_vips_stay_until_another_host_has_them_or_removals_are_allowed() {
    let vip = ip("192.168.4.15");
    let mut host = director_with(vip);
    host[1].mac = Some(Mac([2, 0, 0, 0, 0, 1]));
    let case = || {
        Case::of(&[vip], AddressRule::Manual)
            .ours(vip, "eth0")
            .seen(vip)
    };
    for holding in [
        Holding::Take,
        Holding::KeepOnly,
        Holding::Wait,
        Holding::Release,
    ] {
        let plan = case().plan(&host, holding);
        assert_eq!(plan.remove, [], "{holding:?}");
        assert_eq!(plan.vips[&vip], "eth0", "{holding:?}");
        assert_eq!(plan.kept[&vip], Stay::Manual, "{holding:?}");
        assert!(plan.cards.is_empty(), "{holding:?}: it is not announced");
        assert!(plan.watched.contains_key(&vip), "{holding:?}");
    }
    let mut taken = case();
    taken.taken.insert(vip);
    assert_eq!(taken.plan(&host, Holding::Take).remove.len(), 1);
    let mut released = case();
    released.is_released = true;
    assert_eq!(released.plan(&host, Holding::Take).remove.len(), 1);
    let gone = case().plan(&director(), Holding::Take);
    assert_eq!(gone.add, [], "it is not restored");
    assert_eq!(gone.forget, [vip]);
    let back = subnet(&[vip]).ours(vip, "eth0").seen(vip);
    let back = back.plan(&host, Holding::Take);
    assert!(back.cards.contains_key(&vip), "it is announced again");
}
