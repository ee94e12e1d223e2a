//! The agent's lives, one after the other, as an init system keeps it.

use e2e::{
    Host, Process,
    cluster::{PATIENCE, start_agent, start_agent_doomed},
};

const DIRECTOR: &str = "director1";

/// The system calls by which an agent acts on the kernel and on the disk, and
/// before which it may die; and the last of each by which it does, counted in
/// each of its threads. The first of them come with its start.
pub(crate) const LAST_CALLS: [(&str, u32); 5] = [
    ("sendto", 16),
    ("recvfrom", 24),
    ("pwrite64", 40),
    ("fdatasync", 8),
    ("ftruncate", 2),
];

pub(crate) struct Life {
    director: Host,
    agent: Process,
    is_doomed: bool,
    /// How often it was killed, and how often of that at a call of its own.
    pub(crate) deaths: (usize, usize),
}

impl Life {
    pub(crate) fn begin(director: &Host) -> Self {
        Self {
            director: director.clone(),
            agent: start_agent(director, DIRECTOR),
            is_doomed: false,
            deaths: (0, 0),
        }
    }

    /// Starts it if it is dead.
    pub(crate) fn resume(&mut self) {
        if !self.agent.is_running() {
            self.count();
            self.agent = start_agent(&self.director, DIRECTOR);
        }
    }

    /// Counts a doomed one that has met its end.
    fn count(&mut self) {
        let met_its_end = std::mem::take(&mut self.is_doomed);
        self.deaths.0 += usize::from(met_its_end);
        self.deaths.1 += usize::from(met_its_end);
    }

    /// Ends it at once.
    pub(crate) fn kill(&mut self) {
        if self.agent.is_running() {
            self.is_doomed = false;
            self.deaths.0 += 1;
            self.agent.kill();
        }
    }

    /// Ends it in good order.
    pub(crate) fn stop(&mut self) {
        if self.agent.is_running() {
            self.is_doomed = false;
            self.agent.terminate(PATIENCE);
        }
    }

    /// Ends it at once, and starts one that dies when it begins its `nth`
    /// system call of a name.
    pub(crate) fn doom(&mut self, system_call: &str, nth: u32) {
        self.kill();
        self.count();
        self.is_doomed = true;
        self.agent = start_agent_doomed(&self.director, DIRECTOR, system_call, nth);
    }
}
