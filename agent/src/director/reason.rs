//! Why a round runs.

/// Why a round should run. A greater reason includes the lesser ones.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reason {
    /// There is no reason to run a round.
    #[default]
    Nothing,
    /// Something failed and is due again, a deadline has come, or something
    /// other than the objects changed: a server's health, the kernel's table,
    /// the interfaces.
    Retry,
    /// This host or its group must be checked again: what was refused to
    /// protect the host may be allowed by now, or the other way round.
    Look,
    /// The objects changed: what is wanted must be worked out again.
    Resolve,
}

impl Reason {
    /// Returns this reason if `is_one` is true, and no reason if not.
    pub(super) fn when(self, is_one: bool) -> Self {
        if is_one { self } else { Self::Nothing }
    }
}
