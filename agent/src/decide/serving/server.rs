//! The health of one server in one service, as a pure state machine: time is an
//! argument.
//!
//! ```text
//!             first success                 failures in a row, or flapping
//! Unknown ────────────────────▶ Up ─────────────────────────────────────▶ Down
//!    │                           ▲                                          │
//!    └─ failures in a row ─▶ Down└── successes in a row, then patience ─────┘
//! ```

use std::{cmp::Ordering, sync::Arc, time::Duration};

use crds::HealthCheck;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::event::probed::Tally;

/// A server that stays up for at least this long after its return no longer
/// counts as flapping.
const CALM: SignedDuration = SignedDuration::from_mins(5);
/// The longest time for which a flapping server must pass its probes before it
/// returns to service.
const MOST_PATIENCE: SignedDuration = SignedDuration::from_mins(5);
/// A server counts as flapping if it fails this many times in a row soon after
/// its return. The probes of a flapping server must keep succeeding for an
/// additional time before it returns.
const FLAPPING: u32 = 3;

/// The known health of a server.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Health {
    /// The server is new to the service, and no probe has succeeded yet.
    Unknown,
    /// The server is healthy and may get new connections.
    Up,
    /// The server failed and has not recovered yet.
    Down,
}

/// The health of one server in one service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServerState {
    health: Health,
    since: Timestamp,
    why: Option<Arc<str>>,
    /// The number of times in a row that the server failed soon after its
    /// return to service.
    falls: u32,
    /// Whether successes and failures of the server's probes alternate,
    /// according to the tally.
    is_flapping: bool,
    /// When the server will be back in service if its probes keep succeeding.
    back_at: Option<Timestamp>,
    /// When a verdict brought the server into service. The server's slow start
    /// begins at this time.
    risen: Option<Timestamp>,
    /// When the current run of the agent began to probe the server.
    begun: Timestamp,
    /// Whether the current run of the agent has a probe result of the server.
    is_probed: bool,
}

impl ServerState {
    /// Returns the state of a server that already gets connections when its
    /// check begins. The server counts as up until its probes fail.
    pub fn served(now: Timestamp) -> Self {
        Self::new(Health::Up, now)
    }

    /// Returns the state of a server that is new to the service.
    pub fn unknown(now: Timestamp) -> Self {
        Self::new(Health::Unknown, now)
    }

    fn new(health: Health, since: Timestamp) -> Self {
        Self {
            health,
            since,
            why: None,
            falls: 0,
            is_flapping: false,
            back_at: None,
            risen: None,
            begun: since,
            is_probed: false,
        }
    }

    /// Returns the state of a server as the previous run recorded it.
    pub fn remembered(health: Health, since: Timestamp, why: Option<Arc<str>>, falls: u32) -> Self {
        Self {
            why,
            falls,
            ..Self::new(health, since)
        }
    }

    /// Cancels the server's planned return to service. Its probes have changed,
    /// so the new probes must succeed first.
    pub fn probed_otherwise(&mut self) {
        self.back_at = None;
    }

    /// Notes that the current run begins to probe the server. Recorded times in
    /// the future come from a wrong clock and count as `now`.
    pub fn begin(&mut self, now: Timestamp) {
        self.begun = now;
        self.since = self.since.min(now);
        self.risen = self.risen.map(|risen| risen.min(now));
    }

    /// Sets the time at which a verdict brought the server into service.
    pub fn with_rise(self, risen: Option<Timestamp>) -> Self {
        Self { risen, ..self }
    }

    /// Returns the health of the server.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Returns when the server's health last changed.
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Returns why the latest failed probe failed, or none while the server is
    /// up.
    pub fn why(&self) -> Option<&Arc<str>> {
        self.why.as_ref().filter(|_| self.health != Health::Up)
    }

    /// Returns how many times in a row the server failed soon after its return.
    pub fn falls(&self) -> u32 {
        self.falls
    }

    /// Whether the server is down because it keeps failing and recovering.
    pub fn is_flapping(&self) -> bool {
        self.health == Health::Down && (self.is_flapping || self.falls >= FLAPPING)
    }

    /// Returns the time at which a verdict brought the server into service, or
    /// none if no verdict did.
    pub fn risen(&self) -> Option<Timestamp> {
        self.risen
    }

    /// Notes that the server gets connections again after a drain, so its slow
    /// start begins.
    pub fn comes_back(&mut self, now: Timestamp) {
        if self.health == Health::Up {
            self.risen = Some(now);
        }
    }

    /// Forgets when the server came into service, because the server already
    /// has its full weight and needs no slow start.
    pub fn forget_rise(&mut self) {
        self.risen = None;
    }

    /// Whether a probe of the current run has given a result for the server.
    pub fn is_probed(&self) -> bool {
        self.is_probed
    }

    /// Returns the time by which the current run's first probe result is due,
    /// or none if there is already a result.
    pub fn first_result_due(&self, check: &HealthCheck) -> Option<Timestamp> {
        (!self.is_probed).then(|| later(self.begun, signed(check.period + check.timeout)))
    }

    /// Records the tally of the server's probes. Returns whether the server's
    /// state changed.
    pub fn hear(&mut self, tally: &Tally, check: &HealthCheck, now: Timestamp) -> bool {
        let before = self.clone();
        self.is_probed = true;
        self.is_flapping = tally.is_flapping;
        if tally.failures > 0 {
            self.why.clone_from(&tally.why);
            self.back_at = None;
        }
        let has_failed = tally.failures >= check.failure_threshold || tally.is_flapping;
        match self.health {
            Health::Up if has_failed => self.fall(now),
            Health::Unknown if has_failed => self.become_(Health::Down, now),
            Health::Unknown if tally.successes > 0 => self.rise(now),
            Health::Down if tally.successes >= check.success_threshold && !tally.is_flapping => {
                let back_at = later(now, self.patience(check));
                self.back_at.get_or_insert(back_at);
                self.pass(now);
            }
            _ => {}
        }
        *self != before
    }

    /// Makes the change of the server's state that is due at `now`. Returns
    /// whether a change was due.
    pub fn pass(&mut self, now: Timestamp) -> bool {
        let is_back = self.back_at.is_some_and(|back_at| back_at <= now);
        if is_back {
            self.rise(now);
        }
        is_back
    }

    /// Returns when the server returns to service, if it is waiting to return.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.back_at
    }

    fn fall(&mut self, now: Timestamp) {
        let is_soon = now.duration_since(self.since) < CALM;
        // Only a failure soon after a return from an earlier failure increases the count. The
        // first failure has no earlier failure, so it sets the count to 1.
        let is_again = self.falls > 0 && is_soon;
        self.falls = if is_again { self.falls + 1 } else { 1 };
        self.become_(Health::Down, now);
    }

    fn rise(&mut self, now: Timestamp) {
        self.become_(Health::Up, now);
        self.risen = Some(now);
    }

    fn become_(&mut self, health: Health, now: Timestamp) {
        self.health = health;
        self.since = now;
        self.back_at = None;
        self.risen = None;
    }

    /// Returns how long the server's probes must keep succeeding before the
    /// server is back in service. The time is zero for the first two failures.
    /// After the third failure, the time is `period` times `success_threshold`.
    /// Each further failure doubles the time.
    fn patience(&self, check: &HealthCheck) -> SignedDuration {
        match self.falls.cmp(&FLAPPING) {
            Ordering::Less => SignedDuration::ZERO,
            Ordering::Equal | Ordering::Greater => {
                let doublings = (self.falls - FLAPPING).min(16);
                let first = signed(check.period * check.success_threshold);
                let patience = first.checked_mul(1 << doublings);
                patience.map_or(MOST_PATIENCE, |patience| patience.min(MOST_PATIENCE))
            }
        }
    }
}

fn signed(duration: Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.saturating_add(by)
        .expect("a sum with a duration saturates")
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::fixtures::health::check;
    use crate::probe::tally::{Results, Verdict};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    /// A server with its probes, and a clock that advances by one period with
    /// each probe.
    struct Scene {
        state: ServerState,
        results: Results,
        second: i64,
    }

    impl Scene {
        fn of(state: ServerState) -> Self {
            Self {
                state,
                results: Results::new(2, 3),
                second: 0,
            }
        }

        /// Probes the server once for each character of `results`, where `+` is
        /// a success and `-` a failure. Returns the health after each probe,
        /// with U for unknown, + for up and - for down.
        fn see(&mut self, results: &str) -> String {
            let mut seen = String::new();
            for result in results.chars() {
                self.second += 5;
                let verdict = match result {
                    '+' => Verdict::Success,
                    _ => Verdict::Failure("connection refused".into()),
                };
                if let Some(tally) = self.results.note(verdict) {
                    self.state.hear(&tally, &check(), at(self.second));
                }
                self.state.pass(at(self.second));
                seen.push(match self.state.health() {
                    Health::Unknown => 'U',
                    Health::Up => '+',
                    Health::Down => '-',
                });
            }
            seen
        }
    }

    #[test]
    fn a_served_server_is_up_until_it_failed_often_enough() {
        let mut scene = Scene::of(ServerState::served(at(0)));
        assert_eq!(scene.see("--+---"), "+++++-");
        assert_eq!(
            scene.state.why().map(|why| &**why),
            Some("connection refused")
        );
    }

    #[test]
    fn a_new_server_waits_for_its_first_success() {
        let mut scene = Scene::of(ServerState::unknown(at(0)));
        assert_eq!(scene.see("--+"), "UU+");
        assert!(scene.state.risen().is_some(), "it rose by a verdict");
    }

    #[test]
    fn a_new_server_that_only_fails_is_down_and_then_has_to_succeed_often_enough() {
        let mut scene = Scene::of(ServerState::unknown(at(0)));
        assert_eq!(scene.see("---+-++"), "UU----+");
    }

    #[test]
    fn a_server_that_fell_comes_back_after_enough_successes() {
        let mut scene = Scene::of(ServerState::served(at(0)));
        assert_eq!(scene.see("---++"), "++--+");
    }

    #[test]
    fn a_server_that_keeps_falling_has_to_succeed_for_longer_each_time() {
        let mut scene = Scene::of(ServerState::served(at(0)));
        let mut waits = Vec::new();
        for _ in 0..6 {
            // The failures are far enough apart that the tally itself shows no
            // flapping.
            scene.see("---");
            assert_eq!(scene.state.health(), Health::Down);
            let seen = scene.see(&"+".repeat(80));
            waits.push(seen.find('+').expect("it comes back in the end") + 1);
            // The clock goes back to the time at which the server returned to
            // service.
            scene.second -= 5 * (80 - i64::try_from(*waits.last().unwrap()).unwrap());
        }
        assert_eq!(
            waits,
            [2, 2, 4, 6, 10, 18],
            "probes until it was back, after each fall"
        );
    }

    #[test]
    fn a_server_that_was_up_for_long_has_a_clean_record() {
        let mut scene = Scene::of(ServerState::served(at(0)));
        scene.see("---++---++---");
        assert!(scene.state.is_flapping(), "three falls in a minute");
        scene.see(&"+".repeat(100));
        scene.see("---");
        assert_eq!((scene.state.falls(), scene.state.is_flapping()), (1, false));
    }

    #[test]
    fn results_by_turns_put_a_server_down_though_it_never_fails_often_enough() {
        let mut scene = Scene::of(ServerState::served(at(0)));
        let seen = scene.see(&"+-".repeat(10));
        assert!(seen.ends_with('-'), "{seen}");
        assert!(scene.state.is_flapping(), "and it counts as flapping");
        let seen = scene.see(&"+".repeat(30));
        assert!(seen.ends_with('+'), "calm, it comes back: {seen}");
    }

    #[test]
    fn a_failure_ends_the_patience_with_a_server() {
        let mut scene = Scene::of(ServerState::served(at(0)));
        scene.see("---++---++---++");
        assert!(scene.state.next_deadline().is_some(), "it is on trial");
        scene.see("-");
        assert_eq!(scene.state.next_deadline(), None, "and lost it");
    }

    #[test]
    fn a_first_result_is_waited_for_no_longer_than_a_period_and_a_timeout() {
        let mut state = ServerState::unknown(at(0));
        assert_eq!(state.first_result_due(&check()), Some(at(7)));
        let mut results = Results::new(2, 3);
        let tally = results.note(Verdict::Failure("no".into())).unwrap();
        state.hear(&tally, &check(), at(1));
        assert_eq!(state.first_result_due(&check()), None, "it is known");
    }
}
