//! What of the servers' state outlives the agent, and in which form.

use std::collections::BTreeMap;

use ipvs::{DestinationKey, ServiceKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::server::{Health, ServerState};

/// What an earlier life knew, by service.
#[derive(Debug, Default)]
pub struct Memory {
    services: BTreeMap<ServiceKey, ServiceMemory>,
}

/// What it knew of one service.
#[derive(Debug, Default)]
pub(super) struct ServiceMemory {
    /// Since when it was below its minimum.
    pub(super) below_since: Option<Timestamp>,
    pub(super) servers: BTreeMap<DestinationKey, ServerState>,
}

/// A server of a service, or the service itself.
type Key = (ServiceKey, Option<DestinationKey>);

/// What is remembered of a server.
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

/// The row of a server: its key, and its content.
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

/// The row of a service: it has one while it is below its minimum.
pub(super) fn service_row(
    service: ServiceKey,
    below_since: Option<Timestamp>,
) -> (String, Option<String>) {
    (key(service, None), below_since.as_ref().map(json))
}

/// The key of a row.
pub(super) fn key(service: ServiceKey, server: Option<DestinationKey>) -> String {
    let key: Key = (service, server);
    json(&key)
}

fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).expect("keys are no maps, and nothing fails to serialise")
}

impl Memory {
    /// Takes in a row as it was written.
    ///
    /// # Errors
    /// When it cannot be read; the others are of use all the same.
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

    /// What is remembered of a service, once.
    pub(super) fn take(&mut self, service: &ServiceKey) -> ServiceMemory {
        self.services.remove(service).unwrap_or_default()
    }

    /// The keys of all rows that nobody took.
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
