//! Lines of the log that are written once, and not each time the same thing is
//! found.

use std::collections::BTreeSet;

/// What was found wrong and logged, for as long as it is still found.
#[derive(Debug, Default)]
pub struct Said(BTreeSet<String>);

impl Said {
    /// Logs a warning for each line that was not found the last time. After a
    /// call without lines, every line is new again.
    pub fn warn(&mut self, found: impl Into<BTreeSet<String>>) {
        for line in self.news(found) {
            tracing::warn!("{line}");
        }
    }

    /// The same as [`Said::warn`], as errors.
    pub fn error(&mut self, found: impl Into<BTreeSet<String>>) {
        for line in self.news(found) {
            tracing::error!("{line}");
        }
    }

    /// Forgets what was logged. Returns whether there was anything.
    pub fn clear(&mut self) -> bool {
        !std::mem::take(&mut self.0).is_empty()
    }

    fn news(&mut self, found: impl Into<BTreeSet<String>>) -> Vec<String> {
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
