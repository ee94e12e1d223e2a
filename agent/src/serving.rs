//! Which servers are in service, and why.

pub mod tally;
