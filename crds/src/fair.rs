//! Shares a limited amount fairly among several demands.

/// Returns the limit that divides `room` fairly among `demands` (max-min
/// fairness: Bertsekas and Gallager, Data Networks, 6.5). Returns None if there
/// is room for all demands.
///
/// A demand up to the limit is met in full. Each larger demand gets only the
/// limit, which is rounded down.
pub fn fair_limit(demands: impl IntoIterator<Item = u64>, room: u64) -> Option<u64> {
    let mut demands: Vec<u64> = demands.into_iter().collect();
    demands.sort_unstable();
    let mut left = room;
    for (index, demand) in demands.iter().enumerate() {
        let others = demands.len() - index;
        let each = left / u64::try_from(others).expect("a length fits into 64 bits");
        if *demand > each {
            return Some(each);
        }
        left -= demand;
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_demands_are_met_and_the_others_share_the_rest_equally() {
        assert_eq!(fair_limit([1, 5, 10], 16), None);
        assert_eq!(fair_limit([10, 1, 10], 15), Some(7));
        assert_eq!(fair_limit([10, 10], 15), Some(7));
        assert_eq!(fair_limit([], 0), None);
        assert_eq!(fair_limit([1], 0), Some(0));
    }

    proptest! {
        #[test]
        fn everybody_gets_the_demand_or_an_equal_part_and_only_a_remainder_is_left_over(
            demands in prop::collection::vec(0u64..1000, 1..20),
            room in 1u64..5000,
        ) {
            let limit = fair_limit(demands.iter().copied(), room);
            let given: u64 = demands.iter().map(|demand| limit.map_or(*demand, |limit| limit.min(*demand))).sum();
            prop_assert!(given <= room, "{} of {}", given, room);
            if let Some(limit) = limit {
                let those = demands.len() as u64;
                prop_assert!(given + those > room, "{} of {}", given, room);
                prop_assert!(limit >= room / those);
            }
        }
    }
}
