//! What the loop hears.

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
    claim::machine::Verdict,
    decide::caution::Word,
    host::reading::Reading,
    probe::{tally::Tally, target::ProbeId},
};

/// One thing that happened. The inputs send these and do nothing else.
#[derive(Debug)]
pub enum Event {
    /// To the VirtualServices of the director's group.
    VirtualService(Change<VirtualService>),
    /// To the RealServers.
    RealServer(Change<RealServer>),
    /// To the director's own DirectorGroup.
    DirectorGroup(Change<DirectorGroup>),
    /// The names of the group's Directors, whenever they differ from before.
    Directors(BTreeSet<String>),
    /// The addresses of their hosts, as they say, likewise.
    DirectorAddresses(BTreeMap<String, BTreeSet<IpAddr>>),
    /// Where the agent reaches its API server, whenever that differs from
    /// before.
    ApiServers(BTreeSet<SocketAddr>),
    /// What stands behind the objects.
    Caution(Word),
    /// The kernel's table as the reader found it, and when it began to read.
    Reading(Instant, Reading),
    /// The reader cannot read the kernel's table.
    Unread,
    /// The latest results of a target, whenever they say something new.
    Probed(ProbeId, Tally),
    /// Why probes are void, for a reason of this host's own, and how many
    /// targets' are, whenever that differs from before.
    ProbesVoid(BTreeMap<Arc<str>, usize>),
    /// What is known of virtual addresses on their segments by now, of those of
    /// which it is something else than before, and when it was found.
    Claims(Instant, BTreeMap<IpAddr, Verdict>),
    /// The interfaces, by the kernel's numbers, whose segments cannot be
    /// listened to, and why, whenever that differs from before.
    ClaimsHindered(BTreeMap<u32, String>),
    /// Something changed in the host's interfaces and addresses.
    Links,
    /// Everything that an earlier life knew was sent: what is missing may be
    /// made before the inputs have answered.
    Restored,
    /// The agent is to stop, and to leave the data plane as it is.
    Stop,
}
