//! The part of the servers' state that survives a restart of the agent, and its
//! format on disk.

use std::collections::BTreeMap;

use ipvs::{DestinationKey, ServiceKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::server::{Health, ServerState};

/// The previous run's memory of the health of servers, by service.
#[derive(Debug, Default)]
pub struct Memory {
    services: BTreeMap<ServiceKey, ServiceMemory>,
}

/// The previous run's memory of one service and its servers.
#[derive(Debug, Default)]
pub(super) struct ServiceMemory {
    /// When the service fell below its minimum of healthy servers, or none if
    /// the service had enough healthy servers.
    pub(super) below_since: Option<Timestamp>,
    pub(super) servers: BTreeMap<DestinationKey, ServerState>,
}

/// The key of a row: a server of a service, or the service itself.
type Key = (ServiceKey, Option<DestinationKey>);

/// The remembered state of a server.
#[derive(Deserialize, Serialize)]
struct ServerRow {
    health: Health,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    #[serde(default)]
    falls: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    risen: Option<Timestamp>,
}

/// Returns the key and the content of a server's row.
pub(super) fn server_row(
    service: ServiceKey,
    server: DestinationKey,
    state: &ServerState,
) -> (String, String) {
    let row = ServerRow {
        health: state.health(),
        since: state.since(),
        why: state.why().map(ToString::to_string),
        falls: state.falls(),
        risen: state.risen(),
    };
    (key(service, Some(server)), json(&row))
}

/// Returns the key and the content of a service's row. A service's row has
/// content only while the service is below its minimum of healthy servers.
pub(super) fn service_row(
    service: ServiceKey,
    below_since: Option<Timestamp>,
) -> (String, Option<String>) {
    (key(service, None), below_since.as_ref().map(json))
}

/// Returns the key under which the row of a service or server is stored.
pub(super) fn key(service: ServiceKey, server: Option<DestinationKey>) -> String {
    let key: Key = (service, server);
    json(&key)
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("keys are no maps, and nothing fails to serialise")
}

impl Memory {
    /// Reads a row that a previous run wrote.
    ///
    /// # Errors
    /// Returns an error if the row cannot be parsed. A faulty row does not
    /// affect other rows.
    pub fn remember(&mut self, key: &str, row: &str) -> serde_json::Result<()> {
        let (service, server): Key = serde_json::from_str(key)?;
        match server {
            Some(server) => {
                let row: ServerRow = serde_json::from_str(row)?;
                let why = row.why.map(Into::into);
                let state = ServerState::remembered(row.health, row.since, why, row.falls);
                let state = state.with_rise(row.risen);
                let memory = self.services.entry(service).or_default();
                memory.servers.insert(server, state);
            }
            None => {
                let since = serde_json::from_str(row)?;
                self.services.entry(service).or_default().below_since = Some(since);
            }
        }
        Ok(())
    }

    /// Removes and returns the memory of a service.
    pub(super) fn take(&mut self, service: &ServiceKey) -> ServiceMemory {
        self.services.remove(service).unwrap_or_default()
    }

    /// Forgets all rows that [`Self::take`] did not remove, and returns their
    /// keys.
    pub(super) fn forget(&mut self) -> Vec<String> {
        let rest = std::mem::take(&mut self.services).into_iter();
        let keys = rest.flat_map(|(service, memory)| {
            let servers = memory.servers.into_keys().map(Some);
            servers
                .chain([None])
                .map(move |server| key(service, server))
        });
        keys.collect()
    }
}
