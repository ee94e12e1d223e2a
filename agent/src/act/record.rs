//! Writes a round's intents and results to the journal.

use std::time::Duration;

use ipvs::Op;

use super::{Edges, State};
use crate::{act::retry::Subject, decide::ours::Intent, disk::journal::JournalError};

/// Returns an intent that lists the entries that `additions` create.
pub(super) fn created<'a>(additions: impl IntoIterator<Item = &'a Op>) -> Intent {
    let mut intent = Intent::default();
    for op in additions {
        match op {
            Op::NewService(service, config) => intent.services.push((*service, config.clone())),
            Op::NewDestination(service, destination, config) => {
                intent.destinations.push((*service, *destination, *config));
            }
            _ => {}
        }
    }
    intent
}

/// Writes an intent to the journal, unless the intent is empty. Returns false
/// if the journal could not be written.
pub(super) fn intend(
    state: &mut State,
    edges: &mut Edges<'_>,
    intent: Intent,
    now: Duration,
) -> bool {
    if intent.is_empty() {
        return true;
    }
    // Before a new intent replaces the old one, the journal must list the
    // entries that were created under the old intent.
    if !settle(state, edges, now) || !state.retry.allows(Subject::Journal, now) {
        return false;
    }
    let intended = edges.journal.intend(&intent);
    edges.heartbeat.beat();
    // A failed write may still have reached the disk.
    state.ours.intent = intent;
    match intended {
        Ok(()) => {
            state.succeeded(Subject::Journal);
            true
        }
        Err(error) => {
            refused(state, &error, now);
            false
        }
    }
}

/// Writes to the journal which entries became ours or ceased to be ours, and
/// removes the intent in the same write. Returns false if the journal could not
/// be written.
pub(super) fn settle(state: &mut State, edges: &mut Edges<'_>, now: Duration) -> bool {
    if state.unsettled.is_empty() && state.ours.intent.is_empty() {
        return true;
    }
    // A round may call this function several times. After a failure, the rest
    // of the round does not try to write again.
    if !state.retry.allows(Subject::Journal, now) {
        state.unsettled.refused();
        return false;
    }
    let settled = edges.journal.settle(state.unsettled.changes());
    edges.heartbeat.beat();
    match settled {
        Ok(()) => {
            state.unsettled.settled();
            state.ours.intent = Intent::default();
            state.succeeded(Subject::Journal);
            true
        }
        Err(error) => {
            refused(state, &error, now);
            false
        }
    }
}

/// Records that the journal could not be written.
fn refused(state: &mut State, error: &JournalError, now: Duration) {
    match error {
        JournalError::Replaced { .. } => state.unsettled.everything(&state.ours),
        _ => state.unsettled.refused(),
    }
    state.failed(Subject::Journal, None, error.to_string(), now);
}
