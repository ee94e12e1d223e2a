//! How a drained server's connections end. The values in this module have been
//! checked and are always valid.

use std::time::Duration;

use crate::api::AtEnd;

/// How long an entry of a service that is no longer wanted stays while it has
/// connections, if the service does not say it.
pub const REMOVAL_GRACE_PERIOD: Duration = Duration::from_secs(300);

/// How long a drain lasts if its object does not say it.
pub(crate) const DEFAULT: Duration = Duration::from_secs(300);

/// How a server is drained, with the defaults filled in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DrainRule {
    /// The time that the server's connections have to end.
    pub timeout: Duration,
    /// What happens to connections that are left after `timeout`.
    pub at_end: AtEnd,
}
