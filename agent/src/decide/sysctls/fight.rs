//! Decides when to stop correcting a sysctl that another process keeps changing
//! back.

use std::{collections::VecDeque, time::Duration};

/// The agent corrects a sysctl at most this many times within [`WINDOW`].
const MOST: usize = 3;
/// The time in which corrections of a sysctl are counted. A person who tries
/// out values by hand causes fewer than [`MOST`] corrections within this time.
/// A program that changes the sysctl at least every three minutes causes
/// [`MOST`] corrections.
const WINDOW: Duration = Duration::from_secs(600);

/// The recent corrections of one sysctl.
#[derive(Clone, Debug, Default)]
pub struct Fight {
    put_right: VecDeque<Duration>,
    is_over: bool,
}

impl Fight {
    /// Notes that another process changed the sysctl. Returns whether the agent
    /// should correct the sysctl once more. After this function has returned
    /// false, it keeps returning false until [`Self::end`] is called.
    pub fn goes_on(&mut self, now: Duration) -> bool {
        let is_old = |at: &Duration| *at + WINDOW <= now;
        while self.put_right.front().is_some_and(is_old) {
            self.put_right.pop_front();
        }
        self.is_over |= self.put_right.len() >= MOST;
        if !self.is_over {
            self.put_right.push_back(now);
        }
        !self.is_over
    }

    /// Notes that the sysctl has its wanted value, whichever process set it. If
    /// another process changes the sysctl later, the agent corrects it again.
    pub fn end(&mut self) {
        if self.is_over {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(fight: &mut Fight, seconds: u64) -> bool {
        fight.goes_on(Duration::from_secs(seconds))
    }

    #[test]
    fn a_value_is_put_right_three_times_in_ten_minutes_and_then_left() {
        let mut fight = Fight::default();
        for second in [0, 10, 20] {
            assert!(at(&mut fight, second), "at {second} s it is put right");
            fight.end();
        }
        for second in [30, 600, 10_000] {
            assert!(!at(&mut fight, second), "at {second} s it is left");
        }
        fight.end();
        assert!(
            at(&mut fight, 10_010),
            "the wanted value was back, so it is put right again"
        );
    }

    #[test]
    fn a_process_that_changes_it_now_and_then_is_no_opponent() {
        let mut fight = Fight::default();
        for minute in 0..100 {
            assert!(at(&mut fight, minute * 240), "in minute {minute}");
        }
    }
}
