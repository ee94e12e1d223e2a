//! From a raw spec to one that cannot be wrong by itself.
//!
//! Every rule here is about one object alone and is refused at admission too,
//! by the schema or by CEL; a test proves that the two refuse the same. What
//! objects mean to each other is [`crate::resolve`]'s.

mod address;
mod availability;
mod forwarding;
mod group;
mod health;
mod name;
mod selector;
mod server;
mod service;
mod sysctl;

pub use group::{AddressRule, CheckedGroup, SysctlRule, TimeoutRule};
pub use selector::Selector;
pub use server::CheckedServer;
pub use service::CheckedService;

use crate::{Rejection, condition::reason};

/// Where a value stands and what is wrong with it, as a rejection.
fn invalid(path: &str, what: impl std::fmt::Display) -> Rejection {
    Rejection {
        reason: reason::INVALID,
        message: format!("{path}: {what}"),
    }
}

/// A port; `otherwise` is what is meant where it is left out.
fn port(path: &str, raw: i32, otherwise: &str) -> Result<u16, Rejection> {
    u16::try_from(raw)
        .ok()
        .filter(|port| *port != 0)
        .ok_or_else(|| {
            invalid(
                path,
                format_args!(
                    "{raw} is not a port; write 1 to 65535, or leave it out for {otherwise}"
                ),
            )
        })
}

#[cfg(test)]
mod tests;
