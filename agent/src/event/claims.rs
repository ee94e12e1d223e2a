//! What claims have found out about virtual addresses on their network
//! segments.

use crate::host::interface::Mac;

/// What a claim has found out about one virtual address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The claim has no result yet.
    Asking,
    /// No other host answers for the address on the interface with this number.
    Free(u32),
    /// The host with this MAC address has the address or is about to take it.
    Taken(Mac),
    /// This host has the address, and no other host claims it.
    Held,
    /// This host has the address, and the host with this MAC address claims it
    /// too.
    Contested(Mac),
}
