//! Decides when each target is probed. The module is pure: time is an argument,
//! counted from a fixed start.
//!
//! Each target has a time grid of its own, with one slot per period. The grids'
//! phases are spread over the period. The phases begin at a random offset, so
//! that several directors do not probe in step. A probe that could not begin in
//! its slot begins later. Missed slots are not made up for.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Duration,
};

use crate::event::probed::ProbeId;

/// The longest time between the first probes of two targets that are new at
/// once.
const NEW_ONES_APART: Duration = Duration::from_millis(20);
/// The shortest period with which a target is probed.
const SHORTEST: Duration = Duration::from_millis(1);
/// Limits the random delay of a probe: at most the period divided by this
/// number.
const JITTER: u32 = 50;
/// How many probes may always begin at once, even if few are due on average.
const BURST: u32 = 16;
/// Additional probes may begin at once: as many as the pace allows in this
/// time.
const BURST_TIME: Duration = Duration::from_millis(40);
/// 2^64 divided by the golden ratio. Any number of multiples of this constant,
/// modulo 2^64, are spread evenly (D. Knuth, TAOCP 3, section 6.4).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The targets that are probed, each with the time of its next probe.
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
    /// The sequence number of this probe, counted over all targets.
    number: u64,
    /// How late the probe began, or `None` for a target's first probe, which
    /// has no fixed due time.
    pub(super) lateness: Option<Duration>,
}

#[derive(Debug)]
struct Key {
    period: Duration,
    slot: u32,
    phase: Duration,
    due: Duration,
    is_new: bool,
    /// Flights up to this number belong to an earlier target with the same id.
    others: u64,
}

impl Schedule {
    /// Makes a schedule without targets. At most `most_in_flight` probes are in
    /// flight at once. Further probes that are due wait until another probe
    /// ends.
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

    /// Adds a target that is probed once per period, starting soon. When many
    /// targets are new at once, each first probe begins at most 20 ms after the
    /// previous one, or sooner if the period is too short for that.
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

    /// Removes a target. A probe of this target that is in flight still counts
    /// towards `most_in_flight` until it ends.
    pub(super) fn remove(&mut self, id: ProbeId) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        self.waiting.remove(&(key.due, id));
        let grid = self
            .grids
            .get_mut(&key.period)
            .expect("every key has a grid");
        if grid.give_back(key.slot) {
            self.grids.remove(&key.period);
        }
        self.adjust_pace();
    }

    /// Starts the probe of a target that is due, if there is one. The probe is
    /// in flight from now on.
    pub(super) fn take(&mut self, now: Duration) -> Option<Flight> {
        if self.next_deadline()? > now {
            return None;
        }
        let (due, id) = self
            .waiting
            .pop_first()
            .expect("a deadline implies a waiting target");
        self.pace.went(now);
        self.flights += 1;
        self.in_flight.insert(id);
        let jitter = self.random.f64();
        let key = self
            .keys
            .get_mut(&id)
            .expect("every waiting target has a key");
        key.due = key.after(now) + (key.period / JITTER).mul_f64(jitter);
        Some(Flight {
            id,
            number: self.flights,
            lateness: (!std::mem::take(&mut key.is_new)).then(|| now - due),
        })
    }

    /// Records that a probe has ended. Returns false if the probe's result is
    /// no longer wanted.
    pub(super) fn ended(&mut self, flight: Flight, now: Duration) -> bool {
        self.in_flight.remove(&flight.id);
        let Some(key) = self.keys.get_mut(&flight.id) else {
            return false;
        };
        key.due = key.due.max(now);
        self.waiting.insert((key.due, flight.id));
        flight.number > key.others
    }

    /// Returns the next time at which [`Schedule::take`] returns a probe.
    /// Returns `None` if a probe must end or a target be added first.
    pub(super) fn next_deadline(&self) -> Option<Duration> {
        if self.in_flight.len() >= self.most_in_flight {
            return None;
        }
        let (due, _) = self.waiting.first()?;
        Some((*due).max(self.pace.next()))
    }

    /// Works as [`Schedule::next_deadline`], but assumes that all probes due up
    /// to `time` have been taken.
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
    /// Returns the time of the next probe, after one that begins now. The next
    /// probe is usually in the target's next slot. If that slot is less than
    /// half a period away, the next probe is halfway between now and the slot
    /// after that one. So two probes are at least half a period and at most one
    /// period apart.
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

/// The slots of all targets with the same period.
#[derive(Debug)]
struct Grid {
    origin: u64,
    /// Slots that were used before and are free again.
    free: BTreeSet<u32>,
    used: u32,
}

impl Grid {
    fn take(&mut self) -> u32 {
        let slot = self.free.pop_first().unwrap_or(self.used);
        self.used += 1;
        slot
    }

    /// Takes a slot back. Returns true if no slot is in use any more.
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

/// Delays probes that would begin at more than twice the average rate, with the
/// generic cell rate algorithm (ITU-T I.371). Probes are delayed after many
/// targets were added, and after the process could not run for a while.
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
