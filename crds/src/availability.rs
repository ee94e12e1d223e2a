//! How a service reacts to servers that fail their health check. The values in
//! this module have been checked and are always valid.

use std::{net::IpAddr, time::Duration};

use crate::ForwardingRule;

/// How a service reacts to servers that fail their health check, with the
/// defaults filled in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Availability {
    /// What happens to a single server that fails its health check.
    pub on_failure: OnFailure,
    /// The fewest healthy servers with which the service works normally. With
    /// fewer healthy servers, the action in `below` is in force. If `minimum`
    /// is `None`, the action is in force only when no server is healthy.
    pub minimum: Option<Quantity>,
    /// The action in `below` ends when more than this number of servers, or all
    /// servers, are healthy. If `recover_above` is `None`, the action ends when
    /// the service reaches its minimum.
    pub recover_above: Option<Quantity>,
    /// What the service does while it has fewer healthy servers than the
    /// minimum.
    pub below: BelowMinimum,
    /// How long the weight of a newly healthy server takes to grow to its full
    /// value. Without a slow start, the server gets its full weight at once.
    pub slow_start: Option<Duration>,
}

impl Availability {
    /// Returns how many of `total` servers must be healthy. Drained servers
    /// (weight 0) do not count towards the total.
    pub fn minimum_of(&self, total: usize) -> usize {
        self.minimum.unwrap_or(Quantity::Count(1)).of(total)
    }
}

/// What happens to a server that fails its health check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnFailure {
    /// The server gets weight 0: it keeps its connections and gets no new ones.
    Quiesce,
    /// The server is removed from the service, which cuts its connections.
    Remove,
}

/// A number of servers, as a count or as a percentage of the service's servers.
/// Servers that the administrator drained (weight 0) do not count.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quantity {
    /// An absolute number of servers.
    Count(u32),
    /// A percentage of the servers, 0 to 100, rounded up.
    Percent(u8),
}

impl Quantity {
    /// Converts the quantity into a number of servers, out of `total`.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
    }
}

/// What a service does while it has too few healthy servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BelowMinimum {
    /// Treats every server that is not drained as healthy.
    FailOpen,
    /// Sends new connections to no server: clients are refused at once.
    Reject,
    /// Sends new connections to the sorry server.
    Sorry(SorryServer),
}

/// The server that gets new connections while too few real servers are healthy.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SorryServer {
    /// The sorry server's address.
    pub address: IpAddr,
    /// The sorry server's port; see [`crate::Server::port`].
    pub port: u16,
    /// How packets reach the sorry server.
    pub forwarding: ForwardingRule,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentage_is_rounded_up_to_whole_servers() {
        for (quantity, total, expected) in [
            (Quantity::Percent(50), 3, 2),
            (Quantity::Percent(50), 4, 2),
            (Quantity::Percent(1), 10, 1),
            (Quantity::Percent(0), 10, 0),
            (Quantity::Percent(100), 10, 10),
            (Quantity::Count(3), 10, 3),
        ] {
            assert_eq!(quantity.of(total), expected, "{quantity:?} of {total}");
        }
    }
}
