//! The virtual addresses, in a round.

use std::{collections::BTreeSet, net::IpAddr, time::Duration};

use ipvs::{Op, ServiceKey};

use super::{Edges, Removals, State, Wish, record};
use crate::{
    desired::Desired,
    host::addresses::{self, AddressPlan, Placement},
    journal::{Entry, Intent},
    retry::Subject,
};

/// Puts virtual addresses on and takes them away, after the services that
/// answer on them were made and before they are removed: a VIP without its
/// service answers with RST. Without a reason to look at them they are as they
/// were.
pub(super) fn place(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish<'_>,
    held: &[Op],
    is_due: bool,
    now: Duration,
) -> AddressPlan {
    let wish_of = (wish.holding, wish.removals);
    if !is_due && state.placed_for == Some(wish_of) && !state.are_addresses_unfinished {
        return state.placed.clone();
    }
    state.are_addresses_unfinished = false;
    let plan = look_and_place(state, edges, wish, held, now);
    state.placed_for = Some(wish_of);
    state.placed = AddressPlan {
        held: plan.held.clone(),
        stays: plan.stays.clone(),
        missing: plan.missing.clone(),
        ..AddressPlan::default()
    };
    plan
}

fn look_and_place(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish<'_>,
    held: &[Op],
    now: Duration,
) -> AddressPlan {
    let mut wanted = served_vips(state, wish.desired);
    // A service that is held goes on being served.
    wanted.extend(held.iter().filter_map(|op| match op {
        Op::DeleteService(service) => vip(service),
        _ => None,
    }));
    if wanted.is_empty() && state.ours.addresses.is_empty() {
        return AddressPlan::default();
    }
    let interfaces = match edges.links.interfaces() {
        Ok(interfaces) => interfaces,
        Err(error) => {
            state.failed(Subject::Links, None, error.to_string(), now);
            state.are_addresses_unfinished = true;
            // What cannot be seen cannot be taken away either.
            let ours = state.ours.addresses.clone().into_iter();
            return AddressPlan {
                stays: ours.filter(|(vip, _)| !wanted.contains(vip)).collect(),
                ..AddressPlan::default()
            };
        }
    };
    state.succeeded(Subject::Links);
    let mut plan = addresses::plan(&wanted, &interfaces, &state.ours.addresses, wish.holding);
    if wish.removals == Removals::NotYet {
        plan.remove.clear();
    }
    for address in &plan.forget {
        if let Some(interface) = state.ours.addresses.get(address).cloned() {
            state.disown(Entry::Address(*address, interface));
        }
    }
    let may_try = |placed: &Placement| state.retry.allows(Subject::Vip(placed.address), now);
    let wanted_here = plan.add.len();
    plan.add.retain(may_try);
    let is_any_waiting = plan.add.len() < wanted_here;
    let (remove, waiting): (Vec<_>, Vec<_>) = plan.remove.drain(..).partition(may_try);
    plan.stays.extend(waiting.iter().map(Placement::named));
    state.are_addresses_unfinished = is_any_waiting || !waiting.is_empty();
    let intent = Intent {
        addresses: plan.add.iter().map(Placement::named).collect(),
        ..Intent::default()
    };
    if record::intend(state, edges, intent, now) {
        for placed in &plan.add {
            let (address, interface) = placed.named();
            match edges.links.add(placed.index, address) {
                Ok(()) => {
                    tracing::info!("holding {address} on {interface}");
                    state.succeeded(Subject::Vip(address));
                    plan.held.insert(address, interface.clone());
                    state.own(Entry::Address(address, interface));
                }
                Err(error) => {
                    state.failed(Subject::Vip(address), None, error.to_string(), now);
                    state.are_addresses_unfinished = true;
                }
            }
        }
    } else {
        state.are_addresses_unfinished = true;
    }
    for placed in &remove {
        let (address, interface) = placed.named();
        match edges.links.remove(placed.index, address) {
            Ok(()) => {
                tracing::info!("released {address} on {interface}");
                state.succeeded(Subject::Vip(address));
                state.disown(Entry::Address(address, interface));
            }
            Err(error) => {
                state.failed(Subject::Vip(address), None, error.to_string(), now);
                state.are_addresses_unfinished = true;
                plan.stays.insert(address, interface);
            }
        }
    }
    plan
}

/// The wanted addresses on which at least one service stands in the kernel.
fn served_vips(state: &State, desired: &Desired) -> BTreeSet<IpAddr> {
    desired
        .services
        .keys()
        .filter(|key| state.has(key) && !state.is_left(key))
        .filter_map(vip)
        .collect()
}

fn vip(service: &ServiceKey) -> Option<IpAddr> {
    match service {
        ServiceKey::Address { address, .. } => Some(*address),
        ServiceKey::FirewallMark { .. } => None,
    }
}
