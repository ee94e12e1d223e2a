//! One record of the trail, and its text.

use std::{fmt, sync::Arc};

use ipvs::{Op, Timeouts, destination_options, service_options};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::act::Difference;

/// Why a difference came about.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Cause {
    /// A user created, edited or deleted an object.
    Edit,
    /// The health of servers changed.
    Health,
    /// Another process had changed the entry, and the agent repaired it.
    Drift,
    /// A removal that the agent had held, or delayed to keep connections, took
    /// place.
    Guard,
    /// The agent found the difference: another process made it, or it came
    /// about while no agent ran.
    Found,
    /// Another host has the virtual address.
    Conflict,
    /// `ipvs-agent undo` took the host out of service.
    Undo,
}

impl Cause {
    /// Returns the cause's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Edit => "edit",
            Self::Health => "health",
            Self::Drift => "drift",
            Self::Guard => "guard",
            Self::Found => "found",
            Self::Conflict => "conflict",
            Self::Undo => "undo",
        }
    }
}

/// An object of the API, with the generation that was in force.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Object {
    /// The object's namespace.
    pub namespace: Arc<str>,
    /// The object's name.
    pub name: Arc<str>,
    /// The object's `metadata.generation`. With `--manifests`, a number that
    /// changes with the object's content.
    pub generation: i64,
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The objects for which an entry exists.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Objects {
    /// The VirtualService.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub virtual_service: Option<Object>,
    /// The RealServer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub real_server: Option<Object>,
}

/// One record: a difference, its time, its cause and its objects.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// When the agent's round ended that made or found the difference.
    pub at: Timestamp,
    /// Why the difference came about.
    pub cause: Cause,
    /// Whether the agent wrote the difference to the host. If not, the agent
    /// found the difference, or the entry changed hands.
    pub written: bool,
    /// The objects for which the entry exists, or existed.
    #[serde(flatten)]
    pub objects: Objects,
    /// What changed, with the values before and after.
    pub difference: Difference,
}

impl Record {
    /// Returns what happened, as the command that does the same, with the
    /// previous value in brackets.
    pub fn what(&self) -> String {
        of(&self.difference)
    }
}

fn of(difference: &Difference) -> String {
    let was = |options: Option<String>| {
        let was = options.map(|options| format!(" (was {options})"));
        was.unwrap_or_default()
    };
    match difference {
        Difference::Service { service, old, new } => {
            let old = old.as_ref().map(|old| service_options(service, old));
            match new {
                None => Op::DeleteService(*service).to_string(),
                Some(new) if old.is_none() => Op::NewService(*service, new.clone()).to_string(),
                Some(new) => format!("{}{}", Op::SetService(*service, new.clone()), was(old)),
            }
        }
        Difference::Destination {
            service,
            destination,
            old,
            new,
        } => {
            let (service, destination) = (*service, *destination);
            let op = match (old, new) {
                (_, None) => Op::DeleteDestination(service, destination),
                (None, Some(new)) => Op::NewDestination(service, destination, *new),
                (Some(_), Some(new)) => Op::SetDestination(service, destination, *new),
            };
            format!("{op}{}", was(old.as_ref().map(destination_options)))
        }
        Difference::Address { address, old, new } => match (old, new) {
            (_, Some(new)) => format!("ip address add {address} dev {new}"),
            (old, None) => {
                let old = old.as_deref().unwrap_or_default();
                format!("ip address del {address} dev {old}")
            }
        },
        Difference::Sysctl { name, old, new, .. } => {
            let was = old.as_deref().unwrap_or("unknown");
            match new {
                Some(new) => format!("sysctl -w {name}='{new}' (was {was})"),
                None => format!("sysctl {name} is no longer the agent's (was {was})"),
            }
        }
        Difference::Timeouts { old, new, .. } => {
            let words =
                |Timeouts { tcp, tcp_fin, udp }: &Timeouts| format!("{tcp} {tcp_fin} {udp}");
            format!("--set {} (was {})", words(new), words(old))
        }
        Difference::Device { name, exists } => match exists {
            true => format!("ip link add {name} type dummy"),
            false => format!("ip link del {name}"),
        },
    }
}
