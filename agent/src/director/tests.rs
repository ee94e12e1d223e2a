use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use crds::{
    Change, Loose, ObjectKey,
    api::{DirectorGroup, RealServer, VirtualService, WorldDigests},
};
use serde_json::json;
use tokio::sync::mpsc::unbounded_channel;

use super::{hear::LONGEST_PAUSE, *};
use crate::{
    act::Outcome,
    decide::addresses::{Missing, Stay},
    fixtures::{ModelWorld, ip, service as kernel_service, tcp},
};

mod absent;
mod budgets;
mod cautious;
mod drains;
mod drift;
mod grants;
mod health;
mod health_steps;
mod holder;
mod looks;
mod no_journal;
mod peers;
mod places;
mod protect;
mod refused;
mod replaced;
mod restored;
mod running;
mod silent;
mod trail;
mod walk;

use self::running::*;

#[test]
fn what_was_listed_is_in_the_kernel_and_observed_with_its_digests() {
    let running = Running::start(ModelWorld::new());
    running.send(everything());
    let observed = running.programmed(2, 4);
    assert_eq!(
        running.world.table(),
        [
            "-A -t 192.0.2.10:80 -s wrr",
            "-a -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            "-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 1",
            "-A -t 192.0.2.10:443 -s wrr",
            "-a -t 192.0.2.10:443 -r 198.51.100.1:443 -m -w 1",
            "-a -t 192.0.2.10:443 -r 198.51.100.2:443 -m -w 1",
        ]
    );
    let outcome = observed.outcome.expect("there was a round");
    assert_eq!(outcome.vips[&ip(VIP)], "eth0");
    assert_eq!(observed.trouble, None);

    let used = observed.used.expect("there was a round");
    let of = |uid: &str, labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        crds::Digest::of(uid, 1, &labels.collect())
    };
    let web = [("app", "web")];
    assert_eq!(
        used,
        WorldDigests {
            virtual_services: (of("service80", &[]) ^ of("service443", &[])).to_string(),
            real_servers: (of("server1", &web) ^ of("server2", &web)).to_string(),
            director_groups: of("group", &[]).to_string(),
        }
    );
    running.stop();
}

#[test]
fn nothing_is_written_before_every_kind_was_listed() {
    let wished = [
        services([service(80, "wrr", 1)]),
        servers([server(1)]),
        groups([group(None)]),
    ];
    for missing in 0..wished.len() {
        let world = ModelWorld::new();
        let mut agent = director(&Doors::default(), &world);
        agent.note(directors(&["a"]));
        let last = |index: &usize| (*index == missing, *index);
        let mut order: Vec<_> = (0..wished.len()).collect();
        order.sort_by_key(last);
        for index in order {
            assert_eq!(agent.act(Duration::ZERO).map(|o| o.outcome), None);
            assert_eq!(world.news(), [""; 0], "{missing} is not listed yet");
            let events = match index {
                0 => services([service(80, "wrr", 1)]),
                1 => servers([server(1)]),
                _ => groups([group(None)]),
            };
            for event in events {
                agent.note(event);
            }
        }
        let observed = agent.act(Duration::ZERO).expect("all is listed");
        assert_eq!(observed.outcome.expect("a round").services, 1);
    }
}

#[test]
fn a_restart_writes_nothing_while_objects_come_in_one_by_one() {
    let running = started_with_everything();
    let world = running.world.clone();
    running.stop();
    let readings = world.parts().kernel.readings;
    let mut agent = director(&Doors::default(), &world);
    for event in everything() {
        agent.note(event);
        agent.act(Duration::ZERO);
    }
    assert_eq!(world.news(), [""; 0]);
    assert_eq!(world.parts().kernel.readings, readings + 1);
}

#[test]
fn a_group_that_does_not_exist_changes_nothing_and_is_reported() {
    let running = started_with_everything();
    let world = running.world.clone();
    running.stop();
    let running = Running::start(world);
    running.send(services([service(80, "rr", 2)]));
    running.send(servers([]));
    running.send(groups([]));
    let trouble = running.trouble();
    assert_eq!(trouble, Trouble::Group("default".into()));
    assert_eq!(running.world.news(), [""; 0], "not even removals");
    running.send([
        Event::DirectorGroup(Change::Apply(group(None))),
        directors(&["a"]),
    ]);
    running.programmed(1, 0);
    running.stop();
}

#[test]
fn a_group_that_was_deleted_stays_in_force() {
    let running = started_with_everything();
    let key = ObjectKey::cluster("default");
    running.send([Event::DirectorGroup(Change::Delete(key))]);
    let observed = running.programmed(2, 4);
    assert_eq!(observed.trouble, None);
    assert_eq!(running.world.news(), [""; 0]);
    running.stop();
}

#[test]
fn a_kernel_that_cannot_be_opened_is_opened_later() {
    let doors = Doors::default();
    doors.kernel_fails.store(3, SeqCst);
    let running = Running::with_doors(ModelWorld::new(), doors);
    running.send(everything());
    let Trouble::Kernel(message) = running.trouble() else {
        panic!("the kernel is the trouble");
    };
    assert!(message.contains("modprobe ip_vs"), "{message}");
    let observed = running.programmed(2, 4);
    assert_eq!(observed.trouble, None, "the trouble is over");
    assert_eq!(running.doors.kernel_opened.load(SeqCst), 4);
    assert_eq!(running.doors.opened.load(SeqCst), 1, "the journal once");
    running.stop();
}

#[test]
fn lost_replies_keep_the_socket_and_other_errors_open_another() {
    for (error, reopens) in [
        ((|| ipvs::Error::RepliesLost) as fn() -> ipvs::Error, false),
        (crate::fixtures::broken, true),
    ] {
        let running = started_with_everything();
        running.world.parts().kernel.broken = Some(error);
        let edit = Change::Apply(service(80, "rr", 2));
        running.send([Event::VirtualService(edit)]);
        // This round does not read the kernel's table, so the first call that
        // fails is a write.
        let trouble = running.trouble();
        assert_eq!(trouble, Trouble::Kernel(error().to_string()));
        running.world.parts().kernel.broken = None;
        running.programmed(2, 4);
        assert_eq!(running.world.table()[0], "-A -t 192.0.2.10:80 -s rr");
        let now = running.doors.kernel_opened.load(SeqCst);
        match reopens {
            false => assert_eq!(now, 1, "the socket is good after: {trouble}"),
            true => assert!(now > 1, "another socket is needed after: {trouble}"),
        }
        running.stop();
    }
}

#[test]
fn stop_leaves_everything_as_it_is() {
    let running = started_with_everything();
    let world = running.world.clone();
    let table = world.table();
    running.stop();
    assert_eq!(world.news(), [""; 0]);
    assert_eq!(world.table(), table);
    assert_eq!(world.interfaces_with(ip(VIP)), ["eth0"]);
}

#[test]
fn the_loop_stops_when_all_senders_of_events_are_gone() {
    let Running {
        world,
        events,
        thread,
        ..
    } = started_with_everything();
    drop(events);
    thread.join().expect("the loop ends well");
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn a_deleted_object_is_removed() {
    let running = started_with_everything();
    let web = |name: &str| ObjectKey::new("shop", name);
    running.send([Event::VirtualService(Change::Delete(web("web80")))]);
    running.programmed(1, 2);
    assert_eq!(running.world.news(), ["-D -t 192.0.2.10:80", "settle"]);
    running.send([Event::RealServer(Change::Delete(web("web1")))]);
    running.programmed(1, 1);
    running.send([Event::VirtualService(Change::Delete(web("web443")))]);
    running.programmed(0, 0);
    assert_eq!(running.world.interfaces_with(ip(VIP)), [""; 0]);
    running.stop();
}

#[test]
fn what_a_new_listing_does_not_name_is_removed_when_it_is_complete() {
    let running = started_with_everything();
    let mut relisted = services([service(443, "wrr", 1)]);
    let end = relisted.pop();
    running.send(relisted);
    running.send([Event::RealServer(Change::Apply(server(3)))]);
    running.programmed(2, 6);
    running.send(end);
    running.programmed(1, 3);
    running.stop();
}

#[test]
fn an_edit_that_does_not_parse_keeps_the_last_good_version_in_force() {
    let running = started_with_everything();
    let newer = service(80, "quantum", 2);
    assert!(newer.spec.is_err(), "a newer version's scheduler");
    running.send([Event::VirtualService(Change::Apply(newer))]);
    let observed = running.until("a round with the new digest", |o| !o.unreadable.is_empty());
    let [exception] = observed.unreadable.as_slice() else {
        panic!("one object is unreadable: {:?}", observed.unreadable);
    };
    assert_eq!(exception.virtual_service.to_string(), "shop/web80");
    assert!(exception.message.contains("quantum"), "{exception:?}");
    assert_eq!(running.world.news(), [""; 0], "the kernel stays as it is");

    // An unreadable object's last good version stays in force, and changes of
    // other objects take effect.
    running.send([Event::RealServer(Change::Apply(server(3)))]);
    running.programmed(2, 6);
    let good = Change::Apply(service(80, "rr", 3));
    running.send([Event::VirtualService(good)]);
    let observed = running.programmed(2, 6);
    assert_eq!(observed.unreadable, []);
    assert_eq!(running.world.table()[0], "-A -t 192.0.2.10:80 -s rr");
    running.stop();
}

#[test]
fn the_vip_goes_to_the_director_that_the_group_names() {
    let running = Running::start(ModelWorld::new());
    let mut events = everything();
    events[0] = directors(&["a", "b"]);
    running.send(events);
    let observed = running.programmed(2, 4);
    let outcome = observed.outcome.expect("a round");
    assert_eq!(outcome.missing[&ip(VIP)], Missing::HolderNotNamed);
    for (holder, here) in [(Some("a"), 1), (None, 1), (Some("b"), 0), (Some("a"), 1)] {
        let edit = Change::Apply(group(holder));
        running.send([Event::DirectorGroup(edit)]);
        if holder == Some("b") {
            let observed = running.programmed(2, 4);
            let stays = observed.outcome.expect("a round").kept;
            assert_eq!(stays[&ip(VIP)], Stay::NoHolder, "b may be dead");
            let asked = running.world.parts().leases_asked.clone();
            assert!(asked.contains_key("b"), "{asked:?}");
            running.send([lease("b", "12:00:00"), lease("b", "12:00:10")]);
        }
        let observed = running.programmed(2, 4);
        let held = observed.outcome.expect("a round").vips.len();
        assert_eq!(held, here, "{holder:?} is named");
        assert_eq!(running.world.interfaces_with(ip(VIP)).len(), here);
    }
    running.stop();
}

#[test]
fn what_failed_is_tried_again_without_an_event() {
    let running = started_with_everything();
    let edit = Change::Apply(service(80, "twos", 2));
    running.send([Event::VirtualService(edit)]);
    running.until("the refusal", |observed| {
        let outcome = observed.outcome.as_ref();
        outcome.is_some_and(|outcome| !outcome.failures.is_empty())
    });
    let loaded = "twos".to_owned();
    running.world.parts().kernel.schedulers.insert(loaded);
    running.programmed(2, 4);
    assert_eq!(running.world.table()[0], "-A -t 192.0.2.10:80 -s twos");
    running.stop();
}

/// Even while no round can run, the loop's next deadline must be in the future.
/// With a deadline in the past, the loop would run without a pause.
#[test]
fn the_loop_sleeps_also_while_no_round_can_run() {
    let minute = LONGEST_PAUSE;
    let world = ModelWorld::new();
    let doors = Doors::default();
    let mut agent = director(&doors, &world);
    agent.act(minute);
    assert!(
        agent.next_deadline(minute) > minute,
        "nothing was listed so far"
    );

    for event in everything() {
        agent.note(event);
    }
    agent.note(Event::VirtualService(Change::Apply(service(80, "twos", 2))));
    agent.act(minute);
    let due = agent.next_deadline(minute);
    assert!(due < minute * 2, "a refused service is tried again soon");

    world.parts().kernel.broken = Some(crate::fixtures::broken);
    agent.state.distrust();
    agent.note(Event::RealServer(Change::Apply(server(3))));
    let mut now = due;
    for _ in 0..20 {
        let observed = agent.act(now);
        assert!(agent.trouble.is_some(), "{observed:?}");
        assert!(
            agent.next_deadline(now) > now,
            "the kernel is away at {now:?}"
        );
        now = agent.next_deadline(now);
    }
}

#[test]
fn a_kernel_that_opens_and_does_not_answer_is_asked_less_and_less_often() {
    let world = ModelWorld::new();
    let mut agent = director(&Doors::default(), &world);
    for event in everything() {
        agent.note(event);
    }
    world.parts().kernel.broken = Some(crate::fixtures::broken);
    let mut now = Duration::ZERO;
    let mut waits = Vec::new();
    for _ in 0..5 {
        agent.act(now);
        waits.push((agent.next_deadline(now) - now).as_millis());
        now = agent.next_deadline(now);
    }
    assert_eq!(waits, [100, 200, 400, 800, 1600]);
    world.parts().kernel.broken = None;
    let observed = agent.act(now).expect("it answers again");
    assert_eq!(observed.trouble, None);
    assert_eq!(world.table().len(), 6);
}
