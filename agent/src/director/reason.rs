//! The reasons for which the loop runs a round.

/// The reason to run a round. A stronger reason includes all weaker reasons.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reason {
    /// There is no reason to run a round.
    #[default]
    Nothing,
    /// A failed operation is due again, or a deadline has come. Some changes
    /// outside the objects have this reason too, such as a change of a server's
    /// health or of the kernel's table.
    Retry,
    /// The facts about this host or its group must be checked again. Entries
    /// that were refused to protect the host may be allowed by now, and allowed
    /// entries may have to be refused.
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
