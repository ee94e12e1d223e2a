//! When to stop putting right what somebody else keeps changing back.

use std::{collections::VecDeque, time::Duration};

/// So often within [`WINDOW`] a value is put right.
const MOST: usize = 3;
/// More than a person does by hand while trying something out, and less than
/// a program that runs every few minutes.
const WINDOW: Duration = Duration::from_secs(600);

/// How often one sysctl was put right of late.
#[derive(Clone, Debug, Default)]
pub struct Fight {
    put_right: VecDeque<Duration>,
    is_over: bool,
}

impl Fight {
    /// Somebody changed the value. Whether it is to be put right once more;
    /// once it is not, it never is again until [`Self::end`].
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

    /// The value is as it is to be, by whoever's hand. One that was left alone
    /// is looked after again.
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
        assert!(at(&mut fight, 10_010), "somebody had set it as it is to be");
    }

    #[test]
    fn who_changes_it_now_and_then_is_no_opponent() {
        let mut fight = Fight::default();
        for minute in 0..100 {
            assert!(at(&mut fight, minute * 240), "in minute {minute}");
        }
    }
}
