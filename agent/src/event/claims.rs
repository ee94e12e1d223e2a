//! The results of claims for virtual addresses on their network segments.

use crate::host::interface::Mac;

/// The result of a claim for one virtual address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The claim has no result yet.
    Asking,
    /// No other host answers for the address on the interface with the given
    /// index.
    Free(u32),
    /// Another host, with the given MAC address, has the address or is about to
    /// take it.
    Taken(Mac),
    /// This host has the address, and no other host claims it.
    Held,
    /// This host has the address, but another host with the given MAC address
    /// also claims the address.
    Contested(Mac),
}
