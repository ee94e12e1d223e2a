//! Decides when a failed operation is tried again, with one back-off per
//! [`Subject`]. The code is pure: time is an argument.

use std::{collections::BTreeMap, time::Duration};

use ipvs::{DestinationKey, ServiceKey};

/// The wait before the second attempt, after the first failure.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait between two attempts.
const LONGEST: Duration = Duration::from_secs(60);

/// The subject of an operation that can fail. Each subject is tried again
/// independently of all other subjects.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Subject {
    /// The netlink socket to the kernel, or a reading of the kernel's table.
    Kernel,
    /// A reading of the host's interfaces.
    Links,
    /// The agent's journal on the disk.
    Journal,
    /// A service with all its destinations.
    Service(ServiceKey),
    /// One destination of a service.
    Destination(ServiceKey, DestinationKey),
    /// The kernel's timeouts of connections.
    Timeouts,
    /// The agent's own device for virtual addresses.
    Device,
    /// One virtual address on an interface.
    Vip(std::net::IpAddr),
}

/// The subjects that failed, each with the time of its next attempt.
#[derive(Clone, Debug, Default)]
pub struct Retry {
    waiting: BTreeMap<Subject, Wait>,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    due: Duration,
    step: Duration,
}

impl Retry {
    /// Records a failure at `now`. The wait before the next attempt is 100 ms
    /// at first and doubles with each failure, up to a minute.
    pub fn failed(&mut self, subject: Subject, now: Duration) {
        let step = self
            .waiting
            .get(&subject)
            .map_or(FIRST, |wait| (wait.step * 2).min(LONGEST));
        self.waiting.insert(
            subject,
            Wait {
                due: now + step,
                step,
            },
        );
    }

    /// Forgets the failures of a subject that succeeded.
    pub fn succeeded(&mut self, subject: Subject) {
        self.waiting.remove(&subject);
    }

    /// Forgets every subject whose attempt was due at `now` but was not made.
    /// The round skips a due attempt only if the subject is no longer wanted.
    /// Call this method at the end of a round that began at `now`.
    pub fn expire(&mut self, now: Duration) {
        self.waiting.retain(|_, wait| wait.due > now);
    }

    /// Whether a subject failed and waits for its next attempt.
    pub fn waits(&self, subject: Subject) -> bool {
        self.waiting.contains_key(&subject)
    }

    /// Whether an operation on a subject may be tried at `now`.
    pub fn allows(&self, subject: Subject, now: Duration) -> bool {
        self.waiting
            .get(&subject)
            .is_none_or(|wait| wait.due <= now)
    }

    /// Returns when the next attempt of any subject is due.
    pub fn next_deadline(&self) -> Option<Duration> {
        self.waiting.values().map(|wait| wait.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_a_minute_and_a_success_forgets_it() {
        let mut retry = Retry::default();
        let mut now = Duration::ZERO;
        let mut waits = Vec::new();
        for _ in 0..12 {
            retry.failed(Subject::Kernel, now);
            let due = retry.next_deadline().unwrap();
            assert!(!retry.allows(Subject::Kernel, now), "not before it is due");
            assert!(retry.allows(Subject::Kernel, due), "when it is due");
            waits.push((due - now).as_millis());
            now = due;
        }
        assert_eq!(
            waits,
            [
                100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        retry.succeeded(Subject::Kernel);
        assert_eq!(retry.next_deadline(), None, "nothing waits after a success");
    }

    #[test]
    fn what_was_due_and_not_tried_is_forgotten() {
        let mut retry = Retry::default();
        retry.failed(Subject::Kernel, Duration::ZERO);
        retry.expire(FIRST / 2);
        assert!(retry.waits(Subject::Kernel), "it was not due yet");
        retry.expire(FIRST);
        assert_eq!(
            retry.next_deadline(),
            None,
            "a round passed without an attempt"
        );
    }

    #[test]
    fn one_failure_does_not_hold_up_another_subject() {
        let mut retry = Retry::default();
        retry.failed(Subject::Kernel, Duration::ZERO);
        assert!(
            retry.allows(Subject::Journal, Duration::ZERO),
            "the journal has not failed"
        );
    }
}
