//! Compares what the controller says with what the model knows.

use std::collections::BTreeMap;

use crds::{
    Kind, ObjectKey, Objects, Service,
    api::VirtualServiceStatus,
    condition::{self, kind},
    resolve,
};
use serde_json::json;

use super::{GROUP, GROUPS, Model, Report, SERVERS, SERVICES, watch::list};

impl Model {
    /// A service that the controller calls programmed although a director does
    /// not have it, with the reason.
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
                        "{key} is not programmed on director {director}, which stands at {:?}; the \
                         controller stands at {:?}.\nwanted {wanted:?}\nhas {has:?}",
                        report.used, self.at
                    ));
                }
            }
        }
        None
    }

    /// Services that should be programmed by now and are not.
    pub(crate) fn not_programmed(&self) -> Vec<String> {
        let resolved = self.controller.resolved();
        // If an object is not acceptable any more, what is in force depends on
        // the past, which digests do not show.
        let is_sound = |key: &ObjectKey, service: &Service| {
            !resolved.gone_groups.contains(&service.group)
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

    /// Every status, from what was resolved last.
    pub(crate) fn conditions(&self) -> BTreeMap<ObjectKey, VirtualServiceStatus> {
        // A controller that was restarted does not know a deleted group, nor
        // what was in force before a rejected edit.
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

    /// The services that a report's director has. If it is further than the
    /// controller, the services that it had at the controller's position.
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

    /// A service that is not acceptable any more keeps its VIP on directors
    /// that knew its last valid version. A controller that started later cannot
    /// know which VIP that is.
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
