//! The reasons for which the loop runs a round.

/// The reason to run a round. A stronger reason includes all weaker reasons.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reason {
    /// There is no reason to run a round.
    #[default]
    Nothing,
    /// A failed operation is due again, or a deadline has come. `Retry` is also
    /// the reason after a change of a server's health or of the kernel's table,
    /// for example.
    Retry,
    /// The facts about this host or its group must be checked again. After the
    /// check, entries that were refused to protect the host may be allowed, and
    /// allowed entries may be refused.
    Look,
    /// The objects changed, so the wanted state must be computed again.
    Resolve,
}

impl Reason {
    /// Returns `self` if `is_one` is true, and [`Reason::Nothing`] otherwise.
    pub(super) fn when(self, is_one: bool) -> Self {
        if is_one { self } else { Self::Nothing }
    }
}
