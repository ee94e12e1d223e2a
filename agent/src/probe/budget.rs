//! How much of the prober each namespace may use. All limits are in this file.

/// The limits of the prober, and of each namespace's share of it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Budget {
    /// How many probes may be in flight at once, over all namespaces.
    pub(super) places: usize,
    /// How many probes per second a namespace may make on average.
    pub(super) probes_per_second: f64,
    /// How many probes per second all namespaces together may make on average.
    /// The limit keeps the prober's thread from being busy all the time: a
    /// probe takes about 50 µs of it.
    pub(super) total_probes_per_second: f64,
}

impl Budget {
    /// Returns the default limits, with this many probes in flight at once.
    pub(super) fn with_places(places: usize) -> Self {
        Self {
            places,
            probes_per_second: 2000.0,
            total_probes_per_second: 8000.0,
        }
    }
}

/// Divides `room` among `demands` so that nobody gets less because another one
/// demands more (max-min fairness: Bertsekas and Gallager, Data Networks, 6.5).
/// Returns the most that any of them may have, which is infinite if there is
/// room for all.
pub(super) fn fair_limit(demands: impl IntoIterator<Item = f64>, room: f64) -> f64 {
    let mut demands: Vec<f64> = demands.into_iter().collect();
    demands.sort_unstable_by(f64::total_cmp);
    let mut left = room;
    for (index, demand) in demands.iter().enumerate() {
        let each = left / (demands.len() - index) as f64;
        if *demand > each {
            return each;
        }
        left -= demand;
    }
    f64::INFINITY
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_demands_are_met_and_the_others_share_the_rest_equally() {
        assert_eq!(fair_limit([1.0, 5.0, 10.0], 16.0), f64::INFINITY);
        assert_eq!(fair_limit([10.0, 1.0, 10.0], 15.0), 7.0);
        assert_eq!(fair_limit([10.0, 10.0], 15.0), 7.5);
        assert_eq!(fair_limit([], 0.0), f64::INFINITY);
    }

    proptest! {
        #[test]
        fn everybody_gets_the_demand_or_an_equal_part_and_nothing_is_left_over(
            demands in prop::collection::vec(0u32..1000, 1..20),
            room in 1u32..5000,
        ) {
            let room = f64::from(room);
            let limit = fair_limit(demands.iter().copied().map(f64::from), room);
            let given: f64 = demands.iter().map(|demand| f64::from(*demand).min(limit)).sum();
            prop_assert!(given <= room * 1.000_001, "{given} of {room}");
            if limit.is_finite() {
                prop_assert!(given >= room * 0.999_999, "{given} of {room}");
                prop_assert!(limit >= room / demands.len() as f64 * 0.999_999);
            }
        }
    }
}
