//! Where objects come from. An input sends events and decides nothing.

pub mod kubernetes;
pub mod manifests;
pub mod membership;
