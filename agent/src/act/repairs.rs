//! What somebody else did to things of ours and was put right.

use std::collections::VecDeque;

/// So many of the latest are told.
const LATEST: usize = 10;
/// So many of them in a line of the log.
const NAMED: usize = 3;

/// What was put right since the agent started.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Repairs {
    /// How many operations that took.
    pub count: u64,
    /// The latest of them, as ipvsadm spells them, newest first.
    pub latest: VecDeque<String>,
    /// How many stand in the log.
    told: u64,
}

impl Repairs {
    /// Notes one.
    pub(super) fn note(&mut self, operation: String) {
        self.count += 1;
        self.latest.push_front(operation);
        self.latest.truncate(LATEST);
    }

    /// Says what was noted since this was last called: a line, however much.
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
            "somebody else changed what is ours; put right: {}{others}",
            named.join(", ")
        );
    }
}
