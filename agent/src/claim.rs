//! Claims virtual addresses on Ethernet segments. Before the agent adds an
//! address, it asks whether another host has the address. Afterwards, the agent
//! announces and defends the address.
//!
//! Claims run on a thread of their own. The loop sends orders to the claims
//! thread ([`machine::Order`]) and receives news from it ([`Event::Claims`]).
//! [`machine`] makes the decisions, [`packet`] builds and parses the frames,
//! and [`wire`] sends and receives the frames.

pub mod machine;
pub mod packet;
mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc::Sender},
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    time,
};

use self::{
    machine::{Claims, Order},
    wire::Wires,
};
use crate::event::{Event, claims::Verdict};

/// The order for each virtual address that the claims thread handles. Addresses
/// without an order are neither claimed nor announced.
pub type Orders = BTreeMap<IpAddr, Order>;

/// The wait before the agent opens a network card again after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// The longest time for which the claims thread sleeps.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The agent's access to the Ethernet segments. The trait is small, so that
/// tests can replace the segments with a model.
pub trait Segments {
    /// Replaces all previous orders about virtual addresses.
    fn order(&mut self, orders: Orders);

    /// Returns whether no other host has claimed the address since it was found
    /// free. A round may take seconds between the verdict and the addition.
    fn is_free(&self, _address: IpAddr) -> bool {
        true
    }
}

/// The loop's end of the claims thread.
pub struct ClaimsThread {
    orders: UnboundedSender<Orders>,
    free: Free,
}

/// The addresses that the claims thread finds free at the moment.
#[derive(Clone, Debug, Default)]
struct Free(Arc<Mutex<BTreeSet<IpAddr>>>);

impl Free {
    fn addresses(&self) -> MutexGuard<'_, BTreeSet<IpAddr>> {
        // No panic can leave it half-written, so a poisoned lock can still be
        // used.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, news: &BTreeMap<IpAddr, Verdict>) {
        let mut addresses = self.addresses();
        for (address, verdict) in news {
            match verdict {
                Verdict::Free(_) => addresses.insert(*address),
                _ => addresses.remove(address),
            };
        }
    }
}

impl Segments for ClaimsThread {
    fn order(&mut self, orders: Orders) {
        // Sending an order fails only when the process ends.
        self.orders.send(orders).unwrap_or_default();
    }

    fn is_free(&self, address: IpAddr) -> bool {
        self.free.addresses().contains(&address)
    }
}

/// Starts the claims thread in the caller's network namespace.
///
/// # Errors
/// Returns an error if the system cannot provide another thread or file
/// descriptor.
pub fn start(events: Sender<Event>) -> io::Result<ClaimsThread> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (orders, ordered) = unbounded_channel();
    let free = Free::default();
    let started = ClaimsThread {
        orders,
        free: free.clone(),
    };
    thread::Builder::new()
        .name("claims".to_owned())
        .spawn(move || runtime.block_on(run(ordered, &free, &events)))?;
    Ok(started)
}

async fn run(mut orders: UnboundedReceiver<Orders>, free: &Free, events: &Sender<Event>) {
    let start = Instant::now();
    let mut claims = Claims::new(fastrand::u64(..));
    let mut wires = Wires::default();
    let mut said = BTreeMap::new();
    let mut retry = None;
    loop {
        let deadline = claims.next_deadline().map(|due| start + due);
        let deadline = [deadline, retry].into_iter().flatten().min();
        let deadline = deadline.unwrap_or_else(|| Instant::now() + LONGEST_SLEEP);
        tokio::select! {
            order = orders.recv() => {
                let Some(mut order) = order else {
                    return;
                };
                while let Ok(newer) = orders.try_recv() {
                    order = newer;
                }
                claims.order(&order, start.elapsed());
                free.addresses().retain(|address| order.contains_key(address));
                retry = Some(Instant::now());
            }
            () = wires.readable() => {}
            () = time::sleep_until(deadline.into()) => {}
        }
        if retry.is_some_and(|at| at <= Instant::now()) {
            wires.listen_for(claims.asked());
            retry = (!wires.troubles().is_empty()).then(|| Instant::now() + RETRY);
        }
        // After a pause of the process, frames and deadlines may both be due.
        // Frames are handled first.
        wires.hear(|index, heard| claims.hear(index, &heard, start.elapsed()));
        for say in claims.say(start.elapsed()) {
            wires.say(&say);
        }
        let news = claims.news();
        free.note(&news);
        if !news.is_empty() && events.send(Event::Claims(Instant::now(), news)).is_err() {
            return;
        }
        if *wires.troubles() != said {
            said.clone_from(wires.troubles());
            if events.send(Event::ClaimsHindered(said.clone())).is_err() {
                return;
            }
        }
    }
}
