//! A failed server is taken out of service within the time that its check
//! allows, and clients of other servers do not notice. Events that are not a
//! failure of a server change nothing.

mod calm;
mod failure;
mod farm;
mod policy;
mod restart;
mod shared;
