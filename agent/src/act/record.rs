//! What a round leaves in the journal.

use std::time::Duration;

use ipvs::Op;

use super::{Edges, State};
use crate::{act::retry::Subject, disk::journal::Intent};

/// What these operations create.
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

/// Leaves an intent in the journal, unless there is nothing to create. False
/// when the disk did not take it.
pub(super) fn intend(
    state: &mut State,
    edges: &mut Edges<'_>,
    intent: Intent,
    now: Duration,
) -> bool {
    if intent.is_empty() {
        return true;
    }
    // A new intent replaces the old one, so what the old one made must stand
    // in the journal before.
    if !settle(state, edges, now) || !state.retry.allows(Subject::Journal, now) {
        return false;
    }
    let intended = edges.journal.intend(&intent);
    // A write that failed may stand on the disk all the same.
    state.ours.intent = intent;
    match intended {
        Ok(()) => {
            state.succeeded(Subject::Journal);
            true
        }
        Err(error) => {
            state.failed(Subject::Journal, None, error.to_string(), now);
            false
        }
    }
}

/// Writes what changed hands, and drops the intent with it.
pub(super) fn settle(state: &mut State, edges: &mut Edges<'_>, now: Duration) -> bool {
    if state.unsettled.is_empty() && state.ours.intent.is_empty() {
        return true;
    }
    // Of the several writes of a round the first failure is the only attempt.
    if !state.retry.allows(Subject::Journal, now) {
        return false;
    }
    match edges.journal.settle(&state.unsettled) {
        Ok(()) => {
            state.unsettled.clear();
            state.ours.intent = Intent::default();
            state.succeeded(Subject::Journal);
            true
        }
        Err(error) => {
            state.failed(Subject::Journal, None, error.to_string(), now);
            false
        }
    }
}
