//! Waits for a condition with a deadline, and panics with a description if the
//! condition is not met in time.

use std::fmt::Display;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The usual deadline for a condition that a test waits for. Even on a busy
/// machine, no operation of a passing test takes 180 s.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The shortest pause between two checks of a condition.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause between two quick checks of a condition.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The longest pause after a slow check of a condition.
const LONGEST_REST: Duration = Duration::from_secs(5);

/// Returns the pause before the next check of a condition. `took` is the
/// duration of the last check. `waited` is the time from the start of the first
/// check to the end of the last check. The longer a test waits, the longer the
/// pauses become. After a slow check, the pause is three times as long as the
/// check, but at most `LONGEST_REST`. Checks may start programs, so slow checks
/// must leave processor time to other labs.
fn pause(waited: Duration, took: Duration) -> Duration {
    let rest = (took * 3).min(LONGEST_REST);
    (waited / 20).clamp(SHORTEST_PAUSE, LONGEST_PAUSE).max(rest)
}

/// Calls `look` repeatedly until `look` returns `Ok`, and returns the value in
/// the `Ok`. `look` runs at least once, even if the deadline is zero.
///
/// # Panics
/// Panics if the deadline passes first. The panic message contains `what` and
/// the last error that `look` returned.
#[track_caller]
pub fn eventually<T, E: Display>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, E>,
) -> T {
    let start = Instant::now();
    loop {
        let began = start.elapsed();
        let seen = look();
        let ended = start.elapsed();
        match seen {
            Ok(value) => return value,
            Err(state) if ended >= within => {
                panic!("waited {within:?} for: {what}\nlast seen: {state}")
            }
            Err(_) => sleep(pause(ended, ended - began)),
        }
    }
}

/// Waits until `look` returns a value equal to `expected`.
///
/// # Panics
/// Panics if the deadline passes first.
#[track_caller]
pub fn eventually_equal<T: PartialEq + std::fmt::Debug>(
    what: &str,
    within: Duration,
    expected: &T,
    mut look: impl FnMut() -> T,
) {
    eventually(what, within, || {
        let seen = look();
        if seen == *expected {
            Ok(())
        } else {
            Err(format!("{seen:?}, not {expected:?}"))
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_the_last_look_gave() {
        let mut looks = 0;
        let seen = eventually("the third look", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks) }
        });
        assert_eq!(seen, 3);
    }

    #[test]
    #[should_panic(expected = "waited 0ns for: a table with two rows\nlast seen: one row")]
    fn says_what_it_waited_for_and_what_it_saw() {
        eventually("a table with two rows", Duration::ZERO, || {
            Err::<(), _>("one row")
        });
    }
}
