//! What `ipvs-agent history` shows. The code is pure: it does no I/O.

use std::{collections::BTreeSet, fmt::Write, sync::Arc};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::{
    differences::of_service,
    files::{Line, ManyChanges, replay},
    ours::{OurService, Ours},
    record::{Object, Objects, Record},
};
use crate::act::Difference;

/// Which part of the trail to show.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Show nothing from before this time.
    pub since: Option<Timestamp>,
    /// Show nothing from after this time.
    pub until: Option<Timestamp>,
    /// Show only entries of this VirtualService: its namespace and its name.
    pub service: Option<(String, String)>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// When the agent's round ended that made or found it.
    pub at: Timestamp,
    /// What happened, as the command that does the same, or in words.
    pub what: String,
    /// The record, or `None` for the start of an agent.
    #[serde(flatten)]
    pub record: Option<Record>,
    /// The round that had too many differences for one event each, if the event
    /// is about such a round or a part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub change: Option<ManyChanges>,
}

impl Filter {
    /// Returns the events that pass the filter, oldest first. A round with too
    /// many differences is one event. With a filter for a service, each
    /// difference of that service is an event.
    pub fn events(&self, lines: &[Line]) -> Vec<Event> {
        let mut ours = Arc::<Ours>::default();
        let mut events = Vec::new();
        for line in lines {
            match line {
                Line::Start { at, version } => events.push(Event {
                    at: *at,
                    what: format!("the agent started, version {version}"),
                    record: None,
                    change: None,
                }),
                Line::Record(record) => {
                    Arc::make_mut(&mut ours).apply(record);
                    events.push(Event {
                        at: record.at,
                        what: record.what(),
                        record: Some(Record::clone(record)),
                        change: None,
                    });
                }
                Line::Snapshot {
                    at,
                    change,
                    ours: now,
                } => {
                    if let Some(change) = change {
                        events.extend(self.of_many(*at, change, &ours, now));
                    }
                    ours.clone_from(now);
                }
            }
        }
        events.retain(|event| self.passes(event));
        events
    }

    /// Returns what is ours at the end of the filter's time, according to the
    /// trail.
    pub fn ours(&self, lines: &[Line]) -> Arc<Ours> {
        let is_past = |at: &Timestamp| self.until.is_some_and(|until| *at > until);
        let until = lines.iter().take_while(|line| !is_past(&line.at()));
        replay(until)
    }

    fn of_many(
        &self,
        at: Timestamp,
        change: &ManyChanges,
        before: &Ours,
        now: &Ours,
    ) -> Vec<Event> {
        if self.service.is_none() {
            let ((services, destinations), (services_now, destinations_now)) =
                (before.counts(), now.counts());
            let what = format!(
                "{} writes in one round: services {services} -> {services_now}, destinations {destinations} -> {destinations_now}",
                change.writes
            );
            return vec![Event {
                at,
                what,
                record: None,
                change: Some(change.clone()),
            }];
        }
        let keys = before.services.keys().chain(now.services.keys());
        let keys: BTreeSet<_> = keys.collect();
        let found = keys.into_iter().flat_map(|key| {
            let now = now.services.get(key).map(OurService::actual);
            of_service(*key, before.services.get(key), now.as_ref())
        });
        let event = |difference| {
            let objects = objects(&difference, now, before);
            let record = Record {
                at,
                cause: change.cause,
                written: true,
                objects,
                difference,
            };
            Event {
                at,
                what: record.what(),
                record: Some(record),
                change: Some(change.clone()),
            }
        };
        found.map(event).collect()
    }

    fn passes(&self, event: &Event) -> bool {
        let is_in_time = self.since.is_none_or(|since| event.at >= since)
            && self.until.is_none_or(|until| event.at <= until);
        is_in_time
            && self.service.as_ref().is_none_or(|(namespace, name)| {
                let record = event.record.as_ref();
                let object = record.and_then(|record| record.objects.virtual_service.as_ref());
                object.is_some_and(|object| {
                    *object.namespace == **namespace && *object.name == **name
                })
            })
    }
}

/// Returns the objects for which an entry exists, or else existed.
fn objects(difference: &Difference, now: &Ours, before: &Ours) -> Objects {
    let Some((service, destination)) = difference.entry() else {
        return Objects::default();
    };
    let known = || {
        [now, before]
            .into_iter()
            .filter_map(|ours| ours.services.get(&service))
    };
    Objects {
        virtual_service: known().find_map(|service| service.object.clone()),
        real_server: destination.and_then(|key| {
            known().find_map(|service| service.destinations.get(&key)?.object.clone())
        }),
    }
}

/// Returns the events as lines of text, with times in `zone`. With `is_wide`, the
/// lines name the generations of the objects.
pub fn text(events: &[Event], zone: &TimeZone, is_wide: bool) -> String {
    let mut text = String::new();
    for event in events {
        let at = event.at.to_zoned(zone.clone());
        let cause = match (&event.record, &event.change) {
            (Some(record), _) => record.cause.name(),
            (None, Some(change)) => change.cause.name(),
            (None, None) => "start",
        };
        let objects = event.record.as_ref().map(|record| &record.objects);
        let object =
            |of: fn(&Objects) -> &Option<Object>| objects.and_then(|objects| of(objects).as_ref());
        let names = [
            object(|objects| &objects.virtual_service),
            object(|objects| &objects.real_server),
        ];
        let name = |object: &Object| match is_wide {
            true => format!("{object}@{}", object.generation),
            false => object.to_string(),
        };
        let names: Vec<_> = names.into_iter().flatten().map(name).collect();
        let names = match names.as_slice() {
            [] => "-".to_owned(),
            names => names.join(" "),
        };
        // Writing into a String does not fail.
        let _ = writeln!(
            text,
            "{}  {cause:<8}  {names}  {}",
            at.strftime("%Y-%m-%d %H:%M:%S"),
            event.what
        );
    }
    text
}

/// Returns one sentence about what was ours when the trail ended, or `None` if
/// there is no trail.
pub fn summary(lines: &[Line]) -> Option<String> {
    let last = lines.last()?.at();
    let ours = replay(lines);
    let (services, destinations) = ours.counts();
    let addresses: Vec<_> = ours
        .addresses
        .iter()
        .map(|(address, interface)| format!("{address} on {interface}"))
        .collect();
    let addresses = match addresses.is_empty() {
        true => "no virtual address".to_owned(),
        false => addresses.join(", "),
    };
    Some(format!(
        "According to the history, which ends at {last}, the agent left {services} services with {destinations} destinations, and {addresses}"
    ))
}

/// Returns what is ours as the commands that would make it.
pub fn table(ours: &Ours) -> String {
    let mut text = String::new();
    let mut line = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    for op in ours.table() {
        line(op.to_string());
    }
    for (address, interface) in &ours.addresses {
        line(format!("ip address add {address} dev {interface}"));
    }
    for (name, value) in &ours.sysctls {
        line(format!("sysctl -w {name}='{value}'"));
    }
    text
}
