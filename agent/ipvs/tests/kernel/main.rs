//! The crate against a real kernel: as root, in network namespaces of its
//! own. `cargo test -p ipvs --test kernel` finds a kernel for it.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod batches;
mod namespace;
mod readings;
mod refusals;
mod rows;
mod strangers;
mod surface;
