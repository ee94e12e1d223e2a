//! Limits how much the agent logs about the objects of each namespace. The code
//! is pure: time is an argument.
//!
//! Each namespace may log a few lines, regardless of the other namespaces. In
//! addition, all namespaces share a number of bytes, and one namespace may use
//! at most half of the shared bytes. Lines about this host are not limited.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::Serialize;

/// The number of lines that each namespace may log at once, regardless of the
/// other namespaces.
const OWN: Allowance = Allowance {
    burst: 20,
    per_second: 0.1,
};
/// The number of bytes that all namespaces together may log at once. Lines that
/// [`OWN`] allows do not use up these bytes.
const SHARED: Allowance = Allowance {
    burst: 256 << 10,
    per_second: 4096.0,
};
/// The part of the shared bytes that one namespace may use.
const OF_ONE: Allowance = Allowance {
    burst: SHARED.burst / 2,
    per_second: SHARED.per_second / 2.0,
};

/// A log line or status line about an object, or about this host.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
pub struct Line {
    /// The namespace of the object; empty for a line about this host.
    #[serde(skip)]
    pub namespace: Arc<str>,
    /// The text of the line.
    pub text: String,
}

impl Line {
    /// Returns a line about this host.
    pub fn of_host(text: String) -> Self {
        let namespace = Arc::default();
        Self { namespace, text }
    }
}

/// A limit: how much may be used at once, and how much becomes available again
/// per second.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    burst: u32,
    per_second: f64,
}

/// How much of an allowance was in use at the time `at`.
#[derive(Clone, Copy, Debug, Default)]
struct Used {
    amount: f64,
    at: Duration,
}

impl Used {
    fn at(self, allowance: Allowance, now: Duration) -> f64 {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        (self.amount - passed * allowance.per_second).max(0.0)
    }

    /// Returns the new state after `more` is used, or `None` if the allowance
    /// has no room for `more`.
    fn after(self, more: f64, allowance: Allowance, now: Duration) -> Option<Self> {
        let amount = self.at(allowance, now) + more;
        let is_within = amount <= f64::from(allowance.burst);
        is_within.then_some(Self { amount, at: now })
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Share {
    own: Used,
    shared: Used,
    /// Whether the namespace's last line was left out of the log.
    is_over: bool,
}

/// How much was logged recently about the objects of each namespace.
#[derive(Debug, Default)]
pub struct Ration {
    shares: HashMap<Arc<str>, Share>,
    shared: Used,
}

impl Ration {
    /// Returns the text to log for a line. If there is no room for the line,
    /// returns a notice that lines are left out. Returns `None` if the notice
    /// was already logged.
    pub fn take(&mut self, line: Line, now: Duration) -> Option<String> {
        let Line { namespace, text } = line;
        if namespace.is_empty() {
            return Some(text);
        }
        if !self.shares.contains_key(&namespace) {
            self.shares.retain(|_, share| !share.is_unused(now));
        }
        let share = self.shares.entry(namespace.clone()).or_default();
        let bytes = text.len() as f64;
        let own = share.own.after(1.0, OWN, now);
        let of_one = share.shared.after(bytes, OF_ONE, now);
        let shared = self.shared.after(bytes, SHARED, now);
        if let (Some(of_one), Some(shared)) = (of_one, shared) {
            (share.shared, self.shared) = (of_one, shared);
        } else if let Some(own) = own {
            share.own = own;
        } else {
            let was_said = std::mem::replace(&mut share.is_over, true);
            return (!was_said).then(|| {
                format!(
                    "more lines about objects of namespace {namespace} are left out of this log \
                     for now; the conditions of the objects and of this Director say the same"
                )
            });
        }
        share.is_over = false;
        Some(text)
    }
}

impl Share {
    fn is_unused(&self, now: Duration) -> bool {
        self.own.at(OWN, now) == 0.0 && self.shared.at(OF_ONE, now) == 0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1);

    /// Tries to log lines of 1 KiB, and returns how many bytes the ration lets
    /// through.
    fn write(ration: &mut Ration, namespace: &str, lines: usize, now: Duration) -> usize {
        let logged = (0..lines).filter_map(|_| {
            let line = Line {
                namespace: namespace.into(),
                text: "x".repeat(1024),
            };
            ration.take(line, now)
        });
        logged.map(|text| text.len()).sum()
    }

    #[test]
    fn a_namespace_gets_half_of_the_bytes_and_its_own_lines_and_says_when_lines_are_left_out() {
        let mut ration = Ration::default();
        let logged = write(&mut ration, "evil", 10_000, NOW);
        let said = "more lines about objects of namespace evil are left out of this log for now; \
                    the conditions of the objects and of this Director say the same";
        assert_eq!(logged, (128 + 20) * 1024 + said.len());
        assert_eq!(write(&mut ration, "evil", 10_000, NOW), 0, "it was said");
        let later = NOW + Duration::from_secs(10);
        assert!(write(&mut ration, "evil", 10_000, later) > 0);
    }

    #[test]
    fn every_namespace_has_lines_of_its_own_however_many_write_too_much() {
        let mut ration = Ration::default();
        for number in 0..50 {
            write(&mut ration, &format!("evil{number}"), 10_000, NOW);
        }
        assert_eq!(write(&mut ration, "shop", 20, NOW), 20 * 1024);
    }

    #[test]
    fn lines_about_this_host_are_not_limited() {
        let mut ration = Ration::default();
        assert_eq!(write(&mut ration, "", 10_000, NOW), 10_000 * 1024);
    }

    #[test]
    fn a_namespace_that_wrote_nothing_for_a_while_takes_no_memory() {
        let mut ration = Ration::default();
        for number in 0..100 {
            write(&mut ration, &format!("n{number}"), 30, NOW);
        }
        write(&mut ration, "shop", 1, NOW + Duration::from_secs(3600));
        assert_eq!(ration.shares.len(), 1);
    }
}
