//! The servers that this director drains, as its status reports them.

use std::{collections::BTreeMap, time::Duration};

use crds::{
    ObjectKey,
    api::{DirectorDrains, DrainCause, DrainingServer, int32},
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::fair::{Room, keep, names};

/// The size limits of the list of drained servers in a Director's status.
const DRAINS: Room = Room {
    bytes: 192 << 10,
    each: 500,
};
/// A number of connections that changes slowly is reported this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Two times that differ by less are the same: the second one was computed from
/// another clock.
const SAME: SignedDuration = SignedDuration::from_secs(2);

/// A server that gets no new connections, and why.
pub type Drained = (ObjectKey, DrainCause);

/// The drain of one server, over all services of this director.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerDrain {
    /// The number of connections that are left, or none if it is not known yet.
    pub left: Option<u32>,
    /// Whether no connection is left, or none if it is not known yet.
    pub is_idle: Option<bool>,
    /// When the drain began.
    pub since: Timestamp,
    /// When the time of the drain ends.
    pub until: Timestamp,
}

impl ServerDrain {
    /// Adds the drain of the same server in another service.
    pub fn add(&mut self, other: &Self) {
        self.left = self.left.zip(other.left).map(|(a, b)| a.saturating_add(b));
        self.is_idle = match (self.is_idle, other.is_idle) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        };
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
    }

    fn entry(&self, (server, cause): &Drained, connections: u32, drained: bool) -> DrainingServer {
        DrainingServer {
            real_server: server.clone(),
            cause: *cause,
            connections: i32::try_from(connections).unwrap_or(i32::MAX),
            drained,
            since: Time(self.since),
            until: Time(self.until),
        }
    }
}

/// What the status says of a server's drain.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Shown {
    left: u32,
    is_drained: bool,
    at: Duration,
}

impl Shown {
    /// Returns what the status should say from `now` on. The number of
    /// connections is written when half of it or nothing is left, and otherwise
    /// once a minute. A server whose connections are not known yet is not
    /// shown.
    fn next(before: Option<Self>, drain: &ServerDrain, now: Duration) -> Option<Self> {
        let new = |left, is_drained| {
            Some(Self {
                left,
                is_drained,
                at: now,
            })
        };
        let left = drain.left?;
        match (before, drain.is_idle) {
            (Some(shown), Some(true)) if shown.is_drained => before,
            (_, Some(true)) => new(0, true),
            // A last packet, such as a reset, does not end a drain again.
            (Some(shown), None) if shown.is_drained => before,
            // The next readings tell whether the server is drained.
            (None, None) => None,
            (None, Some(false)) => new(left, false),
            (Some(shown), _) => {
                let is_half = left <= shown.left / 2 && left < shown.left;
                let is_time = left != shown.left && now >= shown.at + INTERVAL;
                match shown.is_drained || is_half || is_time {
                    true => new(left, false),
                    false => before,
                }
            }
        }
    }
}

/// The drained servers of this director.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DrainReport {
    servers: BTreeMap<Drained, (ServerDrain, Option<Shown>)>,
}

impl DrainReport {
    /// Returns the report of the drains at `now`. `self` is the report before.
    #[must_use]
    pub fn next(&self, drains: BTreeMap<Drained, ServerDrain>, now: Duration) -> Self {
        let next = |(server, mut drain): (Drained, ServerDrain)| {
            let before = self.servers.get(&server);
            let mut shown = before.and_then(|(_, shown)| *shown);
            if let Some((before, _)) = before {
                let since = steady(before.since, drain.since);
                // A server that is drained again is shown anew.
                shown = shown.filter(|_| since == before.since);
                drain.since = since;
                drain.until = steady(before.until, drain.until);
            }
            let shown = Shown::next(shown, &drain, now);
            (server, (drain, shown))
        };
        Self {
            servers: drains.into_iter().map(next).collect(),
        }
    }

    /// Returns the drained servers with the last known number of their
    /// connections.
    pub fn exact(&self) -> Vec<DrainingServer> {
        let servers = self.servers.iter();
        let exact = servers.map(|(server, (drain, _))| {
            let is_drained = drain.is_idle == Some(true);
            drain.entry(server, drain.left.unwrap_or_default(), is_drained)
        });
        exact.collect()
    }

    /// Returns the field `drains` of the status. While nothing is known of a
    /// server, its entry in `before` stays.
    pub(super) fn status(&self, before: Option<&DirectorDrains>) -> Option<DirectorDrains> {
        if self.servers.is_empty() {
            return None;
        }
        let before = before.into_iter().flat_map(|before| &before.servers);
        let before: BTreeMap<_, _> = before
            .map(|entry| ((&entry.real_server, entry.cause), entry))
            .collect();
        let entry = |(server, (drain, shown)): (&Drained, &(ServerDrain, Option<Shown>))| {
            let before = before.get(&(&server.0, server.1)).copied();
            let Some(shown) = shown else {
                let is_same = |before: &&DrainingServer| {
                    steady(before.since.0, drain.since) == before.since.0
                };
                return before.filter(is_same).cloned();
            };
            let mut entry = drain.entry(server, shown.left, shown.is_drained);
            if let Some(before) = before {
                entry.since.0 = steady(before.since.0, entry.since.0);
                entry.until.0 = steady(before.until.0, entry.until.0);
            }
            Some(entry)
        };
        let entries: Vec<_> = self.servers.iter().filter_map(entry).collect();
        if entries.is_empty() {
            return None;
        }
        fn namespace(entry: &DrainingServer) -> &str {
            &entry.real_server.namespace
        }
        let (servers, left_out) = keep(entries, namespace, DRAINS);
        Some(DirectorDrains {
            servers,
            omitted: int32(left_out.len()),
            omitted_namespaces: names(left_out.iter().map(namespace)),
        })
    }
}

/// Returns `before` if `now` is the same time.
fn steady(before: Timestamp, now: Timestamp) -> Timestamp {
    match now.duration_since(before).abs() < SAME {
        true => before,
        false => now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn drain(left: Option<u32>, is_idle: Option<bool>) -> ServerDrain {
        ServerDrain {
            left,
            is_idle,
            since: Timestamp::from_second(1000).unwrap(),
            until: Timestamp::from_second(1300).unwrap(),
        }
    }

    fn web() -> Drained {
        (ObjectKey::new("shop", "web-1"), DrainCause::Drained)
    }

    /// Returns what the status says after each of the readings, each at its
    /// second: the number of connections, or "drained", or nothing.
    fn shown(readings: &[(u64, Option<u32>, Option<bool>)]) -> Vec<String> {
        let mut report = DrainReport::default();
        let said = readings.iter().map(|(second, left, is_idle)| {
            let drains = BTreeMap::from([(web(), drain(*left, *is_idle))]);
            report = report.next(drains, at(*second));
            match report.status(None) {
                None => String::new(),
                Some(status) if status.servers[0].drained => "drained".to_owned(),
                Some(status) => status.servers[0].connections.to_string(),
            }
        });
        said.collect()
    }

    #[test]
    fn the_number_is_told_at_the_start_at_each_halving_at_zero_and_once_a_minute() {
        let busy = Some(false);
        assert_eq!(
            shown(&[
                (0, None, None),
                (2, Some(20), busy),
                (4, Some(19), busy),
                (6, Some(11), busy),
                (8, Some(10), busy),
                (10, Some(6), busy),
                (68, Some(6), busy),
                (70, Some(3), busy),
                (72, Some(0), None),
                (82, Some(0), Some(true)),
            ]),
            ["", "20", "20", "20", "10", "10", "6", "3", "0", "drained"]
        );
    }

    #[test]
    fn a_server_without_connections_is_told_once_it_is_known_to_be_drained() {
        assert_eq!(
            shown(&[
                (2, Some(0), None),
                (4, Some(0), None),
                (12, Some(0), Some(true)),
                (14, Some(0), None),
                (16, Some(1), Some(false)),
            ]),
            ["", "", "drained", "drained", "1"],
            "a last packet is no news, and a connection is"
        );
    }

    #[test]
    fn after_a_restart_the_status_stays_until_the_servers_were_read() {
        let report = DrainReport::default();
        let known = BTreeMap::from([(web(), drain(Some(7), Some(false)))]);
        let before = report.next(known, at(2)).status(None);
        let mut again = drain(None, None);
        again.since = Timestamp::from_second(1001).unwrap();
        let report = report.next(BTreeMap::from([(web(), again.clone())]), at(0));
        assert_eq!(report.status(before.as_ref()), before, "also the times");

        again.since = Timestamp::from_second(1100).unwrap();
        let report = report.next(BTreeMap::from([(web(), again)]), at(0));
        assert_eq!(report.status(before.as_ref()), None, "it is another drain");
    }
}
