//! Makes new entries wait while a director has no room for them.
//!
//! A budget leaves out the newest objects. But a director continues to serve an
//! object that it already serves, even if a budget now leaves the object out. A
//! budget can leave out a served object when the budget shrinks, or when an
//! older object selects more servers. Objects that are created in the same
//! second can also change their order, because creation times are whole
//! seconds. If a director served both the left-out objects and the older
//! objects, a namespace could use its budget many times over. So the older
//! objects wait on that director until the left-out objects are gone.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    Candidate, Standing,
    budgets::{Excess, Limits, Why, too_many_services},
};
use crate::{Kind, ObjectKey, Objects, Rejection, Resolved, Service, condition::reason};

/// Moves accepted services and servers to [`Resolved::waiting`] while a budget
/// has no room for them. The reason is that the director still serves objects
/// beyond the budget. Objects that the director already serves do not wait. The
/// newest objects wait first.
pub(super) fn wait<'a>(
    objects: &Objects,
    candidates: &[Candidate<'a>],
    limits: &Limits<'a>,
    standing: &dyn Standing,
    resolved: &mut Resolved,
) {
    let is_any_kept = |service: &Service| !service.ungranted.is_empty();
    if resolved.ungranted.is_empty() && !resolved.services.values().any(is_any_kept) {
        return;
    }
    let mut places: BTreeMap<(&str, &str), Vec<&Candidate<'a>>> = BTreeMap::new();
    for candidate in candidates {
        let place = (&*candidate.service.group, &*candidate.key.namespace);
        places.entry(place).or_default().push(candidate);
    }
    for (place, mut candidates) in places {
        candidates.retain(|candidate| candidate.source == crate::Source::Api);
        let mut room = Room {
            objects,
            standing,
            resolved,
        };
        room.services(&candidates);
        for candidate in &candidates {
            let most = candidate.budgets.servers_per_service;
            room.servers(&[*candidate], most, Excess::Service);
        }
        if let Some(limit) = limits.get(&place) {
            room.servers(&candidates, limit.most, limit.excess);
        }
    }
}

struct Room<'a> {
    objects: &'a Objects,
    standing: &'a dyn Standing,
    resolved: &'a mut Resolved,
}

impl Room<'_> {
    /// Makes services of one namespace wait.
    fn services(&mut self, candidates: &[&Candidate<'_>]) {
        let Some(first) = candidates.first() else {
            return;
        };
        let most = first.budgets.of(&first.key.namespace).services;
        let is_kept = |candidate: &&&Candidate<'_>| {
            let why = self.resolved.rejection(Kind::VirtualService, candidate.key);
            !candidate.takes_part() && why.is_some_and(is_beyond)
        };
        let kept = candidates.iter().filter(is_kept).count();
        let accepted = candidates.iter().copied();
        let accepted: Vec<&Candidate<'_>> = accepted
            .filter(|candidate| candidate.takes_part())
            .collect();
        let excess = match kept {
            0 => 0,
            _ => (accepted.len() + kept).saturating_sub(most),
        };
        // `accepted` is sorted by age, oldest first. The newest services wait
        // first.
        let new = accepted.iter().rev();
        let new = new.filter(|candidate| !self.standing.service(candidate.service.id));
        let waiting: Vec<_> = new.take(excess).collect();
        for candidate in waiting {
            self.resolved.services.remove(candidate.key);
            let waiting = (candidate.key.clone(), None);
            let why = too_many_services(candidate, Why::NoRoom);
            self.resolved.waiting.insert(waiting, why);
        }
    }

    /// Makes servers wait, so that the given services of one namespace together
    /// have at most `most` servers.
    fn servers(&mut self, candidates: &[&Candidate<'_>], most: usize, excess: Excess) {
        let used = candidates.iter().map(|candidate| self.used(candidate.key));
        let mut beyond = used.sum::<usize>().saturating_sub(most);
        if beyond == 0 {
            return;
        }
        let mut new = Vec::new();
        for (number, candidate) in candidates.iter().enumerate() {
            let Some(service) = self.resolved.services.get(candidate.key) else {
                continue;
            };
            for (place, server) in service.servers.iter().enumerate() {
                if !self.standing.has_place(service.id, server.socket()) {
                    let stored = self.objects.real_servers.get(&server.object);
                    let created = stored.map_or(0, |stored| stored.created);
                    new.push((candidate.created.max(created), number, place));
                }
            }
        }
        new.sort_unstable();
        let mut waiting: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        while beyond > 0
            && let Some((_, number, place)) = new.pop()
        {
            waiting.entry(number).or_default().insert(place);
            beyond -= 1;
        }
        for (number, places) in waiting {
            let candidate = candidates[number];
            let why = excess.rejection(candidate, Why::NoRoom);
            let service = self.resolved.services.get_mut(candidate.key);
            let service = service.expect("its servers were listed above");
            for place in &places {
                let server = service.servers[*place].object.clone();
                let pair = (candidate.key.clone(), Some(server));
                self.resolved.waiting.insert(pair, why.clone());
            }
            service.refuse(&places, |_| false);
        }
    }

    /// Returns how many servers of a service a director would have: the servers
    /// within the budgets, and the left-out servers that the director still
    /// serves.
    fn used(&self, key: &ObjectKey) -> usize {
        let resolved = &self.resolved;
        let accepted = resolved.services.get(key);
        let Some(service) = accepted.or_else(|| resolved.ungranted.get(key)) else {
            return 0;
        };
        let kept = service.ungranted.iter().filter(|(_, server)| {
            let why = resolved.refused.get(&(key.clone(), server.object.clone()));
            why.is_some_and(is_beyond)
        });
        service.servers.len() + kept.count()
    }
}

fn is_beyond(why: &Rejection) -> bool {
    why.reason == reason::BUDGET_EXCEEDED
}
