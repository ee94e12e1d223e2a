//! What the loop hears.

pub mod claims;
pub mod origin;
pub mod probed;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use crds::{
    Change,
    api::{DirectorGroup, RealServer, VirtualService},
};

use crate::{
    event::{
        claims::Verdict,
        origin::Word,
        probed::{ProbeId, Tally},
    },
    host::reading::Reading,
};

/// One thing that happened. The inputs send these and do nothing else.
#[derive(Debug)]
pub enum Event {
    /// A change to the VirtualServices of the director's group.
    VirtualService(Change<VirtualService>),
    /// A change to the RealServers.
    RealServer(Change<RealServer>),
    /// A change to the director's own DirectorGroup.
    DirectorGroup(Change<DirectorGroup>),
    /// The names of the group's Directors; sent whenever they change.
    Directors(BTreeSet<String>),
    /// The addresses of their hosts, as the Directors report them; sent
    /// whenever they change.
    DirectorAddresses(BTreeMap<String, BTreeSet<IpAddr>>),
    /// Where the agent reaches its API server; sent whenever that changes.
    ApiServers(BTreeSet<SocketAddr>),
    /// What an input found about the cluster or the definitions of the objects.
    Caution(Word),
    /// The kernel's table as the reader found it, and when it began to read.
    Reading(Instant, Reading),
    /// The reader cannot read the kernel's table.
    Unread,
    /// The latest results of a target; sent whenever they show something new.
    Probed(ProbeId, Tally),
    /// Why probes are void because of this host itself, each with the number of
    /// targets; sent whenever that changes.
    ProbesVoid(BTreeMap<Arc<str>, usize>),
    /// The verdicts on virtual addresses on their segments that have changed,
    /// and when they were found.
    Claims(Instant, BTreeMap<IpAddr, Verdict>),
    /// The interfaces, by the kernel's numbers, whose segments the agent cannot
    /// listen to, each with the reason; sent whenever that changes.
    ClaimsHindered(BTreeMap<u32, String>),
    /// Something changed in the host's interfaces and addresses.
    Links,
    /// Everything that the previous run knew was sent: what is missing may be
    /// made before the inputs have answered.
    Restored,
    /// The agent must stop, and leave the data plane as it is.
    Stop,
}
