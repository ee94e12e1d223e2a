//! News about the health of servers and services, for the log.

use std::{fmt, sync::Arc};

use ipvs::{DestinationKey, ServiceKey};

use super::{
    policy::Count,
    server::{Health, ServerState},
};

/// One change of a server's health or of a service's state.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum News {
    /// The server is healthy.
    Healthy(ServiceKey, DestinationKey),
    /// The server failed; the last field is the reason.
    Down(ServiceKey, DestinationKey, Option<Arc<str>>),
    /// The server alternates between failure and success; the last field is the
    /// reason of the last failure.
    Flapping(ServiceKey, DestinationKey, Option<Arc<str>>),
    /// The service has fewer healthy servers than its minimum; the last field
    /// names the policy for this case, such as `FailOpen`.
    BelowMinimum(ServiceKey, Count, &'static str),
    /// The service has enough healthy servers again.
    Recovered(ServiceKey, Count),
}

impl News {
    /// Returns the news about a server's health, or none while the server's
    /// health is unknown.
    pub(super) fn of(
        service: ServiceKey,
        server: DestinationKey,
        state: &ServerState,
    ) -> Option<Self> {
        let why = || state.why().cloned();
        match state.health() {
            Health::Up => Some(Self::Healthy(service, server)),
            Health::Down if state.is_flapping() => Some(Self::Flapping(service, server, why())),
            Health::Down => Some(Self::Down(service, server, why())),
            Health::Unknown => None,
        }
    }

    /// Whether the news is logged as a warning.
    pub fn is_bad(&self) -> bool {
        !matches!(self, Self::Healthy(..) | Self::Recovered(..))
    }
}

impl fmt::Display for News {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words = |why: &Option<Arc<str>>| why.clone().unwrap_or_default();
        match self {
            Self::Healthy(service, server) => {
                write!(f, "server {server} of service {service} is healthy")
            }
            Self::Down(service, server, why) => write!(
                f,
                "server {server} of service {service} is down: {}",
                words(why)
            ),
            Self::Flapping(service, server, why) => write!(
                f,
                "server {server} of service {service} is flapping: {}",
                words(why)
            ),
            Self::BelowMinimum(service, Count { total, healthy }, action) => write!(
                f,
                "service {service} has {healthy} of {total} servers healthy, which are too few: \
                 {action} is in force"
            ),
            Self::Recovered(service, Count { total, healthy }) => write!(
                f,
                "service {service} has {healthy} of {total} servers healthy again"
            ),
        }
    }
}
