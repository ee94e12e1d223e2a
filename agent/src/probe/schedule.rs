//! Decides when each target is probed. The module is pure: time is an argument,
//! counted from a fixed start.
//!
//! Each target is probed once per period, in a time slot of its own. The slots
//! of all targets with the same period are spread over the period. A random
//! offset shifts the slots, so different directors probe at different times. A
//! probe that could not begin in its slot begins later. The schedule does not
//! make up for missed slots.
//!
//! The namespaces share the prober fairly: if one namespace wants more than its
//! share, the probes of other namespaces do not begin later. The schedule
//! limits each namespace in two ways:
//!
//! - Rate: a namespace begins probes at most at its share of the total rate. It
//!   also begins them at most at twice the average rate of its targets.
//! - Places: each probe in flight takes one of a limited number of places, for
//!   up to a minute. If a namespace took a place that another namespace's
//!   targets need, the place might not be free in time. So a namespace never
//!   takes such a place. If the other namespaces have few targets, the
//!   namespace may use more places. An eighth of the places is a reserve, and
//!   no namespace's share contains places of the reserve. When a namespace's
//!   share grows, other namespaces' probes may still hold the places that the
//!   share has gained. Until these probes end, the namespace uses the reserve.
//!   A namespace never takes more than half of the places left in the reserve.

mod grid;
mod pace;
mod share;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use crds::fair_limit;

pub(super) use self::share::Excess;
use self::{grid::Grid, pace::Pace, share::Share};
use super::{
    budget::{Budget, fair_rate},
    target::Rates,
};
use crate::event::probed::ProbeId;

/// The shortest period of a target.
const SHORTEST: Duration = Duration::from_millis(1);
/// The random delay of a probe is at most the period divided by this number.
const JITTER: u32 = 50;
/// The reserve is the total number of places, divided by this number.
const RESERVED: usize = 8;
/// All namespaces together may begin probes at this many times their total
/// average rate. Probes can thus catch up after a time in which no probe could
/// begin. A single namespace begins probes at most at twice its average rate.
/// So no namespace normally waits because of the limit for all namespaces.
const CATCH_UP: f64 = 4.0;
/// All namespaces together may begin at least this many probes per second for
/// each namespace. So namespaces with few targets do not wait for each other.
const PER_NAMESPACE: f64 = 100.0;

/// The targets that are probed, each with the time of its next probe.
#[derive(Debug)]
pub(super) struct Schedule {
    keys: HashMap<ProbeId, Key>,
    shares: HashMap<Arc<str>, Share>,
    /// The namespaces that have a waiting target and have not used up their
    /// places. Each entry has the time from which the namespace's next probe
    /// may begin.
    ready: BTreeSet<(Duration, Arc<str>)>,
    grids: BTreeMap<Duration, Grid>,
    pace: Pace,
    in_flight: HashMap<ProbeId, InFlight>,
    budget: Budget,
    /// The number of probes per second that each namespace may make on average.
    rates: Rates,
    /// The maximum number of probes of one namespace in flight at once.
    most_of_one: usize,
    /// Whether targets have changed since the shares were computed.
    are_shares_old: bool,
    /// Whether the result of [`Schedule::late`] may have changed since the last
    /// call of [`Schedule::take_is_late_new`].
    is_late_new: bool,
    random: fastrand::Rng,
}

/// A probe that has begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Flight {
    /// The target that is probed.
    pub(super) id: ProbeId,
    /// The lateness of the probe. `None` for a target's first probe, because a
    /// first probe has no fixed due time.
    pub(super) lateness: Option<Duration>,
}

#[derive(Debug)]
struct Key {
    namespace: Arc<str>,
    period: Duration,
    slot: u32,
    phase: Duration,
    due: Duration,
    is_new: bool,
    /// Why the target's latest probe began late, or `None` if the probe was on
    /// time.
    late: Option<Excess>,
}

#[derive(Debug)]
struct InFlight {
    namespace: Arc<str>,
    /// Whether the target was removed after the probe began.
    is_orphan: bool,
}

impl Schedule {
    /// Makes a schedule without targets. If the budget has no place for a due
    /// probe, the probe waits for the end of another probe.
    pub(super) fn new(budget: Budget, random: fastrand::Rng) -> Self {
        Self {
            keys: HashMap::new(),
            shares: HashMap::new(),
            ready: BTreeSet::new(),
            grids: BTreeMap::new(),
            pace: Pace::default(),
            in_flight: HashMap::new(),
            budget: Budget {
                places: budget.places.max(1),
                ..budget
            },
            rates: Rates::default(),
            most_of_one: usize::MAX,
            are_shares_old: false,
            is_late_new: false,
            random,
        }
    }

    /// Sets the number of probes per second that each namespace may make on
    /// average.
    pub(super) fn set_rates(&mut self, rates: Rates) {
        self.rates = rates;
        self.are_shares_old = true;
    }

    /// Adds a target to the share of a namespace. The target is probed once per
    /// period, starting soon. If a namespace gets many targets at once, at most
    /// 20 ms pass from one first probe to the next, or less if the targets have
    /// a short period.
    pub(super) fn insert(
        &mut self,
        id: ProbeId,
        namespace: &Arc<str>,
        period: Duration,
        now: Duration,
    ) {
        self.remove(id);
        let period = period.max(SHORTEST);
        let random = &mut self.random;
        let grid = self.grids.entry(period);
        let grid = grid.or_insert_with(|| Grid::new(random.u64(..)));
        let slot = grid.take();
        let key = Key {
            namespace: namespace.clone(),
            period,
            slot,
            phase: grid.phase(slot, period),
            due: now,
            is_new: true,
            late: None,
        };
        self.keys.insert(id, key);
        let share = self.shares.entry(namespace.clone()).or_default();
        share.add(period);
        if !self.in_flight.contains_key(&id) {
            share.waiting.insert((now, id));
        }
        self.are_shares_old = true;
    }

    /// Removes a target. If a probe of the target is in flight, the probe keeps
    /// its place until the probe ends.
    pub(super) fn remove(&mut self, id: ProbeId) {
        let Some(key) = self.keys.remove(&id) else {
            return;
        };
        let grid = self.grids.get_mut(&key.period).expect(EACH_HAS_A_GRID);
        if grid.give_back(key.slot) {
            self.grids.remove(&key.period);
        }
        let share = self.shares.get_mut(&key.namespace).expect(EACH_HAS_A_SHARE);
        share.waiting.remove(&(key.due, id));
        share.remove(key.period);
        self.is_late_new |= share.count_late(key.late, None);
        if let Some(flight) = self.in_flight.get_mut(&id)
            && !flight.is_orphan
        {
            flight.is_orphan = true;
            share.orphans += 1;
        }
        self.are_shares_old = true;
    }

    /// Starts the probe of a due target, if any target is due. The started
    /// probe is then in flight.
    pub(super) fn take(&mut self, now: Duration) -> Option<Flight> {
        if self.next_deadline()? > now {
            return None;
        }
        let namespace = self.next_namespace(now)?.clone();
        let share = self.shares.get_mut(&namespace).expect(EACH_HAS_A_SHARE);
        let (due, id) = share.waiting.pop_first().expect(DUE);
        share.pace.went(now);
        self.pace.went(now);
        share.in_flight += 1;
        let jitter = self.random.f64();
        let key = self.keys.get_mut(&id).expect("each waiting target has one");
        let lateness = now - due;
        let is_late = lateness > key.period / 2;
        let late = share.excess_since(due).filter(|_| is_late);
        self.is_late_new |= share.count_late(key.late, late);
        key.late = late;
        key.due = key.after(now) + (key.period / JITTER).mul_f64(jitter);
        let is_new = std::mem::take(&mut key.is_new);
        let flight = InFlight {
            namespace: namespace.clone(),
            is_orphan: false,
        };
        self.in_flight.insert(id, flight);
        self.put_in_order(&namespace);
        Some(Flight {
            id,
            lateness: (!is_new).then_some(lateness),
        })
    }

    /// Records that a probe has ended. Returns false if the probe's target was
    /// removed in the meantime.
    pub(super) fn ended(&mut self, flight: Flight, now: Duration) -> bool {
        let ended = self.in_flight.remove(&flight.id);
        let ended = ended.expect("a probe ends once");
        let share = self.shares.get_mut(&ended.namespace);
        let share = share.expect(EACH_HAS_A_SHARE);
        if share.in_flight >= self.most_of_one {
            share.is_full(now);
        }
        share.in_flight -= 1;
        if ended.is_orphan {
            share.orphans -= 1;
            // Without a limit on each namespace's places, the end of a probe
            // changes no share.
            self.are_shares_old |= share.is_empty() || self.most_of_one != usize::MAX;
        }
        // If the target was removed during the probe, a new target may have the
        // same id. The new target may even be in another namespace.
        if let Some(key) = self.keys.get_mut(&flight.id) {
            key.due = key.due.max(now);
            let waiting = (key.due, flight.id);
            let namespace = key.namespace.clone();
            let share = self.shares.get_mut(&namespace).expect(EACH_HAS_A_SHARE);
            share.waiting.insert(waiting);
            self.put_in_order(&namespace);
        }
        self.put_in_order(&ended.namespace);
        !ended.is_orphan
    }

    /// Returns the next time at which [`Schedule::take`] returns a probe.
    /// Returns `None` if another probe must end first or a target must be added
    /// first.
    pub(super) fn next_deadline(&mut self) -> Option<Duration> {
        self.share_out();
        let (ready_at, _) = self.first_ready()?;
        Some((*ready_at).max(self.pace.next()))
    }

    /// Works as [`Schedule::next_deadline`], but assumes that all probes due up
    /// to `time` have been taken.
    pub(super) fn next_deadline_after(&mut self, time: Duration) -> Option<Duration> {
        self.share_out();
        let last = ProbeId(u64::MAX);
        let sooner = self.ready.iter().take_while(|(at, _)| *at <= time);
        let second = sooner.filter_map(|(_, namespace)| {
            let waiting = &self.shares[namespace].waiting;
            waiting.range((time, last)..).next().map(|(due, _)| *due)
        });
        let later = self.ready.iter().find(|(at, _)| *at > time);
        second.chain(later.map(|(at, _)| *at)).min()
    }

    /// Returns the namespaces that want more than their share, each with its
    /// number of late targets. A target is late if its latest probe began late.
    pub(super) fn late(&self) -> impl Iterator<Item = (&Arc<str>, Excess, usize)> {
        self.shares.iter().flat_map(|(namespace, share)| {
            let late = share.late();
            late.map(move |(excess, count)| (namespace, excess, count))
        })
    }

    /// Whether the answer of [`Schedule::late`] may have changed since the last
    /// call of this function.
    pub(super) fn take_is_late_new(&mut self) -> bool {
        std::mem::take(&mut self.is_late_new)
    }

    /// Returns what the next call of [`Schedule::take_is_late_new`] would
    /// return, and changes nothing.
    pub(super) fn is_late_new(&self) -> bool {
        self.is_late_new
    }

    /// Returns the namespace whose probe may begin first, with the start time
    /// of the probe.
    fn first_ready(&self) -> Option<&(Duration, Arc<str>)> {
        let mut ready = self.ready.iter();
        ready.find(|(_, namespace)| self.has_place(namespace))
    }

    /// Returns the namespace whose probe begins at `now`. If several namespaces
    /// may begin a probe, the namespace with the smallest [`Pace::ahead`] is
    /// returned.
    fn next_namespace(&self, now: Duration) -> Option<&Arc<str>> {
        let ready = self.ready.iter().take_while(|(at, _)| *at <= now);
        let next = ready
            .filter(|(_, namespace)| self.has_place(namespace))
            .min_by_key(|(at, namespace)| (self.shares[namespace].pace.ahead(now), *at));
        next.map(|(_, namespace)| namespace)
    }

    /// Whether a place is free for a namespace. The caller has checked that the
    /// namespace has not used up its share.
    fn has_place(&self, namespace: &Arc<str>) -> bool {
        let free = self.budget.places - self.in_flight.len();
        free > self.reserved() || self.shares[namespace].in_flight < free
    }

    fn reserved(&self) -> usize {
        self.budget.places / RESERVED
    }

    /// Computes the shares of the rate and of the places again if targets have
    /// changed.
    fn share_out(&mut self) {
        if !std::mem::take(&mut self.are_shares_old) {
            return;
        }
        self.shares.retain(|_, share| !share.is_empty());
        let most = |namespace: &Arc<str>| self.rates.of(namespace);
        let shares = self.shares.iter();
        let rates = shares.map(|(namespace, share)| share.rate().min(most(namespace)));
        let limit = fair_rate(rates, self.budget.total_probes_per_second);
        let shares = self.shares.iter_mut();
        let made: f64 = shares
            .map(|(namespace, share)| share.limit_rate(limit.min(self.rates.of(namespace))))
            .sum();
        let starts = PER_NAMESPACE * self.shares.len() as f64;
        let starts = starts.min(self.budget.total_probes_per_second);
        self.pace.set_rate((CATCH_UP * made).max(starts));
        let room = self.budget.places - self.reserved();
        let demands = self.shares.values().map(Share::most_in_flight);
        let limit = fair_limit(demands.map(|demand| demand as u64), room as u64);
        self.most_of_one = limit.map_or(usize::MAX, |limit| (limit as usize).max(1));
        self.ready.clear();
        for (namespace, share) in &mut self.shares {
            share.ready_at = None;
            share.put_in_order(namespace, self.most_of_one, &mut self.ready);
        }
    }

    fn put_in_order(&mut self, namespace: &Arc<str>) {
        let share = self.shares.get_mut(namespace).expect(EACH_HAS_A_SHARE);
        share.put_in_order(namespace, self.most_of_one, &mut self.ready);
    }
}

const EACH_HAS_A_GRID: &str = "each period of a target has a grid";
const EACH_HAS_A_SHARE: &str = "each namespace with a target or a probe in flight has a share";
const DUE: &str = "a deadline implies a waiting target";

impl Key {
    /// Returns the time of a target's next probe if a probe begins now. The
    /// next probe is usually in the target's next slot. If the next slot is
    /// less than half a period away, the next probe is halfway between now and
    /// the second-next slot. Two probes are therefore at least half a period
    /// and at most one period apart.
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

#[cfg(test)]
mod tests;
