//! A thread that reads the kernel's table regularly, to notice changes by other
//! processes. The thread makes no decisions, because the loop reads the table
//! again before it writes ([`crate::director`]).
//!
//! The thread takes three kinds of readings, from the cheapest to the most
//! complete. A fourth kind reads the connections of the services that the loop
//! follows, because it drains their servers. After each reading the thread rests
//! for a multiple of the reading's duration. Because of the rests, reading even
//! a large table takes only a small share of a processor.

use std::{
    collections::BTreeSet,
    fs,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
    thread,
    time::{Duration, Instant},
};

use ipvs::{Kernel, Listing, ServiceKey, Socket};

use crate::{
    event::Event,
    host::reading::{Loads, Reading, loads},
};

/// The file with the kernel's table as text, for this thread's network
/// namespace.
const LISTING: &str = "/proc/thread-self/net/ip_vs";
/// The wait after a failed reading of the kernel's table. The wait is long
/// because opening a socket may make the kernel run modprobe.
const AFTER_FAILURE: Duration = Duration::from_secs(10);

#[derive(Clone, Copy)]
enum Kind {
    Services,
    Listing,
    Table,
    Loads,
}

/// The services whose connections the thread reads. The loop sets them.
#[derive(Clone, Debug, Default)]
pub struct Followed(Arc<Mutex<Arc<BTreeSet<ServiceKey>>>>);

impl Followed {
    /// Replaces the services.
    pub fn set(&self, services: BTreeSet<ServiceKey>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(services);
    }

    /// Returns the services.
    pub fn get(&self) -> Arc<BTreeSet<ServiceKey>> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Decides when the next reading of one kind is due.
struct Schedule {
    kind: Kind,
    interval: Duration,
    rest: u32,
    longest: Duration,
    due: Instant,
}

impl Schedule {
    fn new(kind: Kind, interval_ms: u64, rest: u32, longest_s: u64) -> Self {
        let interval = Duration::from_millis(interval_ms);
        Self {
            kind,
            interval,
            rest,
            longest: Duration::from_secs(longest_s),
            due: Instant::now() + interval,
        }
    }

    fn taken(&mut self, began: Instant) {
        let rest = (began.elapsed() * self.rest).min(self.longest);
        self.due = Instant::now() + self.interval.max(rest);
    }
}

/// Takes readings of the kernel's table until the loop has ended.
pub fn watch(events: &Sender<Event>, followed: &Followed) {
    let mut schedules = [
        Schedule::new(Kind::Services, 1500, 60, 60),
        Schedule::new(Kind::Listing, 5000, 100, 60),
        Schedule::new(Kind::Table, 8000, 150, 60),
        Schedule::new(Kind::Loads, 2000, 20, 60),
    ];
    let mut socket = None;
    let mut is_said = false;
    loop {
        let next = schedules
            .iter_mut()
            .min_by_key(|schedule| schedule.due)
            .expect("there are four schedules");
        thread::sleep(next.due.saturating_duration_since(Instant::now()));
        let began = Instant::now();
        match take(next.kind, followed, &mut socket) {
            Ok(taken) => {
                next.taken(began);
                let event = match taken {
                    Taken::Nothing => continue,
                    Taken::Reading(reading) => Event::Reading(began, reading),
                    Taken::Loads(loads) => Event::Loads(began, loads),
                };
                if events.send(event).is_err() {
                    return;
                }
            }
            Err(error) if matches!(next.kind, Kind::Listing) => {
                if !is_said {
                    tracing::warn!(
                        "{error}: a weight that another process changes is noticed later"
                    );
                    is_said = true;
                }
                next.due = Instant::now() + next.longest;
            }
            Err(_) => {
                // This thread logs no error: the loop then fails to read the
                // table too, and reports its own error.
                if events.send(Event::Unread).is_err() {
                    return;
                }
                socket = None;
                next.due = Instant::now() + AFTER_FAILURE;
                thread::sleep(AFTER_FAILURE);
            }
        }
    }
}

enum Taken {
    /// There is nothing to read.
    Nothing,
    Reading(Reading),
    Loads(Loads),
}

fn take(
    kind: Kind,
    followed: &Followed,
    socket: &mut Option<Socket>,
) -> Result<Taken, ipvs::Error> {
    if let Kind::Listing = kind {
        let failed = |source| ipvs::Error::Io {
            doing: "reading /proc/net/ip_vs",
            source,
        };
        let text = fs::read_to_string(LISTING).map_err(failed)?;
        return Ok(Taken::Reading(Reading::Listing(Listing::parse(&text))));
    }
    let services = followed.get();
    if matches!(kind, Kind::Loads) && services.is_empty() {
        return Ok(Taken::Nothing);
    }
    let socket = match socket {
        Some(socket) => socket,
        None => socket.insert(Socket::open()?),
    };
    Ok(match kind {
        Kind::Loads => Taken::Loads(loads(socket, services.iter())?),
        Kind::Table => Taken::Reading(Reading::Table(socket.table()?)),
        _ => Taken::Reading(Reading::Services(socket.services()?)),
    })
}
