//! From a raw spec to one that cannot be wrong by itself.
//!
//! Every rule here is about one object alone and is refused at admission too,
//! by the schema or by CEL; a test proves that the two refuse the same. What
//! objects mean to each other is [`crate::resolve`]'s.

mod address;
mod availability;
mod forwarding;
mod group;
mod health_check;
mod name;
mod selector;
mod server;
mod service;
mod sysctl;

use std::fmt;

use kube::{Resource, core::object::HasSpec};

use crate::{Loose, Rejection, condition::reason};

pub use group::{AddressRule, CheckedGroup, SysctlRule, TimeoutRule};
pub use selector::Selector;
pub use server::CheckedServer;
pub use service::CheckedService;

/// A type that a store can hold: the checked form of a raw spec.
pub trait Checked: Sized + Clone + PartialEq {
    /// The object as users write it.
    type Object: HasSpec + Resource<DynamicType = ()>;

    /// Whether an object that is deleted keeps its last spec
    /// ([`crate::Store::gone`]).
    const KEPT_WHEN_GONE: bool = false;

    /// Checks a spec by itself.
    ///
    /// # Errors
    /// Names the field that is wrong and says what to write instead.
    fn check(spec: &<Self::Object as HasSpec>::Spec) -> Result<Self, Rejection>;

    /// Whether this may follow `before` under one uid.
    ///
    /// # Errors
    /// Names the field that may not change.
    fn may_follow(&self, before: &Self) -> Result<(), Rejection> {
        let _ = before;
        Ok(())
    }

    /// The DirectorGroup that an object names, also where its spec does not
    /// parse. None for kinds that name none.
    fn group(object: &Loose<Self::Object>) -> Option<String> {
        let _ = object;
        None
    }
}

/// Where a value stands and what is wrong with it, as a rejection.
fn invalid(path: &str, what: impl fmt::Display) -> Rejection {
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
