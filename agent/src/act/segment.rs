//! What the round knows about the segments of its interfaces.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use crate::{claim::Orders, event::claims::Verdict};

/// What is known about addresses on their segments.
#[derive(Debug, Default)]
pub(super) struct Segment {
    /// The latest verdict for each address, and when it was found.
    pub(super) verdicts: BTreeMap<IpAddr, (Verdict, Duration)>,
    /// The interfaces whose segment the agent cannot listen to, each with the
    /// reason.
    pub(super) deaf: BTreeMap<u32, String>,
    /// The latest orders to the segments.
    pub(super) orders: Orders,
    /// How often each address of ours was added in this run.
    pub(super) times: BTreeMap<IpAddr, u64>,
    /// Addresses of ours that were here in this run.
    pub(super) seen: BTreeSet<IpAddr>,
    /// Whether the interfaces were read in this run.
    pub(super) is_known: bool,
}
