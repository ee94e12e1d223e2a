//! The types of the API, as users write them. Values of the API's types are not
//! checked yet: [`crate::Store`] checks each object by itself, and
//! [`crate::resolve`] checks objects against each other.

#![allow(
    unreachable_pub,
    reason = "KubeSchema copies each struct into a function"
)]
#![allow(
    clippy::duplicated_attributes,
    reason = "clippy takes the columns of one table for one"
)]

mod availability;
mod budget;
mod director;
mod director_group;
mod director_group_member;
mod drain;
mod forwarding;
mod grant;
mod health_check;
mod real_server;
mod rule;
mod selector;
mod sysctl;
mod vip_holder;
mod virtual_service;

pub use availability::*;
pub use budget::*;
pub use director::*;
pub use director_group::*;
pub use director_group_member::*;
pub use drain::*;
pub use forwarding::*;
pub use grant::*;
pub use health_check::*;
pub use real_server::*;
pub use vip_holder::*;
pub use virtual_service::*;

/// Converts a count into the int32 that Kubernetes' API conventions want. A
/// count above the largest int32 becomes the largest int32.
pub fn int32(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
