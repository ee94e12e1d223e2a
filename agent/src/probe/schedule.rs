//! When each target is probed. Pure: time is an argument, counted from some
//! start.
//!
//! Each target has a grid of its own, with one slot per period. The grids'
//! phases are spread over the period, from a random start, so that several
//! directors are not in step. A probe that could not begin in its slot begins
//! later; slots that were missed are not made up for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use crate::event::probed::ProbeId;

/// The longest time between the first probes of two new targets.
const NEW_ONES_APART: Duration = Duration::from_millis(20);
/// The shortest period of a target.
const SHORTEST: Duration = Duration::from_millis(1);
/// A probe is late by a random part of its period, at most the period divided
/// by this.
const JITTER: u32 = 50;
/// How many probes may begin at once, however few are due on average.
const BURST: u32 = 16;
/// As many more may begin at once as the pace allows in this time.
const BURST_TIME: Duration = Duration::from_millis(40);
/// 2^64 divided by the golden ratio: multiples of it, modulo 2^64, are spread
/// evenly, however many there are (D. Knuth, TAOCP 3, section 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// What is probed, and when next.
#[derive(Debug)]
pub(super) struct Schedule {
    keys: HashMap<ProbeId, Key>,
    waiting: BTreeSet<(Duration, ProbeId)>,
    grids: BTreeMap<Duration, Grid>,
    pace: Pace,
    in_flight: HashSet<ProbeId>,
    flights: u64,
    most_in_flight: usize,
    random: fastrand::Rng,
}

/// A probe that has begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Flight {
    /// The target that is probed.
    pub(super) id: ProbeId,
    /// The number of this probe, counted over all targets.
    number: u64,
    /// How long after it was due the probe began. None for the first probe of a
    /// target, which is due at no certain time.
    pub(super) lateness: Option<Duration>,
}

#[derive(Debug)]
struct Key {
    period: Duration,
    slot: u32,
    phase: Duration,
    due: Duration,
    is_new: bool,
    /// Flights up to this number were of an earlier target with the same name.
    others: u64,
}

impl Schedule {
    /// Nothing is probed yet. At most `most_in_flight` probes will be in flight
    /// at once; what is due and does not fit waits.
    pub(super) fn new(most_in_flight: usize, random: fastrand::Rng) -> Self {
        Self {
            keys: HashMap::new(),
            waiting: BTreeSet::new(),
            grids: BTreeMap::new(),
            pace: Pace::default(),
            in_flight: HashSet::new(),
            flights: 0,
            most_in_flight: most_in_flight.max(1),
            random,
        }
    }

    /// From now on this is probed once per period, for the first time soon:
    /// when many targets are new at once, each begins at most 20 ms after the one
    /// before, or a fair part of the period if that is less.
    pub(super) fn insert(&mut self, id: ProbeId, period: Duration, now: Duration) {
        self.remove(id);
        let period = period.max(SHORTEST);
        let random = &mut self.random;
        let grid = self.grids.entry(period).or_insert_with(|| Grid {
            origin: random.u64(..),
            free: BTreeSet::new(),
            used: 0,
        });
        let slot = grid.take();
        let key = Key {
            period,
            slot,
            phase: grid.phase(slot, period),
            due: now,
            is_new: true,
            others: self.flights,
        };
        self.keys.insert(id, key);
        if !self.in_flight.contains(&id) {
            self.waiting.insert((now, id));
        }
        self.adjust_pace();
    }

    /// Stops probing this. A probe of it that is in flight takes up room until
    /// it has ended.
    pub(super) fn remove(&mut self, id: ProbeId) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.waiting.remove(&(key.due, id));
        let grid = self.grids.get_mut(&key.period).expect("made with the key");
        if grid.give_back(key.slot) {
            self.grids.remove(&key.period);
        }
        self.adjust_pace();
    }

    /// Returns a target that is due, if there is one. Its probe is in flight
    /// from now on.
    pub(super) fn take(&mut self, now: Duration) -> Option<Flight> {
        if self.next_deadline()? > now {
            return None;
        }
        let (due, id) = self.waiting.pop_first().expect("there is a deadline");
        self.pace.went(now);
        self.flights += 1;
        self.in_flight.insert(id);
        let jitter = self.random.f64();
        let key = self.keys.get_mut(&id).expect("what waits is known");
        key.due = key.after(now) + (key.period / JITTER).mul_f64(jitter);
        Some(Flight {
            id,
            number: self.flights,
            lateness: (!std::mem::take(&mut key.is_new)).then(|| now - due),
        })
    }

    /// Records that a probe has ended. Returns false when its result is no
    /// longer wanted.
    pub(super) fn ended(&mut self, flight: Flight, now: Duration) -> bool {
        self.in_flight.remove(&flight.id);
        let Some(key) = self.keys.get_mut(&flight.id) else {
            return false;
        };
        key.due = key.due.max(now);
        self.waiting.insert((key.due, flight.id));
        flight.number > key.others
    }

    /// When [`Schedule::take`] returns something next; none if not before a
    /// probe has ended or a target is new.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        if self.in_flight.len() >= self.most_in_flight {
            return None;
        }
        let (due, _) = self.waiting.first()?;
        Some((*due).max(self.pace.next()))
    }

    /// The same, when everything that is due up to this time has been taken.
    pub(super) fn next_deadline_after(&self, time: Duration) -> Option<Duration> {
        let (due, _) = self.waiting.range((time, ProbeId(u64::MAX))..).next()?;
        Some(*due)
    }

    fn adjust_pace(&mut self) {
        let rate: f64 = self
            .grids
            .iter()
            .map(|(period, grid)| f64::from(grid.used) / period.as_secs_f64())
            .sum();
        let twice = Duration::try_from_secs_f64(0.5 / rate);
        self.pace.gap = twice.unwrap_or(NEW_ONES_APART).min(NEW_ONES_APART);
    }
}

impl Key {
    /// When the next probe is due after one that begins now: in its next slot;
    /// or, when that is near because this probe is off the grid, halfway to the
    /// slot after it. So two probes are never less than half a period apart,
    /// nor more than one.
    fn after(&self, now: Duration) -> Duration {
        let period = self.period.as_nanos();
        let since_slot = (now.as_nanos() + period - self.phase.as_nanos()) % period;
        let since_slot = Duration::from_nanos(since_slot.try_into().expect("less than a period"));
        let to_slot = self.period - since_slot;
        if to_slot < self.period / 2 {
            now + (to_slot + self.period) / 2
        } else {
            now + to_slot
        }
    }
}

/// The slots of one period's length.
#[derive(Debug)]
struct Grid {
    origin: u64,
    /// Slots that were given out and are free again.
    free: BTreeSet<u32>,
    used: u32,
}

impl Grid {
    fn take(&mut self) -> u32 {
        let slot = self.free.pop_first().unwrap_or(self.used);
        self.used += 1;
        slot
    }

    /// Takes a slot back. Returns whether it was the last one in use.
    fn give_back(&mut self, slot: u32) -> bool {
        self.used -= 1;
        self.free.insert(slot);
        self.used == 0
    }

    fn phase(&self, slot: u32, period: Duration) -> Duration {
        let part = u128::from(self.origin.wrapping_add(GOLDEN.wrapping_mul(slot.into())));
        let phase = (period.as_nanos() * part) >> 64;
        Duration::from_nanos(phase.try_into().expect("less than a period"))
    }
}

/// Holds back what would begin faster than twice the average: many new targets,
/// and many that could not begin while the process stood still (the generic
/// cell rate algorithm, ITU-T I.371).
#[derive(Debug, Default)]
struct Pace {
    gap: Duration,
    theoretical: Duration,
}

impl Pace {
    fn next(&self) -> Duration {
        self.theoretical
            .saturating_sub(self.gap * BURST + BURST_TIME)
    }

    fn went(&mut self, now: Duration) {
        self.theoretical = self.theoretical.max(now) + self.gap;
    }
}

#[cfg(test)]
mod tests;
