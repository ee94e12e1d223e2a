//! The events that the loop receives from the agent's other threads.

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
    Change, Kind,
    api::{DirectorGroup, RealServer, VirtualService},
};

use crate::{
    event::{
        claims::Verdict,
        origin::{Known, Source, Word},
        probed::{ProbeId, Tally},
    },
    host::reading::Reading,
};

/// Something that the loop must react to. The inputs only send events and
/// decide nothing.
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
    /// The addresses of each Director's host, as the Director reports them;
    /// sent whenever they change.
    DirectorAddresses(BTreeMap<String, BTreeSet<IpAddr>>),
    /// The name of a director, when the agent looked at its Lease, and the time
    /// of renewal that the Lease names, or none if there is no Lease.
    Lease(String, Instant, Option<String>),
    /// The addresses at which the agent reaches its API server; sent whenever
    /// they change.
    ApiServers(BTreeSet<SocketAddr>),
    /// What an input found out about the cluster or about the custom resource
    /// definitions of the objects.
    Caution(Word),
    /// A listing of the objects of this kind begins, from this source. The event
    /// comes before [`Change::Listing`].
    Listing(Kind, Source),
    /// What the previous run knew about its listings.
    Known(Known),
    /// The kernel's table as the reader found it, and the time at which the
    /// reading began.
    Reading(Instant, Reading),
    /// The reader cannot read the kernel's table.
    Unread,
    /// The latest probe results of a target; sent whenever they show something
    /// new.
    Probed(ProbeId, Tally),
    /// The faults of this host that make probe results void, each with the
    /// number of affected targets; sent whenever they change.
    ProbesVoid(BTreeMap<Arc<str>, usize>),
    /// The namespaces that want more than their share of the prober, each as a
    /// reason with the number of targets that are probed late for it; sent
    /// whenever they change.
    ProbesLate(BTreeMap<Arc<str>, usize>),
    /// The changed verdicts of claims for virtual addresses, and the time at
    /// which they were reached.
    Claims(Instant, BTreeMap<IpAddr, Verdict>),
    /// The interfaces on whose segments the agent cannot listen, by interface
    /// number, each with the reason; sent whenever they change.
    ClaimsHindered(BTreeMap<u32, String>),
    /// Why the checkpoint cannot be written, or `None` if it can be written
    /// again; sent whenever this changes.
    Checkpoint(Option<String>),
    /// The interfaces or addresses of the host changed.
    Links,
    /// All objects that the previous run knew have been sent. The loop may now
    /// create missing entries before the inputs have answered.
    Restored,
    /// The agent must stop, and leave the data plane as it is.
    Stop,
}
