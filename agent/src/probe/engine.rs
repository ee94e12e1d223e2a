//! The thread that makes probes at the times that the schedule decides. The
//! schedule does no I/O, so the thread reads the clock and opens the sockets.

mod late;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    mem::swap,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, Weak, mpsc::Sender},
    thread::{self, JoinHandle},
    time::Duration,
};

use crds::HealthCheck;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::mpsc::UnboundedReceiver,
    time::{Instant, Sleep, sleep_until},
};

use self::late::Late;
use super::{
    Counts, Order, Target,
    attempt::{Outcome, Prepared, Shared, attempt},
    budget::Budget,
    schedule::{Flight, Schedule},
    trouble::HELD_UP,
};
use crate::{
    event::{Event, probed::ProbeId},
    heartbeat::Heartbeat,
    probe::tally::{Results, Verdict},
};

/// The maximum number of probes in flight at once. Probes also use at most half
/// of the files that the process may open. The other half of the files is for
/// the API client, the kernel and the journal.
const MOST_IN_FLIGHT: u64 = 16 << 10;
/// Probes that are due within this time of each other begin together, because
/// each wake of the thread costs time.
const GATHER: Duration = Duration::from_millis(10);
/// How long the thread sleeps at most. It then shows that it works.
const IDLE: Duration = Duration::from_secs(10);
/// While probes are in flight, the thread reads the clock at this interval, to
/// detect that it was stalled.
const PULSE: Duration = Duration::from_millis(250);
/// The thread counts as stalled if it wakes later than planned by more than
/// this time. Shorter delays are frequent on a busy machine and harmless,
/// because answers are still read in time.
const PUNCTUAL: Duration = Duration::from_millis(250);
/// The shortest time between two [`Event::ProbesVoid`] events.
const BETWEEN_WORDS: Duration = Duration::from_secs(1);

/// Starts the thread that makes the ordered probes, in the calling thread's
/// network namespace. The thread sends new results to `events`. The thread ends
/// when the channel of orders or the channel of events is closed. The process's
/// soft limit of open files (`RLIMIT_NOFILE`) is raised towards the hard limit.
/// The thread beats `heartbeat` at least every 10 s.
///
/// # Errors
/// Returns an error if the system has no thread or no file descriptor left.
pub fn start(
    orders: UnboundedReceiver<Order>,
    events: Sender<Event>,
    counts: Arc<Counts>,
    heartbeat: Heartbeat,
) -> io::Result<JoinHandle<()>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let shared = {
        let _inside = runtime.enter();
        Shared::open()?
    };
    let engine = Engine::new(most_in_flight()?, shared, events, counts, heartbeat);
    thread::Builder::new()
        .name("prober".to_owned())
        .spawn(move || {
            // Waking the future of `block_on` interrupts tokio's wait, and so
            // costs two system calls. Waking a spawned task costs no system
            // call, so the engine runs in a spawned task.
            let ended = runtime.block_on(async { tokio::spawn(engine.run(orders)).await });
            if let Err(panic) = ended {
                resume_unwind(panic.into_panic());
            }
        })
}

fn most_in_flight() -> io::Result<usize> {
    let wanted = 2 * MOST_IN_FLIGHT;
    let (mut soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < wanted.min(hard) {
        soft = wanted.min(hard);
        setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    }
    Ok(usize::try_from((soft / 2).min(MOST_IN_FLIGHT)).expect("at most MOST_IN_FLIGHT"))
}

struct Engine {
    epoch: Instant,
    schedule: Schedule,
    watched: HashMap<ProbeId, Watched>,
    prepared: HashMap<Arc<HealthCheck>, Weak<Prepared>>,
    shared: Arc<Shared>,
    voids: Voids,
    late: Late,
    events: Sender<Event>,
    counts: Arc<Counts>,
    /// The time at which the thread plans to wake next.
    planned: Instant,
    /// The total time for which the thread was stalled.
    stood_still: Duration,
    /// Shows to other threads that the thread works.
    heartbeat: Heartbeat,
}

struct Watched {
    target: Arc<Target>,
    /// The requests or queries of the target's check, or `None` before the
    /// target's first probe.
    prepared: Option<Arc<Prepared>>,
    results: Results,
    void: Option<Arc<str>>,
}

/// A probe that has ended.
struct Landed {
    flight: Flight,
    /// The time by which the probe should have ended.
    deadline: Instant,
    timeout: Duration,
    /// The thread's total stalled time when the probe began.
    stood_still: Duration,
    outcome: Outcome,
}

/// The error when the receiver of events is gone.
struct Unheard;

type Flights = FuturesUnordered<BoxFuture<'static, Landed>>;

impl Engine {
    fn new(
        most_in_flight: usize,
        shared: Shared,
        events: Sender<Event>,
        counts: Arc<Counts>,
        heartbeat: Heartbeat,
    ) -> Self {
        Self {
            epoch: Instant::now(),
            schedule: Schedule::new(Budget::with_places(most_in_flight), fastrand::Rng::new()),
            watched: HashMap::new(),
            prepared: HashMap::new(),
            shared: Arc::new(shared),
            voids: Voids::default(),
            late: Late::default(),
            events,
            counts,
            planned: Instant::now() + IDLE,
            stood_still: Duration::ZERO,
            heartbeat,
        }
    }

    async fn run(mut self, mut orders: UnboundedReceiver<Order>) {
        let mut flights = Flights::new();
        let mut launched = Duration::ZERO;
        let mut alarm = Alarm::new(self.epoch);
        loop {
            self.heartbeat.beat();
            let wakes = self.next_wakes(launched, !flights.is_empty());
            self.planned = self.epoch + wakes[0];
            alarm.set(wakes.map(|next| self.epoch + next));
            tokio::select! {
                biased;
                order = orders.recv() => {
                    let Some(order) = order else {
                        return;
                    };
                    let now = self.epoch.elapsed();
                    self.obey(order, now);
                    while let Ok(order) = orders.try_recv() {
                        self.obey(order, now);
                    }
                }
                Some(landed) = flights.next(), if !flights.is_empty() => {
                    let now = self.wake();
                    let mut next = Some(landed);
                    while let Some(landed) = next {
                        if self.land(landed, now).is_err() {
                            return;
                        }
                        next = flights.next().now_or_never().flatten();
                    }
                }
                () = alarm.rings() => {
                    let now = self.wake();
                    launched = now - self.epoch;
                    while let Some(flight) = self.schedule.take(launched) {
                        flights.push(self.launch(flight, now));
                    }
                    if self.tell_troubles(launched).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Returns the current time, and records whether the thread was stalled.
    fn wake(&mut self) -> Instant {
        let now = Instant::now();
        let late = now.saturating_duration_since(self.planned);
        if late > PUNCTUAL {
            self.stood_still += late;
            self.planned = now;
        }
        now
    }

    /// Returns the next two times at which the thread has something to do.
    fn next_wakes(&mut self, launched: Duration, are_in_flight: bool) -> [Duration; 2] {
        let launch = self.schedule.next_deadline();
        let launch = launch.map(|due| due.max(launched + GATHER));
        let pulse = are_in_flight.then_some(launched + PULSE);
        let late = self.late.next_deadline(&self.schedule);
        let words = self.voids.next_deadline().into_iter().chain(late);
        let wakes = launch.into_iter().chain(words);
        let first = wakes.chain(pulse).min().unwrap_or(launched + IDLE);
        let second = self.schedule.next_deadline_after(first + GATHER);
        [first, second.unwrap_or(first + IDLE)]
    }

    fn obey(&mut self, order: Order, now: Duration) {
        match order {
            Order::Start(id, target) => {
                self.forget(id);
                let check = &target.check;
                self.schedule
                    .insert(id, &target.namespace, check.period, now);
                let results = Results::new(check.success_threshold, check.failure_threshold);
                let watched = Watched {
                    prepared: None,
                    target,
                    results,
                    void: None,
                };
                self.watched.insert(id, watched);
            }
            Order::Stop(id) => {
                self.schedule.remove(id);
                self.forget(id);
            }
            Order::Rates(rates) => self.schedule.set_rates(rates),
        }
    }

    fn forget(&mut self, id: ProbeId) {
        let Some(watched) = self.watched.remove(&id) else {
            return;
        };
        self.voids.change(watched.void, None);
    }

    /// Returns the prepared requests or queries of a target's check. All
    /// targets with the same check share the prepared data. Preparation can
    /// take a while, for example if certificates must be read. So the data is
    /// prepared only at a target's first probe: the namespace's pace limits
    /// first probes.
    fn prepared(&mut self, id: ProbeId) -> Arc<Prepared> {
        let watched = self.watched.get(&id).expect(WATCHED);
        if let Some(prepared) = &watched.prepared {
            return prepared.clone();
        }
        let check = watched.target.check.clone();
        let prepared = self.prepare(&check);
        let watched = self.watched.get_mut(&id).expect(WATCHED);
        watched.prepared.insert(prepared).clone()
    }

    fn prepare(&mut self, check: &Arc<HealthCheck>) -> Arc<Prepared> {
        if let Some(prepared) = self.prepared.get(check).and_then(Weak::upgrade) {
            return prepared;
        }
        // Before the map grows, checks are dropped if no target and no probe in
        // flight uses them.
        if self.prepared.len() == self.prepared.capacity() {
            self.prepared.retain(|_, known| known.strong_count() > 0);
        }
        let prepared = Arc::new(Prepared::new(check));
        let weak = Arc::downgrade(&prepared);
        self.prepared.insert(check.clone(), weak);
        prepared
    }

    fn launch(&mut self, flight: Flight, now: Instant) -> BoxFuture<'static, Landed> {
        if let Some(lateness) = flight.lateness {
            self.counts.began(lateness);
        }
        let prepared = self.prepared(flight.id);
        let target = self.watched[&flight.id].target.clone();
        let shared = self.shared.clone();
        let stood_still = self.stood_still;
        Box::pin(async move {
            let outcome = attempt(&target, &prepared, &shared, now).await;
            let timeout = target.check.timeout;
            Landed {
                flight,
                deadline: now + timeout,
                timeout,
                stood_still,
                outcome,
            }
        })
    }

    fn land(&mut self, landed: Landed, now: Instant) -> Result<(), Unheard> {
        let id = landed.flight.id;
        let is_wanted = self.schedule.ended(landed.flight, now - self.epoch);
        let late = now.saturating_duration_since(landed.deadline);
        let held_up = match landed.outcome {
            // A stall of the thread can cause a failure, but not a success. So
            // a success is void only if the probe ended late.
            Outcome::Verdict(Verdict::Success) => late,
            _ => late.max(self.stood_still - landed.stood_still),
        };
        let outcome = if held_up > landed.timeout / 2 {
            Outcome::Void(HELD_UP.into())
        } else {
            landed.outcome
        };
        self.counts.ended(matches!(outcome, Outcome::Void(_)));
        if !is_wanted {
            return Ok(());
        }
        let watched = self.watched.get_mut(&id).expect(WATCHED);
        let (void, verdict) = match outcome {
            Outcome::Void(why) => (Some(why), None),
            Outcome::Verdict(verdict) => (None, Some(verdict)),
        };
        if watched.void != void {
            let before = std::mem::replace(&mut watched.void, void.clone());
            self.voids.change(before, void);
        }
        match verdict.and_then(|verdict| watched.results.note(verdict)) {
            Some(tally) => self.tell(Event::Probed(id, tally)),
            None => Ok(()),
        }
    }

    fn tell_troubles(&mut self, now: Duration) -> Result<(), Unheard> {
        if let Some(voids) = self.voids.news(now) {
            self.tell(Event::ProbesVoid(voids))?;
        }
        match self.late.news(&mut self.schedule, now) {
            Some(late) => self.tell(Event::ProbesLate(late)),
            None => Ok(()),
        }
    }

    fn tell(&self, event: Event) -> Result<(), Unheard> {
        self.events.send(event).map_err(|_| Unheard)
    }
}

const WATCHED: &str = "every scheduled target is watched";

/// A timer for the thread's next wake. If a new timer is the first to fire,
/// setting the timer interrupts tokio's wait. The interruption costs two system
/// calls. To avoid this cost, the alarm also sets a timer for the second-next
/// wake.
struct Alarm([Pin<Box<Sleep>>; 2]);

impl Alarm {
    fn new(now: Instant) -> Self {
        Self([(); 2].map(|()| Box::pin(sleep_until(now))))
    }

    fn set(&mut self, [first, second]: [Instant; 2]) {
        let Self([one, other]) = self;
        if one.deadline() != first && (other.deadline() == first || one.deadline() == second) {
            swap(one, other);
        }
        for (sleep, time) in [(other, second), (one, first)] {
            if sleep.deadline() != time {
                sleep.as_mut().reset(time);
            }
        }
    }

    async fn rings(&mut self) {
        let Self([one, other]) = self;
        // tokio registers a `Sleep` only when it is polled.
        let _ = other.as_mut().now_or_never();
        one.as_mut().await;
    }
}

/// Counts the targets whose last probe was void, by reason.
#[derive(Debug, Default)]
struct Voids {
    reasons: BTreeMap<Arc<str>, usize>,
    told: BTreeMap<Arc<str>, usize>,
    is_changed: bool,
    next: Duration,
}

impl Voids {
    /// Records that the reason why a target's last probe was void changed from
    /// `before` to `after`. The reason is `None` if the probe was not void.
    fn change(&mut self, before: Option<Arc<str>>, after: Option<Arc<str>>) {
        if let Some(before) = before {
            self.is_changed = true;
            let count = self.reasons.get_mut(&before).expect("it was counted");
            *count -= 1;
            if *count == 0 {
                self.reasons.remove(&before);
            }
        }
        if let Some(after) = after {
            self.is_changed = true;
            *self.reasons.entry(after).or_default() += 1;
        }
    }

    fn next_deadline(&self) -> Option<Duration> {
        self.is_changed.then_some(self.next)
    }

    /// Returns the counts of void probes if they must be reported now.
    fn news(&mut self, now: Duration) -> Option<BTreeMap<Arc<str>, usize>> {
        if self.next_deadline()? > now {
            return None;
        }
        self.is_changed = false;
        if self.reasons == self.told {
            return None;
        }
        self.next = now + BETWEEN_WORDS;
        self.told.clone_from(&self.reasons);
        Some(self.reasons.clone())
    }
}

#[cfg(test)]
mod tests;
