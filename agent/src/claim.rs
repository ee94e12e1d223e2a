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
    collections::BTreeMap,
    io,
    net::IpAddr,
    sync::mpsc::Sender,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    runtime,
    sync::mpsc::{UnboundedReceiver, UnboundedSender},
    time,
};

use self::{
    machine::{Claims, Order},
    wire::Wires,
};
use crate::event::Event;

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
}

impl Segments for UnboundedSender<Orders> {
    fn order(&mut self, orders: Orders) {
        // Sending an order fails only when the process ends.
        self.send(orders).unwrap_or_default();
    }
}

/// Starts the claims thread in the caller's network namespace.
///
/// # Errors
/// Returns an error if the system cannot provide another thread or file
/// descriptor.
pub fn start(orders: UnboundedReceiver<Orders>, events: Sender<Event>) -> io::Result<()> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new()
        .name("claims".to_owned())
        .spawn(move || runtime.block_on(run(orders, &events)))?;
    Ok(())
}

async fn run(mut orders: UnboundedReceiver<Orders>, events: &Sender<Event>) {
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
