//! Lines of the log that are written once, and not each time they are found
//! true again.

use std::collections::BTreeSet;

/// What was found wrong and was logged, as long as it is still found.
#[derive(Debug, Default)]
pub struct Said(BTreeSet<String>);

impl Said {
    /// Logs the warnings that were not found the last time.
    pub fn warn(&mut self, found: BTreeSet<String>) {
        for line in found.difference(&self.0) {
            tracing::warn!("{line}");
        }
        self.0 = found;
    }
}
