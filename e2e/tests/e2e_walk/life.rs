//! Starts the agent again after it has ended, as an init system would.

use e2e::{
    Host, Process,
    cluster::{PATIENCE, start_agent, start_agent_doomed},
};

/// The name of the walk's only Director.
pub(crate) const DIRECTOR: &str = "director1";

/// The system calls at which the walk may kill an agent. These calls change the
/// kernel or the disk. Each entry has the name of a system call and a number N.
/// The walk chooses one of the first N calls with this name at random. The walk
/// kills the agent when a thread begins the chosen call. Some of these calls
/// happen while the agent starts.
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
    /// Two counts: all kills of the agent by the walk, and the kills at a
    /// system call of [`LAST_CALLS`].
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

    /// Starts an agent if no agent is running.
    pub(crate) fn resume(&mut self) {
        if !self.agent.is_running() {
            self.count();
            self.agent = start_agent(&self.director, DIRECTOR);
        }
    }

    /// Counts a kill if strace has killed the agent at the chosen system call.
    fn count(&mut self) {
        let met_its_end = std::mem::take(&mut self.is_doomed);
        self.deaths.0 += usize::from(met_its_end);
        self.deaths.1 += usize::from(met_its_end);
    }

    /// Kills the agent if it is running.
    pub(crate) fn kill(&mut self) {
        if self.agent.is_running() {
            self.is_doomed = false;
            self.deaths.0 += 1;
            self.agent.kill();
        }
    }

    /// Terminates the agent with SIGTERM if it is running.
    pub(crate) fn stop(&mut self) {
        if self.agent.is_running() {
            self.is_doomed = false;
            self.agent.terminate(PATIENCE);
        }
    }

    /// Kills the agent, and starts a new agent under strace. strace kills the
    /// new agent when a thread begins its `nth` call of `system_call`.
    pub(crate) fn doom(&mut self, system_call: &str, nth: u32) {
        self.kill();
        self.count();
        self.is_doomed = true;
        self.agent = start_agent_doomed(&self.director, DIRECTOR, system_call, nth);
    }
}
