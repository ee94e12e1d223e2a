use std::sync::Arc;

use crds::api::{DirectorHealth, UnhealthyServer, UnhealthyState};
use ipvs::{DestinationStatistics, Op, ServiceStatistics};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::*;
use crate::{
    fixtures::{self, named, server, service, tcp, wish},
    tell::report::{HealthReport, tests::well},
    trail::round::{Round, Seen, Wants},
};

const NOON: Timestamp = fixtures::NOON;

fn vip(port: u16) -> ServiceKey {
    tcp("192.0.2.10", port)
}

/// Returns a book after a round. The round wants port 80 with two healthy
/// servers, but has only the service. Port 81 is the agent's but not wanted.
fn book() -> Book {
    let wanted = |servers: &[(u8, u32)]| {
        let service = service("rr", servers);
        Some(Arc::new(WantedService {
            config: service.config,
            destinations: service.destinations,
        }))
    };
    let object = |name: &str| Object {
        namespace: "shop".into(),
        name: name.into(),
        generation: 1,
    };
    let web = Seen {
        ours: Some(service("rr", &[(1, 1), (2, 0)])),
        wants: Wants {
            desired: wanted(&[(1, 1), (2, 1)]),
            in_force: wanted(&[(1, 1), (2, 0)]),
            object: Some(object("web")),
            servers: [(server(1), object("web1")), (server(2), object("web2"))].into(),
            sorry: None,
            ended: Box::default(),
        },
    };
    let old = Seen {
        ours: Some(service("rr", &[])),
        wants: Wants::default(),
    };
    let mut book = Book::default();
    book.hear(Round {
        at: NOON,
        writes: Vec::new(),
        count: 0,
        is_whole: true,
        services: [(vip(80), web), (vip(81), old)].into(),
        host: None,
    });
    book
}

fn kernel() -> (ActualTable, Statistics) {
    let table = ActualTable::from([
        (vip(80), service("rr", &[(2, 0)])),
        (vip(81), service("rr", &[])),
        (vip(8080), service("wrr", &[(9, 1)])),
    ]);
    let counted = ServiceStatistics {
        destinations: [(
            server(2),
            DestinationStatistics {
                connections: Connections {
                    active: 3,
                    inactive: 12,
                    persistent: 0,
                },
                ..DestinationStatistics::default()
            },
        )]
        .into(),
        ..ServiceStatistics::default()
    };
    (table, Statistics::from([(vip(80), counted)]))
}

#[test]
fn each_row_tells_what_is_wanted_what_is_there_whose_it_is_and_what_is_wrong() {
    let (table, statistics) = kernel();
    let mut observed = well();
    observed.wishes = Arc::new(wish(&[(vip(80), "rr", &[(1, 1), (2, 1)])]));
    observed.health = Arc::new(HealthReport {
        found: Some(DirectorHealth {
            unhealthy: vec![UnhealthyServer {
                real_server: named("server2"),
                virtual_services: vec![named(&vip(80).to_string())],
                state: UnhealthyState::Down,
                since: Time(NOON),
                message: "connection refused".to_owned(),
            }],
            ..DirectorHealth::default()
        }),
        ..HealthReport::default()
    });
    observed.removals_held = vec![Op::DeleteService(vip(81))];
    let outcome = observed.outcome.as_mut().expect("there was a round");
    outcome.failures.insert(
        Subject::Destination(vip(80), server(1)),
        "cannot -a …: no memory".to_owned(),
    );
    let known = known(&book(), Some(&observed), Vec::new());
    let rows = known.with_kernel(&table, &statistics);
    assert_eq!(
        text(&rows, &[]).lines().collect::<Vec<_>>(),
        [
            "ENTRY                 KERNEL   ACTIVE  INACTIVE  OBJECT            REMARKS",
            "-t 192.0.2.10:80      -s rr                      shop/web",
            "  -> 198.51.100.1:80  missing                    shop/web1         should be -m -w 1; tried again: cannot -a …: no memory",
            "  -> 198.51.100.2:80  -m -w 0  3       12        shop/web2         wanted: -m -w 1; Down since 2027-01-15T08:00:00Z: connection refused",
            "-t 192.0.2.10:81      -s rr                      no longer wanted  its removal is held",
            "-t 192.0.2.10:8080    -s wrr                     -                 another program's",
            "  -> 198.51.100.9:80  -m -w 1                    -                 another program's",
        ]
    );
}

#[test]
fn without_an_agent_the_trail_tells_whose_each_entry_is() {
    let (table, statistics) = kernel();
    let rows = known_to_trail(book().ours).with_kernel(&table, &statistics);
    let whose: Vec<_> = rows
        .iter()
        .map(|row| (row.service.as_str(), row.destination.as_deref(), row.ours))
        .collect();
    assert_eq!(
        whose,
        [
            ("-t 192.0.2.10:80", None, true),
            ("-t 192.0.2.10:80", Some("198.51.100.1:80"), true),
            ("-t 192.0.2.10:80", Some("198.51.100.2:80"), true),
            ("-t 192.0.2.10:81", None, true),
            ("-t 192.0.2.10:8080", None, false),
            ("-t 192.0.2.10:8080", Some("198.51.100.9:80"), false),
        ]
    );
}
