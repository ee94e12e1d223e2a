//! Counts and logs repairs, which revert changes by other processes.

use std::{collections::VecDeque, time::Duration};

/// How many of the latest repairs the agent reports.
const LATEST: usize = 10;
/// The maximum number of repairs that one log line names.
const NAMED: usize = 3;

/// This many rounds with repairs within [`WINDOW`] show a program that undoes
/// the agent's work again and again. A person who changes entries by hand causes
/// fewer, as a rule.
const MOST: usize = 4;
const WINDOW: Duration = Duration::from_secs(240);
/// After this long without a repair, the other program has ended. The time is
/// longer than the pauses of a program that causes [`MOST`] repairs within
/// [`WINDOW`], so that such a program is reported without interruption.
const QUIET: Duration = Duration::from_secs(90);

/// The repairs in this run of the agent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repairs {
    /// The number of repair operations in this run.
    pub count: u64,
    /// The latest repairs, newest first, in the syntax of ipvsadm or of another
    /// command.
    pub latest: VecDeque<String>,
    /// Whether another program undoes the agent's work again and again.
    pub are_endless: bool,
    /// The number of repairs that have been logged.
    told: u64,
    /// Whether the round has repaired anything but sysctls.
    is_disturbed: bool,
    /// The times of the latest such rounds.
    rounds: VecDeque<Duration>,
}

impl Repairs {
    /// Counts a repair and adds its operation to the latest repairs.
    pub(super) fn note(&mut self, operation: String) {
        self.is_disturbed = true;
        self.note_sysctl(operation);
    }

    /// Counts the repair of a sysctl. A program that changes a sysctl again and
    /// again is noticed for each sysctl ([`crate::decide::sysctls`]).
    pub(super) fn note_sysctl(&mut self, operation: String) {
        self.count += 1;
        self.latest.push_front(operation);
        self.latest.truncate(LATEST);
    }

    /// Logs the repairs of a round in one line.
    pub(super) fn tell(&mut self, now: Duration) {
        let news = usize::try_from(self.count - self.told).unwrap_or(usize::MAX);
        self.told = self.count;
        if std::mem::take(&mut self.is_disturbed) {
            self.rounds.push_front(now);
            self.rounds.truncate(MOST);
        }
        self.are_endless = self.are_endless(now);
        if news == 0 {
            return;
        }
        let named: Vec<_> = self.latest.iter().take(news.min(NAMED)).rev().collect();
        let named = named.into_iter().map(String::as_str).collect::<Vec<_>>();
        let others = match news.saturating_sub(NAMED) {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        tracing::warn!(
            "another process changed entries of this agent; repaired with: {}{others}",
            named.join(", ")
        );
    }

    fn are_endless(&self, now: Duration) -> bool {
        let Some(latest) = self.rounds.front() else {
            return false;
        };
        let first = self.rounds.get(MOST - 1);
        let are_many = first.is_some_and(|first| *latest <= *first + WINDOW);
        now < *latest + QUIET && (self.are_endless || are_many)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ends rounds at the given seconds, each with a repair. Returns whether the
    /// repairs are endless after each round.
    fn after(repairs: &mut Repairs, seconds: &[u64]) -> Vec<bool> {
        let round = |second: &u64| {
            repairs.note("-E".to_owned());
            repairs.tell(Duration::from_secs(*second));
            repairs.are_endless
        };
        seconds.iter().map(round).collect()
    }

    fn later(repairs: &mut Repairs, second: u64) -> bool {
        repairs.tell(Duration::from_secs(second));
        repairs.are_endless
    }

    #[test]
    fn repairs_in_four_rounds_are_endless_until_it_is_quiet() {
        let mut repairs = Repairs::default();
        assert_eq!(
            after(&mut repairs, &[0, 2, 4, 6, 8]),
            [false, false, false, true, true]
        );
        assert!(later(&mut repairs, 97));
        assert!(!later(&mut repairs, 98));
        assert_eq!(
            after(&mut repairs, &[1000]),
            [false],
            "it is a new beginning"
        );
    }

    #[test]
    fn many_repairs_in_one_round_are_not_endless() {
        let mut repairs = Repairs::default();
        for _ in 0..100 {
            repairs.note("-A".to_owned());
        }
        assert!(!later(&mut repairs, 0));
    }

    #[test]
    fn repairs_of_sysctls_are_told_elsewhere() {
        let mut repairs = Repairs::default();
        for second in 0..100 {
            repairs.note_sysctl("sysctl".to_owned());
            assert!(!later(&mut repairs, second));
        }
    }

    #[test]
    fn a_program_is_told_without_interruption_or_never() {
        for (pause, is_endless) in [(60, true), (80, true), (81, false), (1000, false)] {
            let mut repairs = Repairs::default();
            let rounds: Vec<_> = (0..20).map(|round| round * pause).collect();
            let found = after(&mut repairs, &rounds);
            assert_eq!(found[..3], [false; 3]);
            assert_eq!(found[3..], [is_endless; 17], "every {pause} s");
            let before_the_next = 20 * pause - 1;
            assert_eq!(later(&mut repairs, before_the_next), is_endless);
        }
    }
}
