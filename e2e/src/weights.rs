//! Watches the weights in a host's IPVS table continuously. The watcher misses
//! a weight change only if the change is undone before the next reading.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::{Host, eventually};

/// The pause between two readings of the IPVS table.
const INTERVAL: Duration = Duration::from_millis(20);

/// A service and one of its destinations, each in the form `192.168.4.5:80`.
pub type Key = (String, String);

/// A change of a destination's weight between two readings of the IPVS table.
#[derive(Clone, Debug)]
pub struct Change {
    /// The time just after the reading that first showed the new weight.
    pub at: Instant,
    /// The destination whose weight changed, with its service.
    pub key: Key,
    /// The new weight, or `None` if the destination is no longer in the table.
    pub weight: Option<u32>,
}

/// A watcher that reads the IPv4 part of a host's IPVS table in the background,
/// from /proc/net/ip_vs. Dropping a `Weights` ends the watch.
#[derive(Debug)]
pub struct Weights {
    shared: Arc<Shared>,
    watching: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: AtomicBool,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    weights: BTreeMap<Key, u32>,
    changes: Vec<Change>,
}

impl Weights {
    /// Starts to watch the weights of a host, and returns after the first
    /// reading. The weights of the first reading do not count as changes.
    ///
    /// # Panics
    /// Panics if the kernel has no IPVS.
    pub fn watch(host: &Host) -> Self {
        let shared = Arc::new(Shared::default());
        shared.seen().weights = host.enter(read);
        let watching = host.thread({
            let shared = Arc::clone(&shared);
            move || {
                while !shared.ended.load(Ordering::Relaxed) {
                    let weights = read();
                    // The clock is read after the table, so the recorded time
                    // is never earlier than the change of the weight.
                    shared.seen().note(Instant::now(), weights);
                    thread::sleep(INTERVAL);
                }
            }
        });
        Self {
            shared,
            watching: Some(watching),
        }
    }

    /// Returns the weights of all destinations from the last reading.
    pub fn now(&self) -> BTreeMap<Key, u32> {
        self.shared.seen().weights.clone()
    }

    /// Returns a destination's weight from the last reading, or `None` if the
    /// destination is not in the table.
    pub fn of(&self, service: &str, server: &str) -> Option<u32> {
        let key = (service.to_owned(), server.to_owned());
        self.shared.seen().weights.get(&key).copied()
    }

    /// Returns the weight changes since a given time, in order.
    pub fn changes(&self, since: Instant) -> Vec<Change> {
        let seen = self.shared.seen();
        let changes = seen.changes.iter();
        changes
            .skip_while(|change| change.at < since)
            .cloned()
            .collect()
    }

    /// Waits until a destination has the given weight. Returns the time at
    /// which the watcher read this weight. If `weight` is `None`, waits until
    /// the destination is not in the table.
    ///
    /// # Panics
    /// Panics if the destination does not get the weight in time. The panic
    /// message shows the destination's current weight.
    #[track_caller]
    pub fn wait_for(
        &self,
        (service, server): (&str, &str),
        weight: Option<u32>,
        within: Duration,
    ) -> Instant {
        let what = format!("weight {weight:?} of {server} in {service}");
        eventually(&what, within, || match self.of(service, server) {
            found if found == weight => Ok(()),
            found => Err(format!("{found:?}, in {:?}", self.now())),
        });
        let seen = self.shared.seen();
        let last = seen.changes.iter().rev();
        let mut ours = last.filter(|change| change.key.0 == service && change.key.1 == server);
        ours.next().map_or_else(Instant::now, |change| change.at)
    }
}

impl Drop for Weights {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        if let Some(watching) = self.watching.take() {
            let _ = watching.join();
        }
    }
}

impl Shared {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        // The recorded weights stay consistent even if a thread panics while it
        // holds the lock. A poisoned lock is therefore no problem.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn note(&mut self, at: Instant, weights: BTreeMap<Key, u32>) {
        let gone = self
            .weights
            .keys()
            .filter(|key| !weights.contains_key(*key));
        let gone: Vec<_> = gone.map(|key| (key.clone(), None)).collect();
        let other = weights
            .iter()
            .filter(|(key, weight)| self.weights.get(*key) != Some(weight))
            .map(|(key, weight)| (key.clone(), Some(*weight)));
        for (key, weight) in gone.into_iter().chain(other) {
            self.changes.push(Change { at, key, weight });
        }
        self.weights = weights;
    }
}

/// Reads the IPVS table of the current thread's network namespace.
fn read() -> BTreeMap<Key, u32> {
    let table = fs::read_to_string("/proc/thread-self/net/ip_vs");
    parse(&table.expect("the lab's kernel has ip_vs"))
}

fn parse(table: &str) -> BTreeMap<Key, u32> {
    let mut weights = BTreeMap::new();
    let mut service = None;
    for line in table.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("TCP" | "UDP"), Some(key)) => service = address(key),
            (Some("->"), Some(server)) => {
                let weight = words.nth(1).and_then(|weight| weight.parse().ok());
                if let (Some(service), Some(server), Some(weight)) =
                    (&service, address(server), weight)
                {
                    weights.insert((String::clone(service), server), weight);
                }
            }
            _ => service = None,
        }
    }
    weights
}

/// Converts a hexadecimal address and port such as `C0A80405:0050` to the form
/// `192.168.4.5:80`.
fn address(hexadecimal: &str) -> Option<String> {
    let (address, port) = hexadecimal.split_once(':')?;
    let address = Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?);
    let port = u16::from_str_radix(port, 16).ok()?;
    Some(SocketAddrV4::new(address, port).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contents of /proc/net/ip_vs on Linux 6.1.
    const TABLE: &str = "\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port Forward Weight ActiveConn InActConn
TCP  C0A80405:0050 wrr  
  -> C0A802C8:0050      Masq    0      0          0         
  -> C0A80264:0050      Masq    1      3          5         
";

    #[test]
    fn each_destination_has_its_weight() {
        let key = |last| ("192.168.4.5:80".to_owned(), format!("192.168.2.{last}:80"));
        assert_eq!(parse(TABLE), BTreeMap::from([(key(100), 1), (key(200), 0)]));
    }

    #[test]
    fn what_came_what_went_and_what_differs_is_a_change() {
        let mut seen = Seen::default();
        seen.note(Instant::now(), parse(TABLE));
        assert_eq!(seen.changes.len(), 2);
        seen.note(Instant::now(), parse(TABLE));
        assert_eq!(seen.changes.len(), 2, "nothing new");
        let lines = TABLE.lines().filter(|line| !line.contains("C0A802C8"));
        let left = lines.collect::<Vec<_>>().join("\n");
        seen.note(
            Instant::now(),
            parse(&left.replace("Masq    1", "Masq    7")),
        );
        let latest: Vec<_> = seen.changes[2..]
            .iter()
            .map(|change| change.weight)
            .collect();
        assert_eq!(latest, [None, Some(7)]);
    }
}
