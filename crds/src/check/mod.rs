//! Turns raw specs into checked specs. A checked spec obeys all rules that do
//! not depend on other objects.
//!
//! Every rule in this module is about a single object. At admission, the schema
//! and its CEL rules refuse the same specs as this module. A test compares the
//! schema's results with this module's results. [`crate::resolve`] checks
//! objects against each other.

mod address;
mod availability;
mod budget;
mod drain;
mod forwarding;
mod grant;
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

pub use budget::{BudgetRule, NamespaceRule};
pub use grant::{Extent, Grants};
pub(crate) use grant::{is_kube_proxys, is_metadata};
pub use group::{AddressRule, CheckedGroup, SysctlRule, TimeoutRule};
pub use selector::Selector;
pub use server::CheckedServer;
pub use service::CheckedService;

/// The checked form of an object's spec. A store holds specs in this form.
pub trait Checked: Sized + Clone + PartialEq {
    /// The API type whose spec is checked, such as `VirtualService`.
    type Object: HasSpec + Resource<DynamicType = ()>;

    /// Whether the store keeps the last spec of a deleted object
    /// ([`crate::Store::gone`]).
    const KEPT_WHEN_GONE: bool = false;

    /// Checks a spec without looking at other objects.
    ///
    /// # Errors
    /// The error names the invalid field and says what to write instead.
    fn check(spec: &<Self::Object as HasSpec>::Spec) -> Result<Self, Rejection>;

    /// Checks whether an edit may replace the spec `before` by `self`.
    ///
    /// # Errors
    /// The error names the field that must not change.
    fn may_follow(&self, before: &Self) -> Result<(), Rejection> {
        let _ = before;
        Ok(())
    }

    /// Returns the DirectorGroup that an object names, even if the object's
    /// spec does not parse. Returns None for kinds that belong to no group.
    fn group(object: &Loose<Self::Object>) -> Option<String> {
        let _ = object;
        None
    }
}

/// Returns a rejection that says what is wrong with the field `path`.
fn invalid(path: &str, what: impl fmt::Display) -> Rejection {
    Rejection {
        reason: reason::INVALID,
        message: format!("{path}: {what}"),
    }
}

/// Checks a port. `otherwise` describes the port that applies if the field is
/// left out. The error message contains this description.
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
