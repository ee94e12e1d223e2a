//! The part of a Director's report that is about health checks.

use std::{collections::BTreeMap, sync::Arc};

use crds::{api::DirectorHealth, condition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

/// The results of the health checks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HealthReport {
    /// The number of servers in each health state, or `None` without health
    /// checks.
    pub found: Option<DirectorHealth>,
    /// The number of probed targets.
    pub targets: usize,
    /// The reasons why probes are void, each with the number of affected
    /// targets.
    pub void: BTreeMap<Arc<str>, usize>,
    /// The reasons why probes begin late, each with the number of affected
    /// targets.
    pub late: BTreeMap<Arc<str>, usize>,
}

impl HealthReport {
    /// Returns the condition that reports whether probes work.
    pub(super) fn condition(&self, generation: i64) -> Condition {
        let targets = self.targets;
        let void = self.void.iter().map(|(why, targets)| (&**why, *targets));
        let late = self.late.iter().map(|(why, targets)| (&**why, *targets));
        match (self.void.is_empty(), self.late.is_empty()) {
            _ if targets == 0 => condition::health_checks_nothing(generation),
            (true, true) => condition::health_checks_probing(targets, generation),
            (true, false) => condition::health_checks_late(late, targets, generation),
            (false, true) => condition::health_checks_void(void, targets, generation),
            (false, false) => {
                let late = condition::health_checks_late(late, targets, generation);
                let mut both = condition::health_checks_void(void, targets, generation);
                both.message = format!("{}. {}", both.message, late.message);
                both
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use condition::reason::{NOTHING_TO_CHECK, PROBES_LATE, PROBES_VOID, PROBING};

    use super::*;

    #[test]
    fn the_condition_says_which_probes_are_void_and_which_are_late() {
        let because = |why: &str| BTreeMap::from([(why.into(), 2)]);
        let none = BTreeMap::new;
        for (targets, void, late, reason, words) in [
            (0, none(), none(), NOTHING_TO_CHECK, vec![]),
            (5, none(), none(), PROBING, vec!["5 targets"]),
            (
                5,
                because("no carrier"),
                none(),
                PROBES_VOID,
                vec!["no carrier"],
            ),
            (
                5,
                none(),
                because("shop"),
                PROBES_LATE,
                vec!["2 of 5", "shop"],
            ),
            (
                5,
                because("no carrier"),
                because("shop"),
                PROBES_VOID,
                vec!["no carrier", "2 of 5 targets are probed late", "shop"],
            ),
        ] {
            let report = HealthReport {
                found: None,
                targets,
                void,
                late,
            };
            let condition = report.condition(1);
            assert_eq!(condition.reason, reason);
            for words in words {
                assert!(condition.message.contains(words), "{}", condition.message);
            }
        }
    }
}
