//! Tests when a director gives up or takes over a VIP. A director gives up a
//! VIP only if the holder is live. A director takes over a VIP only if no other
//! director still renews its Lease ([`crate::decide::liveness`]).

use super::*;

const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Returns the director `a` of a group with the directors `members` and the
/// holder `holder`.
fn settled(world: &ModelWorld, members: &[&str], holder: Option<&str>) -> Loop {
    let mut agent = director(&Doors::default(), world);
    let mut events = everything();
    events[0] = directors(members);
    events.into_iter().for_each(|event| agent.note(event));
    agent.note(Event::DirectorGroup(Change::Apply(group(holder))));
    agent.act(Duration::ZERO).expect("a round");
    agent
}

impl Loop {
    /// Sends a reading of another director's Lease, and runs a round. `renewal`
    /// is the Lease's renewal time. `after` is the time of the reading, counted
    /// from the start.
    fn hear_of(&mut self, director: &str, renewal: Option<&str>, after: Duration) {
        let (director, renewal) = (director.to_owned(), renewal.map(ToOwned::to_owned));
        self.note(Event::Lease(director, Instant::now() + after, renewal));
        self.act(after);
    }
}

fn looks(world: &ModelWorld) -> Vec<(String, u64)> {
    let looks = world.parts().leases_asked.clone().into_iter();
    let looks = looks.map(|(name, interval)| (name, interval.as_secs()));
    looks.collect()
}

#[test]
fn a_holder_that_is_no_live_director_of_the_group_gets_no_vip() {
    for (named, members, renewals) in [
        ("nobody-of-that-name", &["a", "b"][..], &[][..]),
        ("b", &["a", "b"], &["12:00:00"]),
        ("b", &["a"], &["12:00:00", "12:00:10"]),
    ] {
        let world = ModelWorld::new();
        let mut agent = director(&Doors::default(), &world);
        everything().into_iter().for_each(|event| agent.note(event));
        agent.act(Duration::ZERO).expect("a round");
        agent.note(directors(members));
        let edit = Change::Apply(group(Some(named)));
        agent.note(Event::DirectorGroup(edit));
        agent.act(Duration::from_secs(1)).expect("a round");
        for renewal in renewals {
            agent.note(lease("b", renewal));
        }
        agent.note(Event::Links);
        let observed = agent.act(Duration::from_secs(2)).expect("a round");
        assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "{named}");
        let stays = observed.outcome.expect("a round").kept;
        assert_eq!(stays[&ip(VIP)], Stay::NoHolder, "{named}");
    }
}

#[test]
fn the_lease_of_the_holder_is_looked_at_only_before_a_vip_is_given_up_or_taken_over() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &["a"], None);
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
    assert_eq!(looks(&world), [], "no other director");
    agent.note(directors(&["a", "b", "c"]));
    agent.act(s(1));
    assert_eq!(looks(&world), [], "there is nothing to take over");
    for (holder, expected) in [("b", vec![("b".to_owned(), 10)]), ("a", vec![])] {
        let edit = Change::Apply(group(Some(holder)));
        agent.note(Event::DirectorGroup(edit));
        agent.act(s(2));
        assert_eq!(looks(&world), expected, "{holder} is the holder");
    }
    agent.note(Event::DirectorGroup(Change::Apply(group(Some("b")))));
    agent.act(s(3));
    agent.hear_of("b", Some("12:00:00"), s(4));
    agent.hear_of("b", Some("12:00:10"), s(14));
    assert_eq!(world.interfaces_with(ip(VIP)), [""; 0], "b is live");
    agent.note(Event::Links);
    agent.act(s(15));
    let now = vec![("b".to_owned(), 60)];
    assert_eq!(looks(&world), now, "b may go out, and c matters only then");
}

#[test]
fn the_only_director_that_is_not_out_takes_the_vip_over_after_five_minutes() {
    for holder in [Some("b"), None] {
        let world = ModelWorld::new();
        let mut agent = settled(&world, &["a", "b", "c"], holder);
        assert_eq!(world.interfaces_with(ip(VIP)), [""; 0]);
        for look in (10..=310).step_by(60) {
            agent.hear_of("b", Some("12:00:00"), s(look));
        }
        assert_eq!(world.interfaces_with(ip(VIP)), [""; 0], "c may be live");
        let both = ["b", "c"].map(|name| (name.to_owned(), 60));
        assert_eq!(looks(&world), both);
        for look in [320, 380, 440, 500, 560, 619] {
            agent.hear_of("c", None, s(look));
            assert_eq!(world.interfaces_with(ip(VIP)), [""; 0], "at {look} s");
        }
        agent.hear_of("c", None, s(620));
        assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"], "{holder:?}");
        assert_eq!(world.parts().disk.taken_over, [ip(VIP)].into());

        agent.note(Event::Links);
        agent.act(s(630));
        agent.hear_of("b", Some("12:11:00"), s(640));
        agent.hear_of("b", Some("12:11:10"), s(650));
        let held = match holder {
            Some(_) => 0,
            None => 1,
        };
        let here = world.interfaces_with(ip(VIP));
        assert_eq!(here.len(), held, "b is back, holder {holder:?}");
    }
}

#[test]
fn a_director_does_not_take_over_while_another_renews_its_lease() {
    let world = ModelWorld::new();
    let mut agent = settled(&world, &["a", "b"], None);
    for look in 0..20_u64 {
        let renewal = format!("12:{look:02}:00");
        agent.hear_of("b", Some(&renewal), s(60 * look));
    }
    assert_eq!(world.interfaces_with(ip(VIP)), [""; 0]);
}
