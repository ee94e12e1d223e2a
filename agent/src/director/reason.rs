//! Why a round runs.

/// Why a round should run. A greater one includes the lesser ones.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Reason {
    /// There is none.
    #[default]
    Nothing,
    /// Something failed and is due again, a time has come, or something other
    /// than the objects changed: a server's health, the kernel's table, the
    /// interfaces.
    Retry,
    /// This host or its group must be looked at again: what was refused to
    /// protect it may be allowed by now, or the other way round.
    Look,
    /// The objects changed: what is wanted is worked out anew.
    Resolve,
}

impl Reason {
    /// This reason, if it is one.
    pub(super) fn when(self, is_one: bool) -> Self {
        if is_one { self } else { Self::Nothing }
    }
}
