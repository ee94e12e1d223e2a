//! Counts and logs repairs, which revert changes by other processes.

use std::collections::VecDeque;

/// How many of the latest repairs the agent reports.
const LATEST: usize = 10;
/// The maximum number of repairs that one log line names.
const NAMED: usize = 3;

/// The repairs in this run of the agent.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repairs {
    /// The number of repair operations in this run.
    pub count: u64,
    /// The latest repairs, newest first, in the syntax of ipvsadm or of another
    /// command.
    pub latest: VecDeque<String>,
    /// The number of repairs that have been logged.
    told: u64,
}

impl Repairs {
    /// Counts a repair and adds its operation to the latest repairs.
    pub(super) fn note(&mut self, operation: String) {
        self.count += 1;
        self.latest.push_front(operation);
        self.latest.truncate(LATEST);
    }

    /// Logs the repairs since the last call in one line.
    pub(super) fn tell(&mut self) {
        let news = usize::try_from(self.count - self.told).unwrap_or(usize::MAX);
        self.told = self.count;
        if news == 0 {
            return;
        }
        let named: Vec<_> = self.latest.iter().take(news.min(NAMED)).rev().collect();
        let named = named.into_iter().map(String::as_str).collect::<Vec<_>>();
        let others = match news.saturating_sub(NAMED) {
            0 => String::new(),
            others => format!(" (and {others} more)"),
        };
        tracing::warn!(
            "another process changed entries of this agent; repaired with: {}{others}",
            named.join(", ")
        );
    }
}
