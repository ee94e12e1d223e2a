//! Plans when looks at the cluster begin. The code is pure: time is an
//! argument.

use std::time::Duration;

use tokio::time::Instant;

use crate::pauses::Pauses;

/// The shortest pause between two looks because of deletions, without the
/// random part. When many objects are deleted one after another, the pauses
/// grow, and the removals share looks.
const AFTER_DELETION: Duration = Duration::from_millis(500);
/// The longest pause between two looks because of deletions, without the random
/// part.
const LONGEST_OF_DELETIONS: Duration = Duration::from_secs(8);
/// The pauses between looks because of deletions begin to grow anew after this
/// time without a deletion.
const QUIET: Duration = Duration::from_secs(20);
/// The shortest pause between a failure of a watch and a look, without the
/// random part.
const AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The longest pause before a look is repeated, without the random part.
const LONGEST: Duration = Duration::from_secs(30);

/// Why a watch asks for a look.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Why {
    /// Objects were deleted, or the API server does not know their kind.
    Deletion,
    /// A listing is complete.
    Listing,
}

/// A look that has begun.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Begun {
    /// The number of the look. Looks are counted from 1.
    pub(super) number: u64,
    /// Whether a watch asked for the look, so removals may wait for it.
    pub(super) is_asked: bool,
}

/// When the next look begins. At most one look runs at a time.
#[derive(Debug)]
pub(super) struct Plan {
    /// The number of the last look that has begun.
    begun: u64,
    next: Option<Instant>,
    /// Whether a watch asked for the next look.
    is_asked: bool,
    /// Whether a deletion is among the reasons for the next look.
    is_for_deletion: bool,
    /// When the next look for a deletion may begin.
    deletions_from: Option<Instant>,
    /// The pauses between looks for deletions.
    stream: Pauses,
    /// The pauses before a look without an answer is repeated.
    pauses: Pauses,
    /// The pauses between failures of watches and a look.
    failures: Pauses,
}

impl Plan {
    pub(super) fn new() -> Self {
        Self {
            begun: 0,
            next: None,
            is_asked: false,
            is_for_deletion: false,
            deletions_from: None,
            stream: Pauses::between(AFTER_DELETION, LONGEST_OF_DELETIONS),
            pauses: Pauses::up_to(LONGEST),
            failures: Pauses::between(AFTER_FAILURE, LONGEST),
        }
    }

    /// Returns when the next look begins, if one is planned.
    pub(super) fn next(&self) -> Option<Instant> {
        self.next
    }

    /// Plans a look that begins after `now`, and returns its number.
    pub(super) fn ask(&mut self, why: Why, now: Instant) -> u64 {
        let at = match why {
            Why::Listing => now,
            Why::Deletion => {
                self.is_for_deletion = true;
                self.deletions_from.map_or(now, |from| from.max(now))
            }
        };
        self.is_asked = true;
        self.plan(at);
        self.begun + 1
    }

    /// Plans a look because a watch failed.
    pub(super) fn watch_failed(&mut self, now: Instant) {
        if self.next.is_none() {
            let pause = self.failures.next();
            self.plan(now + pause);
        }
    }

    /// Begins the planned look.
    pub(super) fn begin(&mut self, now: Instant) -> Begun {
        self.begun += 1;
        self.next = None;
        if std::mem::take(&mut self.is_for_deletion) {
            if self.deletions_from.is_some_and(|from| from + QUIET <= now) {
                self.stream.reset();
            }
            self.deletions_from = Some(now + self.stream.next());
        }
        Begun {
            number: self.begun,
            is_asked: std::mem::take(&mut self.is_asked),
        }
    }

    /// Ends a look. If the look has no answer, plans it again.
    /// `are_compared` says whether the resourceVersions of all failed watches
    /// were compared with the API server's current ones. If not, plans another
    /// look.
    pub(super) fn end(&mut self, look: Begun, is_answered: bool, are_compared: bool, now: Instant) {
        if is_answered {
            self.pauses.reset();
        } else {
            self.is_asked |= look.is_asked;
            let again = now + self.pauses.next();
            self.plan(again);
            self.deletions_from = self.deletions_from.max(Some(again));
        }
        match are_compared {
            true => self.failures.reset(),
            false => self.watch_failed(now),
        }
    }

    fn plan(&mut self, at: Instant) {
        self.next = Some(self.next.map_or(at, |next| next.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Runs the looks that are due until `now`. Each look is answered at once.
    fn run(plan: &mut Plan, now: Instant) -> u64 {
        while let Some(at) = plan.next().filter(|at| *at <= now) {
            let look = plan.begin(at);
            plan.end(look, true, true, at);
        }
        plan.begun
    }

    #[test]
    fn the_first_deletions_are_looked_at_soon_and_the_pauses_of_a_stream_grow() {
        let (mut plan, start) = (Plan::new(), Instant::now());
        assert_eq!(plan.ask(Why::Deletion, start), 1);
        assert_eq!(run(&mut plan, start), 1, "the first goes at once");
        for tenth in 1..=1000 {
            let now = start + SECOND * tenth / 10;
            run(&mut plan, now);
            let look = plan.ask(Why::Deletion, now);
            assert_eq!(look, plan.begun + 1, "it begins after the deletion");
        }
        let looks = run(&mut plan, start + 100 * SECOND);
        assert!((9..=18).contains(&looks), "{looks} looks in 100 s");
        let looks = run(&mut plan, start + 200 * SECOND);
        let quiet = start + 200 * SECOND;
        plan.ask(Why::Deletion, quiet);
        assert_eq!(run(&mut plan, quiet), looks + 1, "at once after quiet");
        plan.ask(Why::Deletion, quiet);
        let soon = run(&mut plan, quiet + SECOND);
        assert_eq!(soon, looks + 2, "and the next one soon");
    }

    #[test]
    fn a_listing_does_not_wait_for_the_next_look_for_deletions() {
        let (mut plan, start) = (Plan::new(), Instant::now());
        plan.ask(Why::Deletion, start);
        run(&mut plan, start);
        assert_eq!(plan.ask(Why::Deletion, start), 2);
        assert_eq!(run(&mut plan, start), 1);
        assert_eq!(plan.ask(Why::Listing, start), 2, "they share a look");
        assert_eq!(run(&mut plan, start), 2);
        plan.ask(Why::Deletion, start);
        assert_eq!(run(&mut plan, start), 2, "still a stream");
    }

    #[test]
    fn requests_during_a_look_lead_to_one_more() {
        let (mut plan, start) = (Plan::new(), Instant::now());
        plan.ask(Why::Listing, start);
        let look = plan.begin(start);
        for _ in 0..3 {
            assert_eq!(plan.ask(Why::Listing, start), look.number + 1);
        }
        plan.end(look, true, true, start);
        assert_eq!(run(&mut plan, start), 2);
        assert_eq!(plan.next(), None);
    }

    #[test]
    fn a_look_without_an_answer_is_repeated_with_growing_pauses() {
        let (mut plan, mut now) = (Plan::new(), Instant::now());
        plan.ask(Why::Deletion, now);
        for least in [1, 2, 4, 8, 16, 30, 30] {
            let look = plan.begin(now);
            assert!(look.is_asked, "removals wait for it");
            plan.end(look, false, true, now);
            plan.ask(Why::Deletion, now);
            let next = plan.next().expect("it is repeated");
            let pause = next - now;
            let least = least * SECOND;
            assert!(least <= pause && pause <= least * 2, "{pause:?}");
            now = next;
        }
    }

    #[test]
    fn watches_that_fail_lead_to_one_look_that_nothing_waits_for() {
        let (mut plan, start) = (Plan::new(), Instant::now());
        for _ in 0..3 {
            plan.watch_failed(start);
        }
        let at = plan.next().expect("a look is planned");
        assert!(start + AFTER_FAILURE <= at && at <= start + 2 * AFTER_FAILURE);
        assert!(!plan.begin(at).is_asked);
        assert_eq!(plan.next(), None);
    }
}
