//! Keeps the latest probe results of one target on the prober's thread. The
//! loop gets an event only for a new result. The code is pure: it does no I/O.

use std::sync::Arc;

use crate::event::probed::Tally;

/// The number of latest probe results that decide whether a target is flapping.
const WINDOW: u32 = 20;
/// A target counts as flapping if its latest results contain at least this many
/// changes between success and failure.
const CHANGES: u32 = 10;
/// A flapping target counts as stable again if its latest results contain at
/// most this many changes between success and failure.
const CALM: u32 = 4;

/// The result of one probe. A void probe has no verdict.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The server gave the expected answer.
    Success,
    /// The server's answer was wrong or missing; the field is the reason in
    /// words.
    Failure(Arc<str>),
}

/// The probe results of one target.
#[derive(Clone, Debug)]
pub struct Results {
    most_successes: u32,
    most_failures: u32,
    tally: Tally,
    /// The latest probe results as bits. A bit of the history is 1 for a
    /// failure, and the lowest bit is the last result.
    history: u32,
    known: u32,
    /// The reason for the latest failure, even if the reason was not reported.
    other_words: Option<Arc<str>>,
}

impl Results {
    /// Creates the results of a target that was not probed yet. The tally
    /// counts consecutive successes up to `success_threshold`, and consecutive
    /// failures up to `failure_threshold`. Further successes or failures do not
    /// increase these counts.
    pub fn new(success_threshold: u32, failure_threshold: u32) -> Self {
        Self {
            most_successes: success_threshold,
            most_failures: failure_threshold,
            tally: Tally {
                successes: 0,
                failures: 0,
                is_flapping: false,
                why: None,
            },
            history: 0,
            known: 0,
            other_words: None,
        }
    }

    /// Records a probe result. Returns the tally if this result changed the
    /// tally.
    pub fn note(&mut self, verdict: Verdict) -> Option<Tally> {
        let before = self.tally.clone();
        self.history = self.history << 1 | u32::from(verdict != Verdict::Success);
        self.known = (self.known + 1).min(WINDOW);
        match verdict {
            Verdict::Success => {
                self.tally.successes = (self.tally.successes + 1).min(self.most_successes);
                self.tally.failures = 0;
            }
            Verdict::Failure(why) => {
                // A server may fail each time for a different reason. Each new
                // reason would then cause an event. So after `most_failures`
                // failures in a row, a new reason is reported only if two
                // consecutive failures have this reason.
                if self.tally.failures < self.most_failures
                    || self.other_words.as_ref() == Some(&why)
                {
                    self.tally.why = Some(why.clone());
                }
                self.other_words = Some(why);
                self.tally.failures = (self.tally.failures + 1).min(self.most_failures);
                self.tally.successes = 0;
            }
        }
        let changes = self.changes();
        self.tally.is_flapping = if self.tally.is_flapping {
            changes > CALM
        } else {
            changes >= CHANGES
        };
        (self.tally != before).then(|| self.tally.clone())
    }

    fn changes(&self) -> u32 {
        let pairs = self.known.saturating_sub(1);
        let differs = self.history ^ (self.history >> 1);
        (differs & ((1 << pairs) - 1)).count_ones()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Verdict {
        Verdict::Failure("connection refused".into())
    }

    #[test]
    fn what_goes_on_as_it_was_is_no_news() {
        let mut results = Results::new(2, 3);
        let news: Vec<_> = (0..5)
            .map(|_| results.note(Verdict::Success).is_some())
            .collect();
        assert_eq!(news, [true, true, false, false, false], "two are enough");
        let news: Vec<_> = (0..5).map(|_| results.note(refused()).is_some()).collect();
        assert_eq!(news, [true, true, true, false, false], "three are enough");
        let no_answer = || Verdict::Failure("no answer".into());
        assert!(
            results.note(no_answer()).is_none(),
            "another reason may soon pass"
        );
        let tally = results
            .note(no_answer())
            .expect("a reason that lasts is new");
        assert_eq!(tally.why.as_deref(), Some("no answer"));
    }

    #[test]
    fn a_server_that_fails_in_other_words_each_time_is_news_only_until_it_is_down() {
        let mut results = Results::new(2, 3);
        let news = (0..20).filter(|number| {
            let words = format!("request {number} failed");
            results.note(Verdict::Failure(words.into())).is_some()
        });
        assert_eq!(news.count(), 3);
    }

    #[test]
    fn one_success_ends_a_row_of_failures() {
        let mut results = Results::new(2, 3);
        results.note(refused());
        results.note(refused());
        let tally = results.note(Verdict::Success).unwrap();
        assert_eq!((tally.successes, tally.failures), (1, 0));
        let tally = results.note(refused()).unwrap();
        assert_eq!((tally.successes, tally.failures), (0, 1));
    }

    #[test]
    fn results_that_come_by_turns_are_flapping_until_they_have_been_calm() {
        let mut results = Results::new(2, 3);
        let mut after = 0;
        for number in 1..40 {
            let verdict = if number % 2 == 0 {
                refused()
            } else {
                Verdict::Success
            };
            let tally = results.note(verdict).expect("each differs from the last");
            if tally.is_flapping {
                after = number;
                break;
            }
        }
        assert_eq!(after, 11, "ten changes take eleven results");
        let calm = (1..40)
            .find(|_| {
                let tally = results.note(Verdict::Success);
                tally.is_some_and(|tally| !tally.is_flapping)
            })
            .unwrap();
        assert!(
            (10..=20).contains(&calm),
            "the window forgets: calm after {calm}"
        );
    }

    #[test]
    fn a_server_that_fails_for_good_does_not_flap() {
        let mut results = Results::new(2, 3);
        for _ in 0..10 {
            results.note(Verdict::Success);
        }
        for _ in 0..30 {
            let tally = results.note(refused());
            assert!(
                !tally.is_some_and(|tally| tally.is_flapping),
                "one change only"
            );
        }
    }
}
