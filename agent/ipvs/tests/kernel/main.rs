//! The crate against a real kernel: as root, in network namespaces of its
//! own. `cargo test -p ipvs --test kernel` finds a kernel for it.

mod batches;
mod namespace;
mod refusals;
mod rows;
mod strangers;
mod surface;
