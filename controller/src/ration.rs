//! Limits how often Kubernetes Events are made, and shares the limit fairly
//! among namespaces. Events can be left out, because the complete state is in
//! the conditions.

use std::{collections::HashMap, time::Duration};

use crate::{bucket::Bucket, liveness::Time};

/// The number of Events that each namespace may make at once, however many
/// Events other namespaces make. After the burst, each namespace may make one
/// Event per [`OWN_PAUSE`].
const OWN_BURST: u32 = 10;
const OWN_PAUSE: Duration = Duration::from_secs(10);
/// The number of Events that all namespaces together may make at once, in
/// addition to [`OWN_BURST`] of each namespace. After the burst, all namespaces
/// together may make one such Event per [`SHARED_PAUSE`]. Minor Events may use
/// only half of [`SHARED_BURST`].
const SHARED_BURST: u32 = 50;
const SHARED_PAUSE: Duration = Duration::from_millis(200);

/// Limits how often Events are made. This type reads no clock: callers pass the
/// time as `now`.
#[derive(Debug, Default)]
pub struct Ration {
    own: HashMap<String, Bucket>,
    shared: Bucket,
    left_out: u32,
}

impl Ration {
    /// Whether an Event about an object of the namespace may be made now.
    /// Cluster-scoped objects have the empty namespace. If the call returns
    /// true, the Event counts towards the limits. If the call returns false,
    /// the Event counts as left out.
    pub fn take(&mut self, namespace: &str, is_minor: bool, now: Time) -> bool {
        let burst = if is_minor {
            SHARED_BURST / 2
        } else {
            SHARED_BURST
        };
        let may_be_made = self.shared.take(burst, SHARED_PAUSE, now)
            || (!is_minor && self.take_own(namespace, now));
        if !may_be_made {
            self.left_out += 1;
        }
        may_be_made
    }

    fn take_own(&mut self, namespace: &str, now: Time) -> bool {
        if !self.own.contains_key(namespace) {
            self.own.retain(|_, bucket| !bucket.is_full(OWN_PAUSE, now));
        }
        let own = self.own.entry(namespace.to_owned()).or_default();
        own.take(OWN_BURST, OWN_PAUSE, now)
    }

    /// The number of Events left out since the last call.
    pub fn left_out(&mut self) -> u32 {
        std::mem::take(&mut self.left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Duration::from_secs(1);

    fn made(ration: &mut Ration, namespace: &str, is_minor: bool, now: Time) -> usize {
        (0..1000)
            .filter(|_| ration.take(namespace, is_minor, now))
            .count()
    }

    #[test]
    fn events_are_rationed_and_those_left_out_are_counted() {
        let mut ration = Ration::default();
        assert_eq!(made(&mut ration, "shop", false, NOW), 60);
        assert_eq!(ration.left_out(), 940);
        assert!(!ration.take("shop", false, NOW));
        assert!(ration.take("shop", false, NOW + SHARED_PAUSE));
    }

    #[test]
    fn a_namespace_that_makes_very_many_events_leaves_room_for_each_of_the_others() {
        let mut ration = Ration::default();
        let mut now = NOW;
        for minute in 1..=10 {
            now = NOW + Duration::from_secs(60 * minute);
            made(&mut ration, "evil", false, now);
        }
        for namespace in ["shop", "bank", ""] {
            assert_eq!(made(&mut ration, namespace, false, now), 10, "{namespace}");
        }
    }

    #[test]
    fn minor_events_leave_room_for_others() {
        let mut ration = Ration::default();
        assert_eq!(made(&mut ration, "shop", true, NOW), 25);
        assert_eq!(made(&mut ration, "shop", false, NOW), 35);
    }

    #[test]
    fn a_namespace_that_made_no_events_for_a_while_takes_no_memory() {
        let mut ration = Ration::default();
        for number in 0..100 {
            made(&mut ration, &format!("n{number}"), false, NOW);
        }
        made(&mut ration, "shop", false, NOW + 20 * OWN_PAUSE);
        assert_eq!(ration.own.len(), 1);
    }
}
