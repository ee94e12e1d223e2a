//! Writes a round's intents and results to the journal.

use std::time::Duration;

use ipvs::Op;

use super::{Edges, State};
use crate::{act::retry::Subject, decide::ours::Intent};

/// Returns an intent for what these operations create.
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

/// Writes an intent to the journal, unless there is nothing to create. Returns
/// false if the disk did not take it.
pub(super) fn intend(
    state: &mut State,
    edges: &mut Edges<'_>,
    intent: Intent,
    now: Duration,
) -> bool {
    if intent.is_empty() {
        return true;
    }
    // A new intent replaces the old one. What the old one made must be in the
    // journal before.
    if !settle(state, edges, now) || !state.retry.allows(Subject::Journal, now) {
        return false;
    }
    let intended = edges.journal.intend(&intent);
    // A write that failed may be on the disk nevertheless.
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
    // A round may settle several times; after the first failure it does not try
    // again.
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
