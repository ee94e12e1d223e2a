use std::time::Duration;

use super::invalid;
use crate::{DrainRule, Rejection, api::Drain, bounds, drain::DEFAULT};

/// Checks `spec.drain` of a server and fills in the defaults.
pub(super) fn drain(raw: Option<&Drain>) -> Result<DrainRule, Rejection> {
    let timeout = raw.and_then(|raw| raw.timeout_seconds);
    Ok(DrainRule {
        timeout: seconds("spec.drain.timeoutSeconds", timeout, DEFAULT)?,
        at_end: raw.and_then(|raw| raw.at_end).unwrap_or_default(),
    })
}

/// Checks how long connections may go on. Without a time, it is `default`.
pub(super) fn seconds(
    path: &str,
    raw: Option<i32>,
    default: Duration,
) -> Result<Duration, Rejection> {
    const LONGEST: i32 = bounds::DRAIN_SECONDS;
    let Some(raw) = raw else {
        return Ok(default);
    };
    let seconds = u64::try_from(raw).ok().filter(|_| raw <= LONGEST);
    seconds.map(Duration::from_secs).ok_or_else(|| {
        invalid(
            path,
            format_args!(
                "{raw} is not such a time; write 0 to {LONGEST}, or leave it out for {}",
                default.as_secs()
            ),
        )
    })
}
