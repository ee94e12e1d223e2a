//! The kernel's IPVS table. (draft)
mod model;
pub use model::*;
