//! What is known about virtual addresses on their segments.

use crate::host::interface::Mac;

/// What is known about an address.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// Nothing is known yet.
    Asking,
    /// No other host answers for it on the interface of this number.
    Free(u32),
    /// Another host has it, or is about to take it.
    Taken(Mac),
    /// It is here, and no other host claims it.
    Held,
    /// It is here, and another host claims it too.
    Contested(Mac),
}
