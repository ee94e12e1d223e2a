//! Reads the kernel's table at the beginning of a round.

use std::{
    collections::{BTreeSet, btree_map},
    time::Duration,
};

use ipvs::{ActualService, ActualTable, ServiceKey, Timeouts};

use super::{
    Edges, State,
    doubt::{Doubt, MOST_SINGLE_READINGS},
    timeouts,
};
use crate::decide::ours::Entry;

/// Reads the services that are in doubt. If very many or all services are in
/// doubt, reads the kernel's whole table. If `state.in_doubt` is true, looks in
/// the kernel's table for the entries of the intent. An entry that exists with
/// the intended configuration becomes ours. The round plans every service that
/// was read. If the kernel's timeouts may differ from `timeouts`, reads the
/// kernel's timeouts too.
///
/// # Errors
/// Returns an error if the kernel does not answer. After an error, services
/// that were in doubt stay in doubt.
pub fn read(
    state: &mut State,
    edges: &mut Edges<'_>,
    timeouts: Option<Timeouts>,
    now: Duration,
) -> Result<(), ipvs::Error> {
    read_table(state, edges)?;
    state.timeouts_found = match timeouts {
        Some(wanted) if timeouts::are_in_doubt(state, wanted, now) => {
            Some(edges.kernel.timeouts()?)
        }
        _ => None,
    };
    Ok(())
}

fn read_table(state: &mut State, edges: &mut Edges<'_>) -> Result<(), ipvs::Error> {
    // A service whose removal is unfinished may contain a stranger's
    // destination by now.
    state.look_at_adopted(state.unfinished.clone());
    let doubt = std::mem::take(&mut state.doubt);
    let result = match (&doubt, state.believed.is_some()) {
        (Doubt::Services(keys), true) if keys.len() <= MOST_SINGLE_READINGS => {
            read_services(state, edges, keys)
        }
        _ => read_all(state, edges),
    };
    if result.is_err() {
        state.doubt = doubt;
    }
    result
}

fn read_services(
    state: &mut State,
    edges: &mut Edges<'_>,
    keys: &BTreeSet<ServiceKey>,
) -> Result<(), ipvs::Error> {
    for key in keys {
        let found = edges.kernel.service(key)?;
        let believed = state.believed.as_mut().expect("asked for by the caller");
        let before = match &found {
            Some(found) => believed.insert(*key, found.clone()),
            None => believed.remove(key),
        };
        note_drift(state, *key, before.as_ref(), found.as_ref());
        state.dirty.insert(*key);
    }
    Ok(())
}

fn read_all(state: &mut State, edges: &mut Edges<'_>) -> Result<(), ipvs::Error> {
    let mut table = edges.kernel.table()?;
    if state.ours.table.is_any_missing(&table) {
        // The kernel's dump may skip an entry if another process removes an
        // entry at the same time. The agent therefore reads the table a second
        // time. An entry is gone only if both readings lack it.
        merge(&mut table, edges.kernel.table()?);
    }
    if std::mem::take(&mut state.in_doubt) {
        for entry in state.ours.intent.claims(&table) {
            match &entry {
                // A service that is not ours contains no destination of ours.
                Entry::Destination(service, _) if !state.ours.table.service(service) => {}
                Entry::Service(service) => {
                    state.made(*service);
                    state.own(entry);
                }
                _ => state.own(entry),
            }
        }
    }
    let before = state.believed.take();
    if before.is_none() {
        state.writes.everything();
    }
    let ours: Vec<_> = state.ours.table.services.keys().copied().collect();
    for key in ours {
        let before = before.as_ref().and_then(|before| before.get(&key));
        note_drift(state, key, before, table.get(&key));
    }
    state.believed = Some(table);
    state.everything_is_dirty = true;
    Ok(())
}

/// Adds the entries of ours that other processes have changed to
/// `state.drifted`. `before` is the last known state of the service, if there
/// was one. `now` is the state that was just read.
fn note_drift(
    state: &mut State,
    key: ServiceKey,
    before: Option<&ActualService>,
    now: Option<&ActualService>,
) {
    let Some(ours) = state.ours.table.services.get(&key) else {
        return;
    };
    let changed = match (before, now) {
        (_, None) => true,
        (Some(before), Some(now)) => before.config != now.config,
        (None, Some(_)) => false,
    };
    if changed {
        state.drifted.insert((key, None));
        state.writes.touched(key);
    }
    for destination in ours {
        let find = |service: Option<&ActualService>| {
            service.and_then(|service| service.destinations.get(destination).copied())
        };
        let changed = match (find(before), find(now)) {
            (_, None) => true,
            (Some(before), Some(now)) => before != now,
            (None, Some(_)) => false,
        };
        if changed {
            state.drifted.insert((key, Some(*destination)));
            state.writes.touched(key);
        }
    }
}

/// Adds to `table` the entries of the second reading, `again`, that `table`
/// lacks.
fn merge(table: &mut ActualTable, again: ActualTable) {
    for (key, service) in again {
        match table.entry(key) {
            btree_map::Entry::Vacant(free) => {
                free.insert(service);
            }
            btree_map::Entry::Occupied(mut known) => {
                let known = &mut known.get_mut().destinations;
                for (destination, config) in service.destinations {
                    known.entry(destination).or_insert(config);
                }
            }
        }
    }
}
