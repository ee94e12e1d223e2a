//! From a raw spec to one that cannot be wrong by itself.
//!
//! Every rule here is about one object alone and is refused at admission too,
//! by the schema or by CEL; a test proves that the two refuse the same. What
//! objects mean to each other is [`crate::resolve`]'s.

mod address;
mod forwarding;
mod group;
mod name;
mod selector;
mod server;
mod service;

pub use group::{CheckedGroup, TimeoutRule};
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

#[cfg(test)]
mod tests;
