//! The connections and datagrams that came to a server, and when.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Behaviour;

/// A connection, or a datagram.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// When the server saw it.
    pub at: Instant,
    /// Where it came from.
    pub from: IpAddr,
}

/// The log of one server, and how the server must behave now.
#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    since: Instant,
    /// How many requests it treats like this before it is good again; none: it
    /// stays so.
    left: Option<usize>,
    arrivals: Vec<Arrival>,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                behaviour: Behaviour::Good,
                since: Instant::now(),
                left: None,
                arrivals: Vec::new(),
            }),
        }
    }

    pub(super) fn behave(&self, behaviour: Behaviour, times: Option<usize>) {
        let mut state = self.lock();
        state.behaviour = behaviour;
        state.since = Instant::now();
        state.left = times;
    }

    /// Records a connection or datagram from this address.
    pub(super) fn arrived(&self, from: IpAddr) {
        let at = Instant::now();
        self.lock().arrivals.push(Arrival { at, from });
    }

    /// Returns how to treat a client that asks about health now, and counts it.
    pub(super) fn behaviour(&self) -> Behaviour {
        let mut state = self.lock();
        match &mut state.left {
            Some(0) => return Behaviour::Good,
            Some(left) => *left -= 1,
            None => {}
        }
        let seconds = state.since.elapsed().as_secs();
        match state.behaviour {
            Behaviour::ByTurns if seconds.is_multiple_of(2) => Behaviour::Error(503),
            Behaviour::ByTurns => Behaviour::Good,
            behaviour => behaviour,
        }
    }

    pub(super) fn arrivals(&self) -> Vec<Arrival> {
        self.lock().arrivals.clone()
    }

    /// How many came from an address since a given time.
    pub(super) fn came(&self, from: IpAddr, since: Instant) -> usize {
        let state = self.lock();
        let latest = state
            .arrivals
            .iter()
            .rev()
            .take_while(|arrival| arrival.at >= since);
        latest.filter(|arrival| arrival.from == from).count()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is whole after each operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
