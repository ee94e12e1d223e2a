//! Limits how often Kubernetes Events are made, and shares the limit fairly
//! among namespaces. Events can be left out, because the complete state is in
//! the conditions.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;

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

/// How long the Events that a namespace may not make are counted, before one
/// Event gives their number.
const COUNTED_FOR: Duration = Duration::from_secs(60);

/// Limits how often Events are made. This type reads no clock: callers pass the
/// time as `now`.
#[derive(Debug, Default)]
pub struct Ration {
    own: HashMap<String, Bucket>,
    shared: Bucket,
    /// The Events that were left out, by namespace.
    left_out: BTreeMap<String, LeftOut>,
}

/// The Events that a namespace could not make since the last entry of
/// [`Ration::due`].
#[derive(Clone, Debug, PartialEq)]
pub struct LeftOut {
    /// The number of Events.
    pub count: u32,
    /// The object of the last Event.
    pub about: ObjectReference,
    since: Time,
}

impl Ration {
    /// Whether an Event about an object may be made now. If the call returns
    /// true, the Event counts towards the limits of the object's namespace; all
    /// cluster-scoped objects share one. If the call returns false, the Event
    /// counts as left out.
    pub fn take(&mut self, about: &ObjectReference, is_minor: bool, now: Time) -> bool {
        let namespace = about.namespace.as_deref().unwrap_or_default();
        let burst = if is_minor {
            SHARED_BURST / 2
        } else {
            SHARED_BURST
        };
        let may_be_made = self.shared.take(burst, SHARED_PAUSE, now)
            || (!is_minor && self.take_own(namespace, now));
        if !may_be_made {
            let left_out = self.left_out.entry(namespace.to_owned());
            let left_out = left_out.or_insert_with(|| LeftOut {
                count: 0,
                about: about.clone(),
                since: now,
            });
            left_out.count += 1;
            left_out.about.clone_from(about);
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

    /// Returns how many Events were left out, one entry for each namespace and
    /// minute. The caller makes one Event of each entry.
    pub fn due(&mut self, now: Time) -> Vec<LeftOut> {
        let mut due = Vec::new();
        self.left_out.retain(|_, left_out| {
            let is_due = now >= left_out.since + COUNTED_FOR;
            if is_due {
                due.push(left_out.clone());
            }
            !is_due
        });
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Time = Duration::from_secs(1);

    fn object(namespace: &str) -> ObjectReference {
        ObjectReference {
            namespace: (!namespace.is_empty()).then(|| namespace.to_owned()),
            ..ObjectReference::default()
        }
    }

    fn made(ration: &mut Ration, namespace: &str, is_minor: bool, now: Time) -> usize {
        let about = object(namespace);
        (0..1000)
            .filter(|_| ration.take(&about, is_minor, now))
            .count()
    }

    #[test]
    fn events_are_rationed_and_one_gives_the_number_of_those_left_out_after_a_minute() {
        let mut ration = Ration::default();
        assert_eq!(made(&mut ration, "shop", false, NOW), 60);
        assert!(!ration.take(&object("shop"), false, NOW));
        assert!(ration.take(&object("shop"), false, NOW + SHARED_PAUSE));
        let counted = |ration: &mut Ration, now| {
            let due = ration.due(now).into_iter();
            let due = due.map(|left_out| (left_out.about.namespace, left_out.count));
            due.collect::<Vec<_>>()
        };
        assert_eq!(counted(&mut ration, NOW + COUNTED_FOR / 2), []);
        let shop = Some("shop".to_owned());
        assert_eq!(counted(&mut ration, NOW + COUNTED_FOR), [(shop, 941)]);
        assert_eq!(counted(&mut ration, NOW + 2 * COUNTED_FOR), []);
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
