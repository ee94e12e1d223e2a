//! Builds the report of the loop after a round.

use std::time::Duration;

use crds::{ObjectKey, condition::Release};

use super::Loop;
use crate::{
    act::Outcome,
    ration::Line,
    tell::report::{Observed, oddities, unknown_fields},
};

impl Loop {
    /// Returns the loop's findings about the director, from which the status is
    /// computed.
    pub(super) fn observed(&mut self, outcome: Option<Outcome>, now: Duration) -> Observed {
        let used = outcome.as_ref();
        let used = used.map(|_| self.objects.digests(&self.group));
        let wishes = self.protection.desired().clone();
        self.told_unlisted = self.unlisted(now);
        Observed {
            at: (self.world.daytime)().here,
            group: self.group.clone(),
            used,
            outcome,
            removals_held: self.held.clone(),
            trouble: self.trouble.clone().or_else(|| self.told_unlisted.clone()),
            health: self.health.report(&wishes),
            wishes,
            unreadable: self.unreadable.clone(),
            hold: self.hold(),
            doubt: self.doubt.clone(),
            checkpoint_trouble: self.checkpoint_trouble.clone(),
            input_problems: self.input_problems(),
            protection: self.protection.report(),
            drains: self.draining.report.clone(),
        }
    }

    /// Returns the problems with what the inputs gave, one sentence each.
    fn input_problems(&self) -> Vec<String> {
        let group = self
            .objects
            .director_groups
            .get(&ObjectKey::cluster(&*self.group));
        let unknown = group.and_then(|group| unknown_fields(&group.ignored));
        let unknown = unknown.map(|why| format!("DirectorGroup {}: {why}", self.group));
        let manifests = self.manifest_problems.iter().cloned();
        unknown.into_iter().chain(manifests).collect()
    }

    /// Logs the unusual conditions of this host that were not logged before.
    pub(super) fn log_oddities(&mut self, outcome: &Outcome, now: Duration) {
        let hold = self.hold();
        let wishes = self.protection.desired();
        let release = Release {
            group: &self.group,
            now: (self.world.daytime)().here,
        };
        let mut found = oddities(outcome, &self.held, wishes, hold.as_ref(), release);
        found.extend(self.protection.report().lines());
        let doubt = self.doubt.as_ref().map(ToString::to_string);
        found.extend(doubt.map(Line::of_host));
        self.oddities.warn_within(&mut self.ration, found, now);
    }
}
