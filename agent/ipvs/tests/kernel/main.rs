//! Tests of the crate `ipvs` with a real kernel, run as root, each in its own
//! network namespace. `cargo test -p ipvs --test kernel` runs these tests in
//! the lab's kernel.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod batches;
mod namespace;
mod readings;
mod refusals;
mod rows;
mod strangers;
mod surface;
