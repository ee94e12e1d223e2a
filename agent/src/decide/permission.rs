//! Decides whether the permission for removals in a DirectorGroup
//! (`spec.removals.allowUntil`) is valid now. The code is pure: the time of day
//! is an argument.
//!
//! A permission switches the removal guard off. A wrong clock must not switch
//! the guard off: on a machine with a wrong time, a permission that ended long
//! ago could seem valid again. A permission whose end is mistyped or far ahead
//! must not switch the guard off either.

use jiff::{SignedDuration, Timestamp};

/// How far in the future a permission may end. A permission with a later end is
/// not believed.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);
/// The clocks of the host and the API server count as disagreeing if they
/// differ by at least this much.
const DISAGREEMENT: SignedDuration = SignedDuration::from_mins(1);

/// The time of day, read from both clocks at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Daytime {
    /// The time of day according to this host's clock.
    pub here: Timestamp,
    /// The time of day according to the API server.
    pub api_server: ApiServerTime,
}

/// The time of day according to the API server.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ApiServerTime {
    /// The agent uses no API server, so the host's clock is believed.
    NoApiServer,
    /// No answer of the API server had a Date header.
    Unknown,
    /// The API server's clock shows this time.
    Is(Timestamp),
}

/// Whether removals are permitted now.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Permission {
    /// The group gives no permission, or the permission has ended.
    Absent,
    /// Every removal is permitted.
    Given,
    /// The group gives a permission that is not believed, so it has no effect.
    Doubtful(Doubt),
}

/// The reason why a permission is not believed.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Doubt {
    /// The permission ends more than a day from now.
    #[error(
        "the DirectorGroup's spec.removals.allowUntil is ignored, because it is more than a day ahead ({0}): set a time within the next 24 hours"
    )]
    TooFarAhead(Timestamp),
    /// This host's clock is behind the API server's clock.
    #[error(
        "the DirectorGroup's spec.removals.allowUntil is ignored, because this director's clock is behind the API server's clock by a minute or more: correct the clock that is wrong, with NTP for instance"
    )]
    Behind,
    /// This host's clock is ahead of the API server's clock.
    #[error(
        "the DirectorGroup's spec.removals.allowUntil is ignored, because this director's clock is ahead of the API server's clock by a minute or more: correct the clock that is wrong, with NTP for instance"
    )]
    Ahead,
    /// The agent has no other clock to compare this host's clock with.
    #[error(
        "the DirectorGroup's spec.removals.allowUntil is ignored, because the API server's answers have no Date header, with which the agent compares this director's clock: if there is a proxy in front of the API server, let it pass this header on"
    )]
    NoDate,
}

impl Permission {
    /// Judges a permission for removals that ends at `until`, in seconds since
    /// 1970.
    pub fn of(until: Option<i64>, now: Daytime) -> Self {
        let Some(until) = until.and_then(|until| Timestamp::from_second(until).ok()) else {
            return Self::Absent;
        };
        let there = match now.api_server {
            ApiServerTime::Is(there) => there,
            ApiServerTime::NoApiServer | ApiServerTime::Unknown => now.here,
        };
        if until <= now.here.min(there) {
            return Self::Absent;
        }
        let behind = there.duration_since(now.here);
        if behind >= DISAGREEMENT {
            return Self::Doubtful(Doubt::Behind);
        }
        if behind <= -DISAGREEMENT {
            return Self::Doubtful(Doubt::Ahead);
        }
        if now.api_server == ApiServerTime::Unknown {
            return Self::Doubtful(Doubt::NoDate);
        }
        // The clock of the person who set `allowUntil` may also differ from the
        // host's clock.
        if until.duration_since(now.here) >= LONGEST + DISAGREEMENT {
            return Self::Doubtful(Doubt::TooFarAhead(until));
        }
        match now.here < until {
            true => Self::Given,
            false => Self::Absent,
        }
    }

    /// Returns the reason why the permission is not believed, if there is one.
    pub fn doubt(self) -> Option<Doubt> {
        match self {
            Self::Doubtful(doubt) => Some(doubt),
            Self::Absent | Self::Given => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 1_800_000_000;
    const MINUTE: i64 = 60;
    const DAY: i64 = 24 * 60 * MINUTE;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Judges, at noon, a permission that ends `until` seconds after noon. The
    /// API server's clock differs from the host's clock by `ahead` seconds.
    fn judged(until: i64, ahead: i64) -> Permission {
        let now = Daytime {
            here: at(NOON),
            api_server: ApiServerTime::Is(at(NOON + ahead)),
        };
        Permission::of(Some(NOON + until), now)
    }

    #[test]
    fn a_permission_is_valid_until_it_ends_and_for_at_most_a_day() {
        let far = |until| Permission::Doubtful(Doubt::TooFarAhead(at(NOON + until)));
        for (until, permission) in [
            (-DAY, Permission::Absent),
            (0, Permission::Absent),
            (1, Permission::Given),
            (10 * MINUTE, Permission::Given),
            (DAY, Permission::Given),
            (DAY + MINUTE, far(DAY + MINUTE)),
            (70 * 365 * DAY, far(70 * 365 * DAY)),
        ] {
            assert_eq!(judged(until, 0), permission, "{until} s ahead");
        }
        let now = Daytime {
            here: at(NOON),
            api_server: ApiServerTime::Is(at(NOON)),
        };
        assert_eq!(Permission::of(None, now), Permission::Absent);
    }

    #[test]
    fn on_a_clock_that_disagrees_with_the_api_server_no_permission_is_believed() {
        for (ahead, permission) in [
            (MINUTE - 1, Permission::Given),
            (1 - MINUTE, Permission::Given),
            (MINUTE, Permission::Doubtful(Doubt::Behind)),
            (-MINUTE, Permission::Doubtful(Doubt::Ahead)),
            (400 * DAY, Permission::Doubtful(Doubt::Behind)),
            (-400 * DAY, Permission::Doubtful(Doubt::Ahead)),
        ] {
            assert_eq!(judged(10 * MINUTE, ahead), permission, "{ahead} s ahead");
        }
        // A machine whose clock is behind would accept a permission that has
        // already ended.
        assert_eq!(judged(DAY, 2 * DAY), Permission::Doubtful(Doubt::Behind));
        // A permission that has ended on both clocks is not reported.
        assert_eq!(judged(-MINUTE, 400 * DAY), Permission::Absent);
    }

    #[test]
    fn without_an_api_server_the_own_clock_is_believed_and_without_its_time_it_is_not() {
        for (api_server, permission) in [
            (ApiServerTime::NoApiServer, Permission::Given),
            (ApiServerTime::Unknown, Permission::Doubtful(Doubt::NoDate)),
        ] {
            let here = at(NOON);
            let now = Daytime { here, api_server };
            assert_eq!(Permission::of(Some(NOON + MINUTE), now), permission);
        }
    }
}
