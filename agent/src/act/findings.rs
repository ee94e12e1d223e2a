//! Stores what the plans found in the kernel's table, for the report.

use std::collections::BTreeSet;

use ipvs::{Plan, ServiceKey};

use super::State;

impl State {
    /// Stores what a plan found, for the report: strangers' destinations,
    /// entries left alone, and services in the wrong order. The new findings
    /// replace the previous findings for `services`, or for all services if
    /// `services` is `None`.
    pub(super) fn keep_findings(&mut self, plan: &Plan, services: Option<&BTreeSet<ServiceKey>>) {
        match services {
            None => {
                self.strangers.clear();
                self.left.clear();
                self.misordered.clear();
            }
            Some(services) => {
                for key in services {
                    self.strangers.remove(key);
                    self.left.remove(key);
                    self.misordered.remove(key);
                }
            }
        }
        for (service, destination) in &plan.strangers {
            self.strangers
                .entry(*service)
                .or_default()
                .push(*destination);
        }
        for (service, destination) in &plan.left {
            self.left.entry(*service).or_default().push(*destination);
        }
        self.misordered.extend(&plan.misordered);
    }

    /// Whether a wanted service is a stranger's and was left alone.
    pub(super) fn is_left(&self, service: &ServiceKey) -> bool {
        let left = self.left.get(service);
        left.is_some_and(|left| left.contains(&None))
    }
}
