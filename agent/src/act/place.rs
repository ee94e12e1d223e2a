//! Adds virtual addresses to interfaces and removes them, as part of a round.

mod others;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use super::{Difference, Edges, State, Wish, record, segment::Segment};
use crate::{
    act::retry::Subject,
    claim::{Orders, machine::Order},
    decide::{
        addresses::{self, AddressPlan, DEVICE, Holding, Missing, Placement, Wanted},
        desired::Desired,
        ours::{Entry, Intent},
    },
    event::claims::Verdict,
    host::interface::Interface,
};

/// How long the agent trusts a claim that found an address free.
const FRESH: Duration = Duration::from_secs(2);

impl State {
    /// Records `verdicts`, the results of claims for virtual addresses. The
    /// claims ended with these results at the time `found`.
    pub fn hear_claims(&mut self, found: Duration, verdicts: BTreeMap<IpAddr, Verdict>) {
        let verdicts = verdicts.into_iter();
        let verdicts = verdicts.map(|(address, verdict)| (address, (verdict, found)));
        self.segment.verdicts.extend(verdicts);
        self.are_addresses_unfinished = true;
    }

    /// Records the interfaces on whose segments the agent cannot listen, each
    /// with the reason.
    pub fn hear_hindered(&mut self, deaf: BTreeMap<u32, String>) {
        self.segment.deaf = deaf;
        self.are_addresses_unfinished = true;
    }

    /// Makes the next round read the interfaces again.
    pub fn links_changed(&mut self) {
        self.are_addresses_unfinished = true;
    }
}

/// Adds each virtual address after its services were created, and removes each
/// address before its services are removed. A host with a VIP but without the
/// VIP's service answers clients with RST. If there is no reason to read the
/// interfaces again, this function returns the previous result.
pub(super) fn place(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish,
    is_due: bool,
    now: Duration,
) -> AddressPlan {
    let is_same = state.placed_for.as_ref() == Some(&wish.addresses);
    if !is_due && is_same && !state.are_addresses_unfinished {
        return state.placed.clone();
    }
    state.are_addresses_unfinished = false;
    let mut plan = look_and_place(state, edges, wish, now);
    if plan.moves && !state.are_addresses_unfinished {
        plan = look_and_place(state, edges, wish, now);
    }
    state.placed_for = Some(wish.addresses.clone());
    state.placed = AddressPlan {
        vips: plan.vips.clone(),
        kept: plan.kept.clone(),
        stays: plan.stays.clone(),
        missing: plan.missing.clone(),
        contested: plan.contested.clone(),
        ..AddressPlan::default()
    };
    plan
}

fn look_and_place(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish,
    now: Duration,
) -> AddressPlan {
    let wanted = served_vips(state, &wish.desired);
    let ours = &state.ours;
    let is_nothing_ours = ours.addresses.is_empty() && ours.device.is_none();
    if wanted.is_empty() && is_nothing_ours && state.segment.is_known {
        order(state, edges, Orders::new());
        return AddressPlan::default();
    }
    let (interfaces, mut plan) = match look(state, edges, wish, &wanted, now) {
        Ok(found) => found,
        Err(error) => {
            state.failed(Subject::Links, None, error.to_string(), now);
            state.are_addresses_unfinished = true;
            // Without a reading of the interfaces, no address can be removed.
            let ours = state.ours.addresses.clone().into_iter();
            return AddressPlan {
                stays: ours.filter(|(vip, _)| !wanted.contains(vip)).collect(),
                ..AddressPlan::default()
            };
        }
    };
    state.succeeded(Subject::Links);
    state.segment.is_known = true;
    for address in &plan.forget {
        state.segment.seen.remove(address);
        if let Some(interface) = state.ours.addresses.get(address).cloned() {
            state.disown(Entry::Address(*address, interface));
        }
    }
    let here = plan.vips.keys().copied();
    let ours = here.filter(|address| state.ours.addresses.contains_key(address));
    state.segment.seen.extend(ours);
    let may_try = |placed: &Placement| state.retry.allows(Subject::Vip(placed.address), now);
    let wanted_here = plan.add.len();
    plan.add.retain(may_try);
    let is_any_waiting = plan.add.len() < wanted_here;
    let (remove, waiting): (Vec<_>, Vec<_>) = plan.remove.drain(..).partition(may_try);
    plan.stays.extend(waiting.iter().map(Placement::named));
    state.are_addresses_unfinished |= is_any_waiting || !waiting.is_empty();
    let asked = wait_for_verdicts(state, &mut plan, now);
    record_taken_over(state, edges, &mut plan, wish.addresses.holding);
    add(state, edges, &mut plan, now);
    remove_all(state, edges, &mut plan, &remove, now);
    let mut orders = asked;
    let watched = plan.watched.iter();
    orders.extend(watched.map(|(address, card)| (*address, Order::Watch(*card))));
    let cards = plan.cards.iter();
    orders.extend(cards.map(|(address, card)| {
        let times = state
            .segment
            .times
            .get(address)
            .copied()
            .unwrap_or_default();
        (*address, Order::Hold(*card, times))
    }));
    order(state, edges, orders);
    remove_device(state, edges, wish, &interfaces, now);
    others::name(state, edges, wish, &mut plan);
    plan
}

/// Reads the interfaces and plans the addresses. Creates the agent's own device
/// if the plan needs it.
fn look(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish,
    wanted: &BTreeSet<IpAddr>,
    now: Duration,
) -> Result<(Vec<Interface>, AddressPlan), crate::host::netlink::LinkError> {
    let mut interfaces = edges.links.interfaces()?;
    adopt_marked(state, &interfaces);
    let taken = taken_from_us(state);
    let plan_of = |state: &State, interfaces: &[Interface]| {
        let wanted = Wanted {
            addresses: wanted,
            rule: &wish.addresses.rule,
            holding: wish.addresses.holding,
            is_released: wish.addresses.is_released,
            taken: &taken,
            kept: &wish.addresses.kept,
            ours: &state.ours.addresses,
            seen: &state.segment.seen,
        };
        addresses::plan(&wanted, interfaces)
    };
    let mut plan = plan_of(state, &interfaces);
    if plan.needs_device && state.retry.allows(Subject::Device, now) {
        // The journal must name the device as ours before the device exists.
        if state.ours.device.is_none() {
            state.own(Entry::Device(DEVICE.to_owned()));
        }
        if record::settle(state, edges, now) {
            match edges.links.make_device(DEVICE) {
                Ok(()) => {
                    tracing::info!("made the device {DEVICE} for virtual addresses");
                    state.writes.other(device(true));
                    state.succeeded(Subject::Device);
                    interfaces = edges.links.interfaces()?;
                    plan = plan_of(state, &interfaces);
                }
                Err(error) => state.failed(Subject::Device, None, error.to_string(), now),
            }
        }
    }
    state.are_addresses_unfinished |= plan.needs_device;
    Ok((interfaces, plan))
}

/// Records as ours every address that has the agent's mark. The journal may
/// lack a marked address, for example if the journal is new.
fn adopt_marked(state: &mut State, interfaces: &[Interface]) {
    for interface in interfaces {
        for address in &interface.marked {
            if !state.ours.addresses.contains_key(address) {
                state.own(Entry::Address(*address, interface.name.clone()));
            }
        }
    }
}

/// Removes from `plan.add` each address that needs a claim, unless a claim has
/// found the address free. An address needs no claim if the agent only restores
/// it, or if its interface is not Ethernet. Returns, for each address that
/// needs a claim, an order to the claims thread.
fn wait_for_verdicts(state: &mut State, plan: &mut AddressPlan, now: Duration) -> Orders {
    let mut orders = Orders::new();
    let segment = &state.segment;
    let (deaf, missing) = (&segment.deaf, &mut plan.missing);
    plan.add.retain(|placed| {
        let Some(card) = placed.card.filter(|_| needs_claim(placed)) else {
            return true;
        };
        orders.insert(placed.address, Order::Ask(card));
        if !card.up {
            missing.insert(placed.address, Missing::Down(placed.interface.clone()));
            return false;
        }
        if let Some(why) = deaf.get(&card.index) {
            let why = Missing::Deaf(placed.interface.clone(), why.clone());
            missing.insert(placed.address, why);
            return false;
        }
        let why = match segment.verdicts.get(&placed.address) {
            Some((Verdict::Free(index), found)) if *index == card.index && now < *found + FRESH => {
                return true;
            }
            Some((Verdict::Taken(mac), _)) => Missing::Taken(*mac, Vec::new()),
            _ => Missing::Asking,
        };
        missing.insert(placed.address, why);
        false
    });
    orders
}

/// Returns whether an address may be added only if a claim found it free.
fn needs_claim(placed: &Placement) -> bool {
    placed.card.is_some() && !placed.is_repair
}

/// Returns the addresses to remove from this host because another host has
/// them.
fn taken_from_us(state: &State) -> BTreeSet<IpAddr> {
    let Segment {
        verdicts, orders, ..
    } = &state.segment;
    let is_taken = |address: &IpAddr, order: &Order| {
        let verdict = verdicts.get(address).map(|(verdict, _)| verdict);
        match (order, verdict) {
            (Order::Watch(_), Some(Verdict::Taken(_))) => true,
            (Order::Hold(..), Some(Verdict::Contested(_))) => {
                state.ours.taken_over.contains(address)
            }
            _ => false,
        }
    };
    let taken = orders.iter();
    let taken = taken.filter(|(address, order)| is_taken(address, order));
    taken.map(|(address, _)| *address).collect()
}

/// Updates the journal's list of addresses that this director took over because
/// all other directors stopped renewing their Leases. Removes addresses that
/// are no longer ours from the list. With [`Holding::TakeOver`], adds the
/// addresses in `plan.add` to the list. If this write fails, the director takes
/// over no address.
fn record_taken_over(
    state: &mut State,
    edges: &mut Edges<'_>,
    plan: &mut AddressPlan,
    holding: Holding,
) {
    let mut taken_over = state.ours.taken_over.clone();
    taken_over.retain(|address| state.ours.addresses.contains_key(address));
    match holding {
        Holding::Take => taken_over.clear(),
        Holding::TakeOver => taken_over.extend(plan.add.iter().map(|placed| placed.address)),
        Holding::KeepOnly | Holding::Wait | Holding::Release | Holding::Undecided => {}
    }
    if taken_over == state.ours.taken_over {
        return;
    }
    match edges.journal.remember_taken_over(&taken_over) {
        Ok(()) => state.ours.taken_over = taken_over,
        Err(error) => {
            tracing::debug!("{error}");
            state.are_addresses_unfinished = true;
            if holding == Holding::TakeOver {
                plan.add.clear();
            }
        }
    }
}

/// Adds the addresses in `plan.add`. On a slow host, the records and the
/// additions before an address take seconds. If another host has claimed the
/// address meanwhile, it is left out, and the claims thread asks for it again.
fn add(state: &mut State, edges: &mut Edges<'_>, plan: &mut AddressPlan, now: Duration) {
    let intent = Intent {
        addresses: plan.add.iter().map(Placement::named).collect(),
        ..Intent::default()
    };
    if !record::intend(state, edges, intent, now) {
        state.are_addresses_unfinished = true;
        return;
    }
    for placed in &plan.add {
        let (address, interface) = placed.named();
        edges.heartbeat.beat();
        if needs_claim(placed) && !edges.segments.is_free(address) {
            state.are_addresses_unfinished = true;
            plan.missing.insert(address, Missing::Asking);
            continue;
        }
        match edges.links.add(placed.index, address) {
            Ok(()) => {
                if state.segment.seen.insert(address) {
                    tracing::info!("holding {address} on {interface}");
                } else {
                    state
                        .repairs
                        .note(format!("ip address add {address} dev {interface}"));
                }
                *state.segment.times.entry(address).or_default() += 1;
                state.succeeded(Subject::Vip(address));
                state.writes.other(Difference::Address {
                    address,
                    old: None,
                    new: Some(interface.clone()),
                });
                plan.vips.insert(address, interface.clone());
                state.own(Entry::Address(address, interface));
            }
            Err(error) => {
                state.failed(Subject::Vip(address), None, error.to_string(), now);
                state.are_addresses_unfinished = true;
            }
        }
    }
    // The addresses that were just added must be announced on their segments at
    // once.
    let added = plan
        .add
        .iter()
        .filter(|placed| plan.vips.contains_key(&placed.address));
    let cards = added.filter_map(|placed| Some((placed.address, placed.card?)));
    plan.cards.extend(cards);
}

fn remove_all(
    state: &mut State,
    edges: &mut Edges<'_>,
    plan: &mut AddressPlan,
    remove: &[Placement],
    now: Duration,
) {
    for placed in remove {
        let (address, interface) = placed.named();
        edges.heartbeat.beat();
        match edges.links.remove(placed.index, address) {
            Ok(()) => {
                tracing::info!("released {address} on {interface}");
                state.segment.seen.remove(&address);
                state.succeeded(Subject::Vip(address));
                state.writes.other(Difference::Address {
                    address,
                    old: Some(interface.clone()),
                    new: None,
                });
                state.disown(Entry::Address(address, interface));
            }
            Err(error) => {
                state.failed(Subject::Vip(address), None, error.to_string(), now);
                state.are_addresses_unfinished = true;
                plan.stays.insert(address, interface);
            }
        }
    }
}

/// Removes the agent's own device if no address is on it or will be added to
/// it.
fn remove_device(
    state: &mut State,
    edges: &mut Edges<'_>,
    wish: &Wish,
    interfaces: &[Interface],
    now: Duration,
) {
    let Some(name) = state.ours.device.clone() else {
        return;
    };
    let is_used = state.ours.addresses.values().any(|on| *on == name);
    let addresses = &wish.addresses;
    let is_wanted = addresses.rule == crds::AddressRule::Dummy && !wish.desired.vips.is_empty();
    if is_used || is_wanted || addresses.is_device_kept {
        return;
    }
    let exists = interfaces.iter().any(|interface| interface.name == name);
    if exists && !state.retry.allows(Subject::Device, now) {
        state.are_addresses_unfinished = true;
        return;
    }
    match if exists {
        edges.links.remove_device(&name)
    } else {
        Ok(())
    } {
        Ok(()) => {
            state.succeeded(Subject::Device);
            state.writes.other(device(false));
            state.disown(Entry::Device(name));
        }
        Err(error) => {
            state.failed(Subject::Device, None, error.to_string(), now);
            state.are_addresses_unfinished = true;
        }
    }
}

fn device(exists: bool) -> Difference {
    Difference::Device {
        name: DEVICE.to_owned(),
        exists,
    }
}

/// Sends the orders about addresses to the claims thread if they have changed.
fn order(state: &mut State, edges: &mut Edges<'_>, orders: Orders) {
    let segment = &mut state.segment;
    if segment.orders == orders {
        return;
    }
    segment
        .verdicts
        .retain(|address, _| orders.contains_key(address));
    segment.orders.clone_from(&orders);
    edges.segments.order(orders);
}

/// Returns the wanted addresses that have at least one service in the kernel.
fn served_vips(state: &State, desired: &Desired) -> BTreeSet<IpAddr> {
    let wanted = desired.table.keys().filter_map(|key| {
        let vip = key.vip().filter(|vip| desired.vips.contains_key(vip))?;
        Some((key, vip))
    });
    let served = wanted.filter(|(key, _)| state.has(key) && !state.is_left(key));
    served.map(|(_, vip)| vip).collect()
}
