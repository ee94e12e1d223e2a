//! A cache of answers that are valid for a limited time. The code is pure: time
//! is an argument.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::Mutex,
    time::{Duration, Instant},
};

/// The latest answer for each key, with the time of the answer.
pub(super) struct Recent<K, V> {
    believed: Duration,
    answers: Mutex<HashMap<K, (Instant, V)>>,
}

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// Creates an empty cache. An answer is valid for the duration `believed`.
    pub(super) fn new(believed: Duration) -> Self {
        Self {
            believed,
            answers: Mutex::default(),
        }
    }

    /// Returns the answer for a key, unless the answer is too old.
    pub(super) fn get(&self, key: &K, now: Instant) -> Option<V> {
        let answers = self.answers.lock().expect(UNHURT);
        let (when, answer) = answers.get(key)?;
        (now - *when < self.believed).then(|| answer.clone())
    }

    /// Stores an answer for a key, and returns the answer.
    pub(super) fn put(&self, key: K, answer: V, now: Instant) -> V {
        let mut answers = self.answers.lock().expect(UNHURT);
        if answers.len() == answers.capacity() {
            answers.retain(|_, (when, _)| now - *when < self.believed);
        }
        answers.insert(key, (now, answer.clone()));
        answer
    }

    /// Removes the answer for a key.
    pub(super) fn forget(&self, key: &K) {
        let mut answers = self.answers.lock().expect(UNHURT);
        answers.remove(key);
    }
}

const UNHURT: &str = "nothing panics while the lock is held";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_forgotten_after_a_while() {
        let recent = Recent::new(Duration::from_secs(1));
        let start = Instant::now();
        let after = |millis| start + Duration::from_millis(millis);
        assert_eq!(recent.put(1, "one", start), "one");
        assert_eq!(recent.get(&1, after(999)), Some("one"));
        assert_eq!(recent.get(&2, after(999)), None);
        assert_eq!(recent.get(&1, after(1000)), None);
        recent.forget(&1);
        assert_eq!(recent.get(&1, start), None);
        for key in 0..10_000 {
            recent.put(key, "more", after(key * 100));
        }
        let kept = recent.answers.lock().unwrap().len();
        assert!(kept <= 64, "{kept} are kept");
    }
}
