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
    host::reading::{Loads, Reading},
};

/// An event that the loop must react to. The threads that send events make no
/// decisions.
#[derive(Debug)]
pub enum Event {
    /// A change to the VirtualServices of the director's group.
    VirtualService(Change<VirtualService>),
    /// A change to the RealServers of all namespaces.
    RealServer(Change<RealServer>),
    /// A change to the director's own DirectorGroup.
    DirectorGroup(Change<DirectorGroup>),
    /// The names of the Directors of this director's group; sent when the names
    /// change.
    Directors(BTreeSet<String>),
    /// The host addresses that each Director reports; sent when the addresses
    /// change.
    DirectorAddresses(BTreeMap<String, BTreeSet<IpAddr>>),
    /// A reading of another director's Lease: the director's name, the time of
    /// the reading, and the Lease's renewal time. Without a Lease, the renewal
    /// time is `None`.
    Lease(String, Instant, Option<String>),
    /// The addresses at which the agent reaches its API server; sent when the
    /// addresses change.
    ApiServers(BTreeSet<SocketAddr>),
    /// A step of a look at the cluster: for example, its answer about the
    /// cluster's UID or about the state of a custom resource definition.
    Caution(Word),
    /// A listing of the objects of one kind begins, from the given source. The
    /// loop receives this event before [`Change::Listing`].
    Listing(Kind, Source),
    /// What the previous run knew about listings: the source of each kind of
    /// object, and the objects that listings left out.
    Known(Known),
    /// The kernel's table as the reader found it, and the time at which the
    /// reading began.
    Reading(Instant, Reading),
    /// The loads of the servers in the services that the loop follows, and the
    /// time at which the reading began.
    Loads(Instant, Loads),
    /// The reader thread cannot read the kernel's table.
    Unread,
    /// The latest probe results of a target; sent whenever the [`Tally`]
    /// changes.
    Probed(ProbeId, Tally),
    /// The reasons why probes failed because of this host, each with the number
    /// of affected targets. The event is sent when a reason or a number
    /// changes.
    ProbesVoid(BTreeMap<Arc<str>, usize>),
    /// The reasons why probes begin late, each with the number of affected
    /// targets. Each reason names a namespace that wants more probes than its
    /// share. The event is sent whenever the reasons change.
    ProbesLate(BTreeMap<Arc<str>, usize>),
    /// The changed results of claims for virtual addresses, and the time of
    /// these results.
    Claims(Instant, BTreeMap<IpAddr, Verdict>),
    /// The reasons why the agent cannot listen on interfaces, by interface
    /// number. The event is sent when the reasons change.
    ClaimsHindered(BTreeMap<u32, String>),
    /// The reason why the checkpoint cannot be written, or `None` if the
    /// checkpoint can be written again. The event is sent when the reason
    /// changes.
    Checkpoint(Option<String>),
    /// The mistakes in the manifests, one sentence each. The event is sent when
    /// the mistakes change.
    ManifestProblems(Vec<String>),
    /// The interfaces or addresses of the host changed.
    Links,
    /// All objects that the previous run knew have been sent. The loop may now
    /// create missing entries, even if the inputs have not answered yet.
    Restored,
    /// The agent must stop, and leave the kernel's table and the addresses as
    /// they are.
    Stop,
}
