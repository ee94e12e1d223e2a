//! The regular expressions of health checks.

use std::sync::{Arc, OnceLock};

use crds::body_pattern;
use regex::bytes::Regex;

use super::{trouble::Failed, worker::Share};

/// A pattern is matched only against the first bytes of a text, at most this
/// many.
pub(super) const MOST_TEXT: usize = 16 << 10;

/// A regular expression, which is compiled before its first match.
pub(super) struct Pattern {
    text: String,
    compiled: OnceLock<Result<Regex, String>>,
}

impl Pattern {
    /// Creates a pattern from the text of a regular expression that `crds` has
    /// checked.
    pub(super) fn new(text: &str) -> Self {
        Self {
            text: text.to_owned(),
            compiled: OnceLock::new(),
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns whether the pattern matches a text. The worker compiles the
    /// pattern and matches the text.
    ///
    /// # Errors
    /// Returns a failure of this host if the regular expression cannot be
    /// compiled, or if the worker has no time for the match.
    pub(super) async fn is_match(
        self: &Arc<Self>,
        share: Share<'_>,
        text: Vec<u8>,
    ) -> Result<bool, Failed> {
        let pattern = self.clone();
        share.run(move || pattern.is_match_now(&text)).await
    }

    fn is_match_now(&self, text: &[u8]) -> Result<bool, Failed> {
        let compile = || body_pattern(&self.text).map_err(|error| error.to_string());
        match self.compiled.get_or_init(compile) {
            Ok(regex) => Ok(regex.is_match(text)),
            Err(why) => Err(Failed::Own(
                format!("the check cannot be made: {why}").into(),
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::worker::Worker;

    async fn is_match(pattern: &str, text: &str) -> Result<bool, Failed> {
        let share = Share {
            worker: &Worker::default(),
            namespace: &"shop".into(),
        };
        let pattern = Arc::new(Pattern::new(pattern));
        pattern.is_match(share, text.into()).await
    }

    #[tokio::test]
    async fn a_text_matches_or_does_not() {
        for (text, expected) in [("status: ok", true), ("status: down", false)] {
            let found = is_match("^status: (ok|fine)$", text).await;
            assert_eq!(found, Ok(expected), "{text}");
        }
    }

    #[tokio::test]
    async fn a_pattern_that_does_not_compile_says_nothing_of_the_server() {
        let found = is_match("(well", "").await;
        let Err(Failed::Own(why)) = found else {
            panic!("{found:?}");
        };
        assert!(why.starts_with("the check cannot be made: "), "{why}");
    }
}
