//! What is done about servers that fail: values of these types cannot be wrong.

use std::{net::IpAddr, time::Duration};

use crate::ForwardingRule;

/// What to do about servers that fail, checked and with its defaults.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Availability {
    /// What becomes of one server that fails.
    pub on_failure: OnFailure,
    /// With fewer healthy servers than this, `below` is in force. None: with
    /// not a single one.
    pub minimum: Option<Quantity>,
    /// And stays so until there are more than this, or all. None: until the
    /// minimum is reached.
    pub recover_above: Option<Quantity>,
    /// What is in force below the minimum.
    pub below: BelowMinimum,
    /// Over this time a server's weight grows to what it is to be; none is at
    /// once.
    pub slow_start: Option<Duration>,
}

impl Availability {
    /// How many healthy servers there have to be, of so many that are not
    /// drained.
    pub fn minimum_of(&self, total: usize) -> usize {
        self.minimum.unwrap_or(Quantity::Count(1)).of(total)
    }
}

/// What becomes of a server that fails.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnFailure {
    /// Its weight is 0.
    Quiesce,
    /// It is taken out of the service.
    Remove,
}

/// How many of a service's servers: those that the administrator has not
/// drained (weight 0) are counted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Quantity {
    /// So many.
    Count(u32),
    /// So much of them, 0 to 100, rounded up.
    Percent(u8),
}

impl Quantity {
    /// As a number of servers, of so many in all.
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => (total * usize::from(percent)).div_ceil(100),
        }
    }
}

/// What is in force with too few healthy servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum BelowMinimum {
    /// All but drained servers serve as if they were healthy.
    FailOpen,
    /// No server is given new connections: clients are refused at once.
    Reject,
    /// This one is given them.
    Sorry(SorryServer),
}

/// The server that says sorry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SorryServer {
    /// Its address.
    pub address: IpAddr,
    /// Its port; as [`crate::Server::port`].
    pub port: u16,
    /// How packets reach it.
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
