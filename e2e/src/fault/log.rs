//! A log of the connections and datagrams that a test server received.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::Behaviour;

/// A connection or datagram that a test server received.
#[derive(Clone, Debug)]
pub struct Arrival {
    /// The time at which the server received the connection or datagram.
    pub at: Instant,
    /// The address of the client that sent the datagram or opened the
    /// connection.
    pub from: IpAddr,
}

/// The log of one test server, and the behaviour that the test has chosen for
/// the server.
#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    behaviour: Behaviour,
    since: Instant,
    /// The number of health requests for which the chosen behaviour still
    /// applies. The server answers all later health requests correctly. `None`
    /// means that the chosen behaviour applies to all health requests.
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

    /// Records the arrival of a connection or datagram from the address `from`.
    pub(super) fn arrived(&self, from: IpAddr) {
        let at = Instant::now();
        self.lock().arrivals.push(Arrival { at, from });
    }

    /// Returns the behaviour for a health request that has just arrived, and
    /// counts the request.
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

    /// Counts the connections or datagrams that arrived from an address since a
    /// given time.
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
        // The state of the log stays consistent even if a thread panics while
        // it holds the lock. A poisoned lock is therefore no problem.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
