//! Tests that the agent takes a failed server out of service within the time
//! that the health check allows. Clients of other servers are not affected.
//! Events that do not affect a server's health change no weight.

mod calm;
mod failure;
mod farm;
mod policy;
mod restart;
mod shared;
