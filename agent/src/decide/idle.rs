//! Finds the servers to which no connection is left. The code is pure: time is
//! an argument.
//!
//! The kernel's counter of active connections is not enough. A client that has
//! closed its direction of a connection and still downloads counts as inactive,
//! because the director of a DR server sees only the client's packets
//! (FIN_WAIT, CLOSE_WAIT). So a server is idle only after a while without
//! packets.

use std::{collections::BTreeMap, time::Duration};

use ipvs::{Protocol, ServiceKey};

use crate::{
    decide::departures::Place,
    host::reading::{Load, Loads},
};

/// How long no packet must have gone to a server before it is idle.
const QUIET: Duration = Duration::from_secs(10);

/// The load of the servers in the services that the reader follows.
#[derive(Debug, Default)]
pub struct Idle {
    /// The last reading, and when it began.
    loads: Loads,
    read: Duration,
    /// When the number of packets of each server last differed from the reading
    /// before.
    moved: BTreeMap<Place, Duration>,
}

impl Idle {
    /// Records a reading that began at `at`.
    pub fn hear(&mut self, at: Duration, loads: Loads) {
        let before = std::mem::replace(&mut self.loads, loads);
        let moved = std::mem::take(&mut self.moved);
        for (service, servers) in &self.loads {
            for (server, load) in servers {
                let place = (*service, *server);
                let last = before.get(service).and_then(|servers| servers.get(server));
                let is_same = last.is_some_and(|last| last.packets == load.packets);
                let moved = moved.get(&place).filter(|_| is_same);
                self.moved.insert(place, moved.copied().unwrap_or(at));
            }
        }
        self.read = at;
    }

    /// Returns how many connections to a server are left, or none if its
    /// service was not read.
    pub fn left(&self, (service, server): &Place) -> Option<u32> {
        let load = self.loads.get(service)?.get(server);
        Some(load.map_or(0, |load| left(service, *load)))
    }

    /// Whether the kernel certainly has no connection to a server, not even a
    /// closed one.
    pub fn is_empty(&self, (service, server): &Place) -> bool {
        let servers = self.loads.get(service);
        servers.is_some_and(|servers| {
            let load = servers.get(server).copied().unwrap_or_default();
            load.active == 0 && load.inactive == 0 && load.persistent == 0
        })
    }

    /// Whether no connection to a server is left, or none if this is not known
    /// yet. A server that the kernel does not have has no connections.
    pub fn is_idle(&self, place: &Place) -> Option<bool> {
        let (service, server) = place;
        let Some(load) = self.loads.get(service)?.get(server) else {
            return Some(true);
        };
        if left(service, *load) > 0 || load.persistent > 0 {
            return Some(false);
        }
        let moved = self.moved.get(place).copied().unwrap_or(self.read);
        (self.read >= moved + QUIET).then_some(true)
    }
}

/// Returns the number of connections that count. Only TCP and SCTP have active
/// connections: those of other protocols are always inactive
/// (`ip_vs_bind_dest` in `net/netfilter/ipvs/ip_vs_conn.c`). A service with a
/// firewall mark may have any protocol. Inactive connections of TCP are closed
/// or half-closed, and need no more packets once none comes.
fn left(service: &ServiceKey, load: Load) -> u32 {
    let has_states = match service {
        ServiceKey::Address { protocol, .. } => [Protocol::TCP, Protocol::SCTP].contains(protocol),
        ServiceKey::FirewallMark { .. } => false,
    };
    match has_states {
        true => load.active,
        false => load.active.saturating_add(load.inactive),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::{server, tcp};

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn udp() -> ServiceKey {
        ServiceKey::Address {
            protocol: Protocol::UDP,
            address: "192.0.2.10".parse().unwrap(),
            port: 53,
        }
    }

    /// Returns a reading of server 1 in a service.
    fn reading(service: ServiceKey, load: Load) -> Loads {
        Loads::from([(service, BTreeMap::from([(server(1), load)]))])
    }

    fn load(active: u32, inactive: u32, packets: u64) -> Load {
        Load {
            active,
            inactive,
            persistent: 0,
            packets,
        }
    }

    #[test]
    fn a_server_is_idle_ten_seconds_after_its_last_packet() {
        let place = (tcp("192.0.2.10", 80), server(1));
        let mut idle = Idle::default();
        assert_eq!(idle.is_idle(&place), None, "nothing was read");
        for (second, packets, expected) in [
            (0, 5, None),
            (8, 5, None),
            (9, 6, None),
            (18, 6, None),
            (19, 6, Some(true)),
            (20, 7, None),
        ] {
            idle.hear(at(second), reading(place.0, load(0, 9, packets)));
            assert_eq!(idle.is_idle(&place), expected, "at {second} s");
            assert_eq!(idle.left(&place), Some(0), "inactive ones are closing");
        }
    }

    #[test]
    fn a_connection_or_a_bound_client_is_left_however_quiet_it_is() {
        let service = tcp("192.0.2.10", 80);
        let bound = Load {
            persistent: 1,
            ..load(0, 0, 0)
        };
        for (service, load, left) in [
            (service, load(1, 0, 0), 1),
            (service, bound, 0),
            (udp(), load(0, 3, 0), 3),
            (
                ServiceKey::FirewallMark {
                    family: ipvs::Family::V4,
                    mark: 7,
                },
                load(1, 3, 0),
                4,
            ),
        ] {
            let mut idle = Idle::default();
            for second in [0, 100] {
                idle.hear(at(second), reading(service, load));
            }
            let place = (service, server(1));
            assert_eq!(idle.is_idle(&place), Some(false), "{service:?} {load:?}");
            assert_eq!(idle.left(&place), Some(left), "{service:?} {load:?}");
        }
    }

    #[test]
    fn a_server_that_the_kernel_does_not_have_is_idle() {
        let service = tcp("192.0.2.10", 80);
        let mut idle = Idle::default();
        idle.hear(at(0), reading(service, load(4, 0, 9)));
        idle.hear(at(2), Loads::from([(service, BTreeMap::new())]));
        assert_eq!(idle.is_idle(&(service, server(1))), Some(true));
        idle.hear(at(4), Loads::new());
        assert_eq!(idle.is_idle(&(service, server(1))), None, "it is forgotten");
    }
}
