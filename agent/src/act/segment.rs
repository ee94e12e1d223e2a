//! The round's knowledge about the Ethernet segments of the host's interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{claim::Orders, event::claims::Verdict};

/// The agent's knowledge about virtual addresses on their Ethernet segments.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// The result of the latest claim for each virtual address, and the time of
    /// the result.
    pub(super) verdicts: BTreeMap<IpAddr, (Verdict, Duration)>,
    /// The indexes of the interfaces on whose segments the agent cannot listen,
    /// each with the reason.
    pub(super) deaf: BTreeMap<u32, String>,
    /// The latest orders to the claims thread: which addresses to probe for,
    /// hold or watch.
    pub(super) orders: Orders,
    /// How many times the agent has added each of our addresses to an interface
    /// since the agent started.
    pub(super) times: BTreeMap<IpAddr, u64>,
    /// Addresses of ours that have been on an interface since the agent
    /// started.
    pub(super) seen: BTreeSet<IpAddr>,
    /// Whether the agent has read the interfaces since it started.
    pub(super) is_known: bool,
}
