//! Tests of health checks. The agent takes a failed server out of service
//! within the time that its health check allows, and clients of other servers
//! do not notice. Events other than a server's failure change no weight.

mod calm;
mod failure;
mod farm;
mod policy;
mod restart;
mod shared;
