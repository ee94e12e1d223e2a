//! Slow start: the weight of a server that came into service grows in steps.
//! The code is pure: time is an argument.

use std::time::Duration;

/// During slow start, a weight grows in at most this many steps.
const MOST_STEPS: u32 = 10;

/// Returns the weight of a server that came into service `since` ago. Also
/// returns the value of `since` at which the weight grows next, or none if the
/// weight is already full. The weight is never rounded to 0, so a server of
/// weight 1 has its full weight at once.
pub(super) fn weight(full: u32, since: Duration, slow_start: Duration) -> (u32, Option<Duration>) {
    let steps = full.clamp(1, MOST_STEPS);
    let step = slow_start / steps;
    let done = (1..steps).find(|done| since < step * *done);
    match done {
        Some(done) => {
            let part = u64::from(full) * u64::from(done) / u64::from(steps);
            let part = u32::try_from(part).expect("a part of a u32 is one");
            (part.max(1), Some(step * done))
        }
        None => (full, None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SLOW: Duration = Duration::from_secs(30);

    /// Returns the successive weights of a server during its slow start.
    fn weights(full: u32) -> Vec<u32> {
        let mut weights = Vec::new();
        let mut since = Duration::ZERO;
        loop {
            let (now, next) = weight(full, since, SLOW);
            weights.push(now);
            match next {
                Some(next) => since = next,
                None => return weights,
            }
        }
    }

    #[test]
    fn a_weight_grows_in_ten_equal_steps() {
        assert_eq!(weights(100), [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
        assert_eq!(weights(3), [1, 2, 3], "fewer where it has fewer");
        assert_eq!(weights(1), [1], "and none where it has no room");
        assert_eq!(weights(0), [0], "a drained server stays so");
    }

    proptest! {
        #[test]
        fn it_grows_to_the_whole_in_the_time_and_is_never_nothing(
            full in 1..=65535_u32,
            since in 0..60_000_u64,
        ) {
            let since = Duration::from_millis(since);
            let (now, next) = weight(full, since, SLOW);
            prop_assert!((1..=full).contains(&now), "{now} of {full}");
            prop_assert_eq!(next.is_none(), now == full);
            if since >= SLOW {
                prop_assert_eq!(now, full, "the time is over");
            }
            if let Some(next) = next {
                prop_assert!(next > since && next <= SLOW);
                prop_assert!(weight(full, next, SLOW).0 > now, "each step is one up");
            }
            prop_assert!(weights(full).len() <= 10);
        }
    }
}
