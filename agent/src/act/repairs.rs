//! What another process did to things of ours and the agent put right.

use std::collections::VecDeque;

/// At most this many of the latest repairs are reported.
const LATEST: usize = 10;
/// At most this many of them are named in a line of the log.
const NAMED: usize = 3;

/// What was put right since the agent started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repairs {
    /// How many operations that took.
    pub count: u64,
    /// The latest of them, as ipvsadm spells them, newest first.
    pub latest: VecDeque<String>,
    /// How many of them have been logged.
    told: u64,
}

impl Repairs {
    /// Counts a repair, and keeps the operation as the latest.
    pub(super) fn note(&mut self, operation: String) {
        self.count += 1;
        self.latest.push_front(operation);
        self.latest.truncate(LATEST);
    }

    /// Logs the repairs since the last call, in one line.
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
            "another process changed what is ours; put right: {}{others}",
            named.join(", ")
        );
    }
}
