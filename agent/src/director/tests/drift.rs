//! Tests how the director reacts when another process changes the kernel's
//! table.

use ipvs::Listing;

use super::*;
use crate::{
    fixtures::{self, weight},
    host::reading::Reading,
};

/// Returns a director whose kernel table is the wanted table.
fn settled(world: &ModelWorld) -> Loop {
    let mut agent = director(&Doors::default(), world);
    everything().into_iter().for_each(|event| agent.note(event));
    agent.act(Duration::from_secs(1)).expect("a round");
    assert_eq!(world.table().len(), 6);
    world.news();
    agent
}

fn services(world: &ModelWorld) -> Reading {
    let table = world.parts().kernel.table.clone();
    let services = table.into_iter().map(|(key, found)| (key, found.config));
    Reading::Services(services.collect())
}

fn table(world: &ModelWorld) -> Reading {
    Reading::Table(world.parts().kernel.table.clone())
}

/// Returns the model's kernel table as the text that a kernel would print for
/// two TCP services with NAT servers.
fn listing(world: &ModelWorld) -> Reading {
    let table = world.parts().kernel.table.clone();
    let mut text = "IP Virtual Server version 1.2.1 (size=4096)\n\
                    Prot LocalAddress:Port Scheduler Flags\n\
                    \x20 -> RemoteAddress:Port Forward Weight ActiveConn InActConn\n"
        .to_owned();
    for (key, service) in &table {
        let ServiceKey::Address { address, port, .. } = key else {
            panic!("no marks here");
        };
        let hex = |address: &std::net::IpAddr| match address {
            std::net::IpAddr::V4(address) => format!("{:08X}", u32::from(*address)),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        };
        let scheduler = &service.config.scheduler;
        text += &format!("TCP  {}:{port:04X} {scheduler} \n", hex(address));
        for (key, config) in &service.destinations {
            let (rip, port, weight) = (hex(&key.address), key.port, config.weight);
            text +=
                &format!("  -> {rip}:{port:04X}      Masq    {weight:<6} 0          0         \n");
        }
    }
    Reading::Listing(Listing::parse(&text))
}

fn change(world: &ModelWorld, port: u16, change: impl FnOnce(&mut ipvs::ActualService)) {
    let mut parts = world.parts();
    let service = parts.kernel.table.get_mut(&tcp(VIP, port));
    change(service.expect("a service of everything"));
}

/// Gives the director a reading that was taken now. Returns the operations that
/// the director then runs.
fn after(agent: &mut Loop, world: &ModelWorld, reading: Reading) -> Vec<String> {
    agent.note(Event::Reading(Instant::now(), reading));
    agent.act(Duration::from_secs(2));
    world.news()
}

#[test]
fn each_reading_finds_what_it_can_show_and_only_that_service_is_read_again() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let readings = world.parts().kernel.readings;
    for reading in [services, listing, table] {
        assert_eq!(after(&mut agent, &world, reading(&world)), [""; 0]);
        assert_eq!(world.parts().kernel.service_readings, 0, "nothing differs");
    }

    type Sees = fn(&ModelWorld) -> Reading;
    type Drift = fn(&mut ipvs::ActualService);
    let drifts: [(&str, Drift, &[Sees]); 4] = [
        (
            "-E -t 192.0.2.10:80 -s wrr",
            |s| s.config.scheduler = "lc".into(),
            &[services, listing, table],
        ),
        (
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            |s| s.destinations[0].weight = 9,
            &[listing, table],
        ),
        (
            "-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1",
            |s| s.destinations[0].upper_threshold = 9,
            &[table],
        ),
        (
            "-a -t 192.0.2.10:80 -r 198.51.100.2:80 -m -w 1",
            |s| s.destinations.truncate(1),
            &[listing, table],
        ),
    ];
    let mut count = 0;
    for (repair, drift, seers) in drifts {
        for sees in seers {
            change(&world, 80, drift);
            let news = after(&mut agent, &world, sees(&world));
            assert!(news.contains(&repair.to_owned()), "{repair}: {news:?}");
            assert_eq!(news.iter().filter(|line| line.starts_with('-')).count(), 1);
            count += 1;
        }
    }
    assert_eq!(
        world.parts().kernel.readings,
        readings,
        "the whole table is not read again"
    );
    assert_eq!(world.parts().kernel.service_readings, count);
}

#[test]
fn what_was_put_right_is_counted_and_named() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    change(&world, 80, |service| service.destinations[0].weight = 9);
    agent.note(Event::Reading(Instant::now(), listing(&world)));
    let observed = agent.act(Duration::from_secs(2)).expect("a round");
    let repairs = observed.outcome.expect("a round").repairs;
    assert_eq!(repairs.count, 1);
    assert_eq!(
        repairs.latest,
        ["-e -t 192.0.2.10:80 -r 198.51.100.1:80 -m -w 1"]
    );

    // The agent's own changes do not count as repairs.
    agent.note(Event::VirtualService(Change::Apply(service(80, "rr", 2))));
    let observed = agent.act(Duration::from_secs(3)).expect("a round");
    assert_eq!(observed.outcome.expect("a round").repairs.count, 1);

    world.parts().kernel.table.clear();
    agent.note(Event::Reading(Instant::now(), services(&world)));
    let observed = agent.act(Duration::from_secs(4)).expect("a round");
    assert_eq!(world.table().len(), 6, "all is there again");
    assert_eq!(observed.outcome.expect("a round").repairs.count, 7);
}

#[test]
fn a_strangers_entry_is_no_reason_for_a_round() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    let key = tcp("192.0.2.99", 1);
    let theirs = |service: Option<ipvs::ActualService>| {
        let table = &mut world.parts().kernel.table;
        match service {
            Some(service) => drop(table.insert(key, service)),
            None => drop(table.remove(&key)),
        }
    };
    theirs(Some(kernel_service("rr", &[(9, 1)])));
    agent.note(Event::Unread);
    agent.act(Duration::from_secs(2));
    for change in [Some(kernel_service("lc", &[(9, 5)])), None] {
        theirs(change);
        for reading in [services, listing] {
            agent.note(Event::Reading(Instant::now(), reading(&world)));
            assert_eq!(
                agent.reason,
                Reason::Nothing,
                "the entry differs from what is believed"
            );
        }
    }
    change(&world, 80, |service| {
        service.destinations.insert(fixtures::server(9), weight(5));
    });
    agent.note(Event::Reading(Instant::now(), listing(&world)));
    let observed = agent
        .act(Duration::from_secs(2))
        .expect("the news is reported");
    let outcome = observed.outcome.expect("a round");
    assert_eq!(outcome.strangers, [(tcp(VIP, 80), fixtures::server(9))]);
    assert_eq!(outcome.repairs.count, 0);
    assert_eq!(world.news(), [""; 0]);
}

#[test]
fn a_kernel_that_the_reader_cannot_read_is_read_by_the_loop() {
    let world = ModelWorld::new();
    let mut agent = settled(&world);
    world.parts().kernel.broken = Some(fixtures::broken);
    agent.note(Event::Unread);
    let observed = agent
        .act(Duration::from_secs(2))
        .expect("the news is reported");
    assert!(matches!(observed.trouble, Some(Trouble::Kernel(_))));
}
