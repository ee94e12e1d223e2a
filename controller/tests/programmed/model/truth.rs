//! Compares the controller's conditions with the true states in the model.

use std::collections::BTreeMap;

use crds::{
    Kind, ObjectKey, Objects, Service,
    api::VirtualServiceStatus,
    condition::{self, kind},
    resolve,
};
use serde_json::json;

use super::{GROUP, GROUPS, Model, Report, SERVERS, SERVICES, has_outdated, watch::list};

impl Model {
    /// Describes a service that the controller calls programmed although a
    /// director does not have it. Returns `None` if the controller is right
    /// about all services.
    pub(crate) fn lie(&self) -> Option<String> {
        let programmed = self
            .conditions
            .iter()
            .filter(|(_, status)| condition::is_true(&status.conditions, kind::PROGRAMMED))
            .map(|(key, _)| key);
        for key in programmed {
            let wanted = self.controller.resolved().services.get(key);
            for (director, agent) in self.agents.iter().enumerate() {
                let Some(report) = agent.seen.checked_sub(1).map(|last| &agent.reports[last])
                else {
                    continue;
                };
                let has = self.as_far_as_the_controller_is(report).get(key).cloned();
                if has.as_ref() != wanted {
                    return Some(format!(
                        "{key} is not programmed on director {director}, which is at {:?}; the \
                         controller is at {:?}.\nwanted {wanted:?}\nhas {has:?}",
                        report.used, self.at
                    ));
                }
            }
        }
        None
    }

    /// Returns the services that should be programmed by now but are not.
    pub(crate) fn not_programmed(&self) -> Vec<String> {
        let resolved = self.controller.resolved();
        // If an object is now invalid, its last valid version may decide which
        // servers a budget leaves out. The digests do not show this last valid
        // version.
        let are_cuts_unsure = !self.budgets.is_null() && has_outdated(self.controller.objects());
        let is_sound = |key: &ObjectKey, service: &Service| {
            !resolved.gone_groups.contains(&service.group)
                && !are_cuts_unsure
                && service
                    .servers
                    .iter()
                    .map(|server| &server.object)
                    .chain(resolved.refused_by(key).map(|(server, _)| server))
                    .all(|server| resolved.rejection(Kind::RealServer, server).is_none())
        };
        resolved
            .services
            .iter()
            .filter(|(key, service)| {
                resolved.rejection(Kind::VirtualService, key).is_none()
                    && is_sound(key, service)
                    && !self.has_an_unreadable_rival(key)
            })
            .filter_map(|(key, _)| {
                let conditions = &self.conditions.get(key)?.conditions;
                let programmed = condition::find(conditions, kind::PROGRAMMED)?;
                (programmed.status != "True").then(|| format!("{key}: {}", programmed.message))
            })
            .collect()
    }

    /// Returns the statuses that the controller computed when it last resolved
    /// the objects. Returns an empty map if the statuses may depend on earlier
    /// versions of objects.
    pub(crate) fn conditions(&self) -> BTreeMap<ObjectKey, VirtualServiceStatus> {
        // A restarted controller does not know deleted groups. It also does not
        // know the last accepted version of an object whose edit was rejected.
        let resolved = self.controller.resolved();
        if !resolved.gone_groups.is_empty()
            || !resolved.rejected.is_empty()
            || !self.history[GROUPS]
                .last()
                .is_some_and(|now| now.contains_key(GROUP))
        {
            return BTreeMap::new();
        }
        self.conditions.clone()
    }

    /// Returns the services that the director resolved for `report`. If the
    /// director is ahead of the controller for a kind, the controller's state
    /// of this kind is resolved instead.
    fn as_far_as_the_controller_is(&self, report: &Report) -> BTreeMap<ObjectKey, Service> {
        if (0..3).all(|kind| report.used[kind] <= self.at[kind]) {
            return report.services.clone();
        }
        let mut objects = Objects::default();
        for kind in [SERVICES, SERVERS, GROUPS] {
            let at = report.used[kind].min(self.at[kind]);
            list(&mut objects, kind, &self.history[kind][at]);
        }
        resolve(&objects).services
    }

    /// Whether an invalid service may have the VIP of service `key`. Directors
    /// that saw the last valid version of an invalid service still give the
    /// service its VIP. A controller that started later cannot know this VIP.
    fn has_an_unreadable_rival(&self, key: &ObjectKey) -> bool {
        let services = &self.history[SERVICES][self.at[SERVICES]];
        let vip = |name: &str| {
            services
                .get(name)
                .and_then(|object| object.pointer("/spec/vip"))
        };
        services.iter().any(|(name, object)| {
            **name != *key.name
                && vip(name) == vip(&key.name)
                && object.pointer("/spec/scheduler") == Some(&json!("quantum"))
        })
    }
}
