//! A failed server is taken out of service within the time that its check
//! allows, and clients of other servers are not affected. Other events change
//! no weight.

mod calm;
mod failure;
mod farm;
mod policy;
mod restart;
mod shared;
