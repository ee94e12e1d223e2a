//! The raw types of the API, as users write them. A value of these types may
//! still be wrong; [`crate::resolve`] is where that stops.

#![allow(
    unreachable_pub,
    reason = "KubeSchema copies each struct into a function"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "clippy takes the columns of one table for one"
)]

mod availability;
mod director;
mod director_group;
mod health_check;
mod real_server;
mod rule;
mod selector;
mod sysctl;
mod virtual_service;

pub use availability::*;
pub use director::*;
pub use director_group::*;
pub use health_check::*;
pub use real_server::*;
pub use virtual_service::*;

/// A count as a status holds it: an int32, as Kubernetes' API conventions want
/// it, and the largest one for all that are larger.
pub fn int32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
