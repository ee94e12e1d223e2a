//! Resolves the objects, and finds out which statuses may change with that.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crds::{Digest, Kind, ObjectKey, Resolved};

use super::{World, pass};
use crate::{
    need::{self, Fingerprint, Need},
    status::Subject,
};

impl World {
    /// Resolves the current objects, and updates the [`Need`] of every
    /// VirtualService.
    pub fn resolve(&mut self) {
        let touched = std::mem::take(&mut self.touched);
        let relisted = std::mem::take(&mut self.relisted);
        for (kind, key) in touched {
            match kind {
                Kind::DirectorGroup => self.stale.add_all(),
                _ => self.stale.add(pass::id(kind.into(), &key)),
            }
        }
        if !relisted.is_empty() {
            self.stale.add_all();
        }
        if !self.unresolved || !self.objects.is_listed() {
            return;
        }
        self.unresolved = false;
        let resolved = crds::resolve(&self.objects);
        let mut changed = BTreeSet::new();
        let gone: BTreeSet<&str> = resolved.gone_groups.iter().map(String::as_str).collect();
        let unsure = self.objects.namespaces_with_outdated();
        let mut rivals: HashMap<(&str, &str), Digest> = HashMap::new();
        for (key, stored) in self.objects.virtual_services.iter() {
            let service = resolved.services.get(key);
            let group = service
                .map(|service| service.group.as_str())
                .or(stored.group.as_deref())
                .unwrap_or_default();
            let servers: Vec<&ObjectKey> = service
                .into_iter()
                .flat_map(|service| service.servers.iter().map(|server| &server.object))
                .chain(resolved.refused_by(key).map(|(server, _)| server))
                .collect();
            let is_cut = resolved.is_cut(key);
            let fingerprint = Fingerprint {
                own: stored.digest,
                servers: servers.iter().fold(Digest::default(), |digest, server| {
                    digest ^ self.objects.real_servers.digest_of(server)
                }),
                rivals: is_cut.then(|| {
                    let all = || self.objects.digest_of_namespace(group, &key.namespace);
                    *rivals.entry((group, &key.namespace)).or_insert_with(all)
                }),
                accepted: resolved.rejection(Kind::VirtualService, key).is_none(),
                group_gone: gone.contains(group),
            };
            let provable = !fingerprint.group_gone
                && stored.current.is_ok()
                && !(is_cut && unsure.contains(&*key.namespace))
                && servers
                    .iter()
                    .all(|server| resolved.rejection(Kind::RealServer, server).is_none());
            let before = self.resolved.services.get(key);
            if let Some(need) = self.needs.get_mut(key)
                && need.fingerprint == fingerprint
                && before == service
            {
                if std::mem::replace(&mut need.provable, provable) != provable {
                    changed.insert(key.clone());
                }
                continue;
            }
            changed.insert(key.clone());
            self.history.know_group(group);
            self.has_new_states = true;
            let since = self.history.now(group);
            let before = before.zip(self.needs.get(key));
            let need = Need {
                fingerprint,
                since,
                provable,
                servers: need::servers(service, before, since),
                drained: need::drained(service, before, since),
            };
            self.needs.insert(key.clone(), need);
            self.stale.awaits(key);
        }
        self.needs
            .retain(|key, _| self.objects.virtual_services.get(key).is_some());
        self.accepted.clear();
        for (key, service) in &resolved.services {
            if resolved.rejection(Kind::VirtualService, key).is_none() {
                *self.accepted.entry(service.group.clone()).or_default() += 1;
            }
        }
        let before = std::mem::replace(&mut self.resolved, resolved);
        self.note_changes(&before, changed);
    }

    /// Notes the objects whose statuses may have changed because the objects
    /// resolve to something else than `before`. `services` are those whose
    /// [`Need`] has changed.
    fn note_changes(&mut self, before: &Resolved, mut services: BTreeSet<ObjectKey>) {
        let after = &self.resolved;
        if before.gone_groups != after.gone_groups {
            self.stale.add_all();
            return;
        }
        services.extend(differing(&before.services, &after.services).cloned());
        for service in services {
            let forms = [&before.services, &after.services].map(|all| all.get(&service));
            for server in forms.into_iter().flatten().flat_map(|form| &form.servers) {
                self.stale
                    .add(pass::id(Subject::RealServer, &server.object));
            }
            self.stale.add(pass::id(Subject::VirtualService, &service));
        }
        for (service, server) in differing(&before.refused, &after.refused) {
            self.stale.add(pass::id(Subject::VirtualService, service));
            self.stale.add(pass::id(Subject::RealServer, server));
        }
        for (kind, key) in differing(&before.rejected, &after.rejected) {
            self.stale.add(pass::id((*kind).into(), key));
        }
        // A DirectorGroup counts its services.
        for (group, _) in self.objects.director_groups.iter() {
            self.stale.add(pass::id(Subject::DirectorGroup, group));
        }
    }
}

/// Returns the keys whose values differ between two maps, or that only one of
/// them has.
fn differing<'a, K: Ord, V: PartialEq>(
    one: &'a BTreeMap<K, V>,
    other: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = &'a K> {
    let changed = one
        .iter()
        .filter(|(key, value)| other.get(key) != Some(*value));
    let new = other.keys().filter(|key| !one.contains_key(key));
    changed.map(|(key, _)| key).chain(new)
}
