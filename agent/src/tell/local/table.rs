//! The IPVS table as `ipvs-agent table` shows it: what is wanted, what is in
//! force, what the kernel has, whose it is, and what is wrong with it. The code
//! is pure: it does no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use crds::{ObjectKey, api::DirectorException};
use ipvs::{
    ActualTable, Connections, DestinationKey, ServiceKey, Statistics, WantedService,
    destination_options, service_options,
};
use serde::{Deserialize, Serialize};

use crate::{
    act::retry::Subject,
    tell::report::Observed,
    trail::{book::Book, ours::Ours, record::Object},
};

/// An entry of the IPVS table: a service, or a destination in it.
type Entry = (ServiceKey, Option<DestinationKey>);

/// One row of the table: a service, or a destination in it. Configurations are
/// options of ipvsadm, such as `-m -w 1`.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The key of the service, such as `-t 192.0.2.1:80`.
    pub service: String,
    /// The address and port of the destination, or `None` for the service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// The VirtualService or RealServer that wants the entry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object: Option<Object>,
    /// What the objects want, whatever the health of the servers is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wanted: Option<String>,
    /// What the agent wants the kernel to have now, with the weights that health
    /// allows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_force: Option<String>,
    /// What the kernel has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actual: Option<String>,
    /// Whether the entry in the kernel is the agent's.
    pub ours: bool,
    /// The active connections of the destination, as the kernel counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub active_connections: Option<u32>,
    /// The inactive connections of the destination, as the kernel counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inactive_connections: Option<u32>,
    /// What is wrong with the entry: the health of the server with the words of
    /// its last probe, a removal that is held, or an operation that failed and
    /// is tried again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The part of the table that the agent knows.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Known {
    /// The rows of the wanted entries and of the agent's entries.
    pub rows: Vec<(ServiceKey, Option<DestinationKey>, Row)>,
    /// The objects that are not served, or not as their spec asks.
    pub exceptions: Vec<DirectorException>,
}

/// Returns what the agent knows of the table. `book` is what the trail knows,
/// and `observed` has the loop's findings.
pub(crate) fn known(
    book: &Book,
    observed: Option<&Observed>,
    exceptions: Vec<DirectorException>,
) -> Known {
    let notes = observed.map(notes).unwrap_or_default();
    let wanted = book.wants.iter().flat_map(|(key, wants)| {
        let both = [&wants.desired, &wants.in_force].into_iter().flatten();
        both.flat_map(|service| entries(*key, service.destinations.keys()))
    });
    let ours = book.ours.services.iter();
    let ours = ours.flat_map(|(key, service)| entries(*key, service.destinations.keys()));
    let all: BTreeSet<Entry> = wanted.chain(ours).collect();
    let rows = all.into_iter().map(|entry| {
        let (service, destination) = entry;
        let mut row = row(&entry);
        let wants = book.wants.get(&service);
        let options = |wanted: &Option<Arc<WantedService>>| {
            let wanted = wanted.as_ref()?;
            match destination {
                None => Some(service_options(&service, &wanted.config)),
                Some(key) => Some(destination_options(wanted.destinations.get(&key)?)),
            }
        };
        row.wanted = wants.and_then(|wants| options(&wants.desired));
        row.in_force = wants.and_then(|wants| options(&wants.in_force));
        row.object = wants.and_then(|wants| match destination {
            None => wants.object.clone(),
            Some(key) => wants.server(&key).cloned(),
        });
        of_ours(&mut row, &book.ours, &entry);
        row.notes = notes.get(&entry).cloned().unwrap_or_default();
        (service, destination, row)
    });
    Known {
        rows: rows.collect(),
        exceptions,
    }
}

/// Returns what the trail alone knows of the table, while no agent runs.
pub fn known_to_trail(ours: Arc<Ours>) -> Known {
    known(&Book::new(ours), None, Vec::new())
}

impl Known {
    /// Returns the rows of the whole table, with what the kernel has.
    pub fn with_kernel(self, table: &ActualTable, statistics: &Statistics) -> Vec<Row> {
        let rows = self.rows.into_iter();
        let mut rows: BTreeMap<Entry, Row> = rows
            .map(|(service, destination, row)| ((service, destination), row))
            .collect();
        for (key, service) in table {
            let entry = (*key, None);
            let found = rows.entry(entry).or_insert_with(|| row(&entry));
            found.actual = Some(service_options(key, &service.config));
            for (destination, config) in &service.destinations {
                let entry = (*key, Some(*destination));
                let found = rows.entry(entry).or_insert_with(|| row(&entry));
                found.actual = Some(destination_options(config));
                let counters = statistics.get(key);
                let counters = counters.and_then(|of| of.destinations.get(destination));
                let Some(counters) = counters else {
                    continue;
                };
                let Connections {
                    active, inactive, ..
                } = counters.connections;
                found.active_connections = Some(active);
                found.inactive_connections = Some(inactive);
            }
        }
        rows.into_values().collect()
    }
}

fn entries<'a>(
    service: ServiceKey,
    destinations: impl Iterator<Item = &'a DestinationKey>,
) -> impl Iterator<Item = Entry> {
    let destinations = destinations.map(move |key| (service, Some(*key)));
    std::iter::once((service, None)).chain(destinations)
}

fn row((service, destination): &Entry) -> Row {
    Row {
        service: service.to_string(),
        destination: destination.map(|key| key.to_string()),
        ..Row::default()
    }
}

/// Notes whether the entry is the agent's. If it is no longer wanted, names the
/// object that wanted it.
fn of_ours(row: &mut Row, ours: &Ours, (service, destination): &Entry) {
    let Some(service) = ours.services.get(service) else {
        return;
    };
    let object = match destination {
        None => Some(&service.object),
        Some(key) => service.destinations.get(key).map(|of| &of.object),
    };
    row.ours = object.is_some();
    if row.object.is_none() {
        row.object = object.and_then(Clone::clone);
    }
}

/// Returns what the loop found wrong with entries.
fn notes(observed: &Observed) -> BTreeMap<Entry, Vec<String>> {
    let mut notes: BTreeMap<Entry, Vec<String>> = BTreeMap::new();
    let mut add = |entry: Entry, note: String| notes.entry(entry).or_default().push(note);
    for op in &observed.removals_held {
        add(
            (op.service(), op.destination()),
            "its removal is held".to_owned(),
        );
    }
    let outcome = observed.outcome.as_ref();
    for (subject, why) in outcome
        .map(|outcome| &outcome.failures)
        .into_iter()
        .flatten()
    {
        let entry = match subject {
            Subject::Service(service) => (*service, None),
            Subject::Destination(service, destination) => (*service, Some(*destination)),
            _ => continue,
        };
        add(entry, format!("tried again: {why}"));
    }
    let unhealthy = observed
        .health
        .found
        .iter()
        .flat_map(|found| &found.unhealthy);
    let mut ailing: BTreeMap<(&ObjectKey, &ObjectKey), String> = BTreeMap::new();
    let mut ailing_for_all: BTreeMap<&ObjectKey, String> = BTreeMap::new();
    for server in unhealthy {
        let words = format!(
            "{:?} since {}: {}",
            server.state, server.since.0, server.message
        );
        for service in &server.virtual_services {
            ailing.insert((service, &server.real_server), words.clone());
        }
        if server.is_for_all() {
            ailing_for_all.insert(&server.real_server, words);
        }
    }
    let wishes = &observed.wishes;
    for ((service, destination), server) in &wishes.servers {
        let name = wishes.services.get(service);
        let named = name.and_then(|name| ailing.get(&(name, server)));
        let is_checked = wishes.checks.contains_key(service);
        let for_all = ailing_for_all.get(server).filter(|_| is_checked);
        if let Some(words) = named.or(for_all) {
            add((*service, Some(*destination)), words.clone());
        }
    }
    notes
}

/// Returns the rows as lines of text. An entry of another program has `-` as
/// its object. Where the kernel differs from what is in force, or what is in
/// force from what is wanted, the line says so.
pub fn text(rows: &[Row], exceptions: &[DirectorException]) -> String {
    let mut lines =
        vec![["ENTRY", "KERNEL", "ACTIVE", "INACTIVE", "OBJECT", "REMARKS"].map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let mut widths = [0; 5];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.len().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (width, cell) in widths.iter().zip(line) {
            let _ = write!(padded, "{cell:<width$}  ");
        }
        padded.push_str(&line[5]);
        let _ = writeln!(text, "{}", padded.trim_end());
    }
    if !exceptions.is_empty() {
        text.push_str("Not served as asked:\n");
    }
    for exception in exceptions {
        let service = &exception.virtual_service;
        let server = exception.real_server.as_ref();
        let server = server.map(|server| format!(", RealServer {server}"));
        let _ = writeln!(
            text,
            "  {service}{}: {}: {}",
            server.unwrap_or_default(),
            exception.reason,
            exception.message
        );
    }
    text
}

fn cells(row: &Row) -> [String; 6] {
    let entry = match &row.destination {
        None => row.service.clone(),
        Some(destination) => format!("  -> {destination}"),
    };
    let number = |number: Option<u32>| number.map(|number| number.to_string()).unwrap_or_default();
    let object = match (&row.object, row.ours, &row.actual) {
        (Some(object), ..) => object.to_string(),
        (None, true, _) => "no longer wanted".to_owned(),
        (None, false, _) => "-".to_owned(),
    };
    let mut remarks = Vec::new();
    match (&row.actual, &row.in_force) {
        (Some(_), None) if !row.ours => remarks.push("another program's".to_owned()),
        (Some(_), Some(_)) if !row.ours => remarks.push("left to another program".to_owned()),
        (None, Some(in_force)) => remarks.push(format!("should be {in_force}")),
        (Some(actual), Some(in_force)) if actual != in_force => {
            remarks.push(format!("should be {in_force}"));
        }
        _ => {}
    }
    match (&row.in_force, &row.wanted) {
        (Some(in_force), Some(wanted)) if in_force != wanted => {
            remarks.push(format!("wanted: {wanted}"));
        }
        (None, Some(wanted)) => remarks.push(format!("out of service; wanted: {wanted}")),
        _ => {}
    }
    remarks.extend(row.notes.iter().cloned());
    [
        entry,
        row.actual.clone().unwrap_or_else(|| "missing".to_owned()),
        number(row.active_connections),
        number(row.inactive_connections),
        object,
        remarks.join("; "),
    ]
}

#[cfg(test)]
mod tests;
