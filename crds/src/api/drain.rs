use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::bounds;

/// Whether a server takes new connections.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum DesiredState {
    /// The server takes new connections.
    #[default]
    Active,
    /// The server gets no new connections. Its established connections go on.
    Drained,
}

/// How a server is drained.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// The time that the server's connections have to end, 0 to 604800 seconds
    /// (a week). It begins when a director stops sending new connections to the
    /// server. Defaults to 300.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = bounds::DRAIN_SECONDS))]
    pub timeout_seconds: Option<i32>,
    /// What happens to connections that are left at the end of this time.
    /// Defaults to Keep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at_end: Option<AtEnd>,
}

/// What happens to connections that are left at the end of a drain.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum AtEnd {
    /// The connections go on, however long they take.
    #[default]
    Keep,
    /// The server leaves the service, which ends the connections.
    Disconnect,
}
