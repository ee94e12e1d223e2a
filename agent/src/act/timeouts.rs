//! Sets and restores the kernel's timeouts of connections as part of a round.

use std::time::Duration;

use ipvs::Timeouts;

use super::{Difference, Edges, State, record};
use crate::{act::retry::Subject, decide::ours::Entry};

/// Whether the agent must read the kernel's connection timeouts, because they
/// may differ from the wanted timeouts.
pub(super) fn are_in_doubt(state: &mut State, wanted: Timeouts, now: Duration) -> bool {
    if wanted == Timeouts::default() && state.ours.timeouts == Timeouts::default() {
        state.timeouts_settled = Some(wanted);
        return false;
    }
    let is_settled = state.timeouts_settled == Some(wanted);
    let is_another_refused = state
        .timeouts_refused
        .is_some_and(|refused| refused != wanted);
    if is_another_refused {
        state.timeouts_refused = None;
        state.succeeded(Subject::Timeouts);
    }
    (!is_settled || state.everything_is_dirty) && state.retry.allows(Subject::Timeouts, now)
}

/// Sets the kernel's connection timeouts to the wanted values. A value of 0 in
/// `wanted` means that the group does not want the timeout set. The journal
/// keeps the value that each timeout had before the agent first set it. When a
/// timeout is no longer wanted, the agent restores its previous value. An
/// unwanted timeout that the agent never set stays unchanged. If the round did
/// not read the timeouts, this function does nothing.
pub(super) fn apply(
    state: &mut State,
    edges: &mut Edges<'_>,
    wanted: Option<Timeouts>,
    now: Duration,
) -> Result<(), ipvs::Error> {
    let (Some(wanted), Some(found)) = (wanted, state.timeouts_found.take()) else {
        return Ok(());
    };
    let is_settled = state.timeouts_settled == Some(wanted);
    let before = each(
        state.ours.timeouts,
        wanted,
        found,
        |before, wanted, found| {
            if wanted != 0 && before == 0 {
                found
            } else {
                before
            }
        },
    );
    remember(state, before);
    let change = each(before, wanted, found, |before, wanted, found| {
        let target = if wanted == 0 { before } else { wanted };
        // The kernel reports 0 for a protocol that it was built without.
        if target == found || found == 0 {
            0
        } else {
            target
        }
    });
    if change != Timeouts::default() {
        // Record the previous timeouts first. Without the record, the agent
        // could not restore them.
        if is_unsettled(state) && !record::settle(state, edges, now) {
            return Ok(());
        }
        if let Err(error) = edges.kernel.set_timeouts(change) {
            return match error {
                ipvs::Error::Refused { .. } => {
                    let message = format!("cannot set spec.timeouts of the group: {error}");
                    state.timeouts_settled = None;
                    state.timeouts_refused = Some(wanted);
                    state.failed(Subject::Timeouts, None, message, now);
                    Ok(())
                }
                error => Err(error),
            };
        }
        state.writes.other(Difference::Timeouts {
            old: each(
                found,
                change,
                change,
                |found, change, _| {
                    if change == 0 { 0 } else { found }
                },
            ),
            new: change,
            ours: each(before, wanted, found, |before, wanted, found| {
                if before == 0 || found == 0 { 0 } else { wanted }
            }),
        });
        if is_settled {
            let Timeouts { tcp, tcp_fin, udp } = change;
            state.repairs.note(format!("--set {tcp} {tcp_fin} {udp}"));
        }
    }
    let still_set = each(
        before,
        wanted,
        found,
        |before, wanted, _| {
            if wanted == 0 { 0 } else { before }
        },
    );
    remember(state, still_set);
    state.timeouts_settled = Some(wanted);
    let lacking = each(wanted, found, Timeouts::default(), |wanted, found, _| {
        if found == 0 { wanted } else { 0 }
    });
    if lacking == Timeouts::default() {
        state.succeeded(Subject::Timeouts);
    } else {
        let message = "this kernel's ip_vs lacks a protocol that the group's spec.timeouts \
                       names: remove that protocol's timeout";
        state.failed(Subject::Timeouts, None, message.to_owned(), now);
    }
    Ok(())
}

/// Whether the journal still lacks the previous value of a timeout.
fn is_unsettled(state: &State) -> bool {
    let is_timeouts = |entry: &Entry| matches!(entry, Entry::Timeouts(_));
    state.unsettled.has(is_timeouts)
}

/// Records the timeouts that the kernel had before the agent set them. A
/// timeout that the agent did not set is 0 in `before`.
fn remember(state: &mut State, before: Timeouts) {
    if before == state.ours.timeouts {
        return;
    }
    if state.ours.timeouts != Timeouts::default() {
        state.disown(Entry::Timeouts(state.ours.timeouts));
    }
    if before != Timeouts::default() {
        state.own(Entry::Timeouts(before));
    }
}

/// Combines three sets of timeouts field by field with `combine`.
fn each(a: Timeouts, b: Timeouts, c: Timeouts, combine: fn(u32, u32, u32) -> u32) -> Timeouts {
    Timeouts {
        tcp: combine(a.tcp, b.tcp, c.tcp),
        tcp_fin: combine(a.tcp_fin, b.tcp_fin, c.tcp_fin),
        udp: combine(a.udp, b.udp, c.udp),
    }
}
