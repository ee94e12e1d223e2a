//! Logs each problem once, and not again while the problem persists.

use std::{collections::BTreeSet, time::Duration};

use crate::ration::{Line, Ration};

/// The problems that were logged and still persist.
#[derive(Debug)]
pub struct Said<L = String>(BTreeSet<L>);

impl<L> Default for Said<L> {
    fn default() -> Self {
        Self(BTreeSet::new())
    }
}

impl Said {
    /// Logs a warning for each line that the previous call did not contain.
    /// A call without lines forgets all lines, so the next call logs each of
    /// its lines.
    pub fn warn(&mut self, found: impl Into<BTreeSet<String>>) {
        for line in self.news(found) {
            tracing::warn!("{line}");
        }
    }

    /// Works like [`Said::warn`], but logs errors.
    pub fn error(&mut self, found: impl Into<BTreeSet<String>>) {
        for line in self.news(found) {
            tracing::error!("{line}");
        }
    }
}

impl Said<Line> {
    /// Works like [`Said::warn`], but logs only as many lines as the ration of
    /// each namespace allows.
    pub fn warn_within(
        &mut self,
        ration: &mut Ration,
        found: impl Into<BTreeSet<Line>>,
        now: Duration,
    ) {
        for line in self.news(found) {
            if let Some(text) = ration.take(line, now) {
                tracing::warn!("{text}");
            }
        }
    }
}

impl<L: Clone + Ord> Said<L> {
    /// Forgets the lines that were logged. Returns true if any lines had been
    /// logged.
    pub fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    fn news(&mut self, found: impl Into<BTreeSet<L>>) -> Vec<L> {
        let before = std::mem::replace(&mut self.0, found.into());
        self.0.difference(&before).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(lines: &[&str]) -> BTreeSet<String> {
        lines.iter().map(|line| (*line).to_owned()).collect()
    }

    #[test]
    fn a_line_is_news_once_and_again_after_it_was_not_found() {
        let mut said = Said::default();
        assert_eq!(said.news(lines(&["a", "b"])), ["a", "b"]);
        assert_eq!(said.news(lines(&["a", "c"])), ["c"]);
        assert_eq!(said.news(lines(&["b"])), ["b"]);
        assert!(said.clear());
        assert!(!said.clear(), "there is nothing left");
        assert_eq!(said.news(lines(&["b"])), ["b"]);
    }
}
