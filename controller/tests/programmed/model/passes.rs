//! The controller's passes over its objects.

use std::collections::BTreeMap;

use controller::{
    outbox::Pass,
    status::{Id, Status},
    waits::Moment,
};
use k8s_openapi::jiff::Timestamp;

use super::{Model, NOW};

const MOMENT: Moment = Moment {
    now: NOW,
    clock: Timestamp::UNIX_EPOCH,
};

impl Model {
    /// Resolves the objects and makes a pass, as the controller does after
    /// events.
    pub(super) fn resolve(&mut self) {
        self.controller.resolve();
        self.conditions = self.controller.wanted(NOW).virtual_services;
        let pass = self.controller.pass(MOMENT);
        self.found
            .retain(|id, _| !pass.scope.has(id.subject, &id.key));
        self.found.extend(statuses(pass));
    }

    /// Compares what the passes so far have found with what a pass over all
    /// objects finds.
    pub(super) fn compare(&self) {
        let all = self.controller.pass_over_all(MOMENT);
        assert_eq!(
            self.found,
            statuses(all).collect::<BTreeMap<_, _>>(),
            "passes over what may have changed should find what a pass over all objects finds"
        );
    }
}

fn statuses(of: Pass) -> impl Iterator<Item = (Id, Status)> {
    let letters = of.letters.into_iter();
    letters.map(|letter| (letter.id, letter.status))
}
